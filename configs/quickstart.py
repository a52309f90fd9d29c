"""PixelCAM over LayerCAM on drawn glands, a narrow ResNet-18 from scratch: minutes on two cores.

python -m wsol_jax.main --config=configs/quickstart.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.base("quickstart")
    config.data = ConfigDict({"name": "synthetic_glands", "source": "memory"})
    config.resize, config.image_size = 128, 112
    config.backbone = common.backbone("resnet18", blocks=(1, 1, 1, 1), width=16)
    config.weights.source = ""
    config.method = common.pixelcam()
    config.method.dropout = 0.0
    config.optimizer = ConfigDict({"learning_rate": 0.02, "decay_epochs": (20, 26)})
    config.epochs, config.batch_size = 30, 8
    common.with_baseline(config, "layer_cam")
    config.optimizer.learning_rate = 0.04
    config.optimizer.decay_epochs, config.epochs = (12, 16), 18
    return config
