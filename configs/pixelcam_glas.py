"""PixelCAM over LayerCAM on GlaS, ResNet-50 (Table 1: PxAP 75.1 -> 83.6, accuracy 100).

python -m wsol_jax.main --config=configs/pixelcam_glas.py

The released schedule: 1000 epochs in each phase, though the learning rate reaches its floor by
epoch 20.
"""

from configs import common


def get_config():
    config = common.glas(common.base("pixelcam_glas"))
    config.method = common.pixelcam()
    config.optimizer = common.released_optimizer()
    config.epochs = 1000
    return common.with_baseline(config, readout="layer_cam")
