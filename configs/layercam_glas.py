"""LayerCAM of a ResNet-50 classifier on GlaS (PixelCAM paper, Table 1: PxAP 75.1, accuracy 100).

python -m wsol_jax.main --config=configs/layercam_glas.py
"""

from configs import common


def get_config():
    config = common.glas(common.base("layercam_glas"))
    config.method = common.classifier("layer_cam")
    config.optimizer = common.released_optimizer()
    config.epochs = 1000
    return config
