"""PixelCAM over LayerCAM on drawn glands, a narrow ResNet-18 from scratch: minutes on two cores.

python -m wsol_jax.main --config=configs/quickstart.py
"""

from ml_collections import ConfigDict

from configs import common


def get_config():
    config = common.base("quickstart")
    config.data = ConfigDict({"name": "synthetic_glands", "source": "memory"})
    config.resize, config.image_size = 128, 112
    config.backbone = ConfigDict({"name": "resnet18", "width": 16})
    config.weights.source = ""
    config.method = common.pixelcam()
    config.optimizer = ConfigDict(
        {
            "learning_rate": 1e-2,
            "decay_epochs": (8, 11),
            "fast": ("encoder/layer4", "head", "pixel_head"),
            "fast_ratio": 1.0,
        }
    )
    config.epochs, config.batch_size = 12, 16
    return common.with_baseline(config, "layer_cam")
