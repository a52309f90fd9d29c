"""PixelCAM on GlaS, ResNet-50, over the maps of an image classifier (PixelCAM paper, Table 1).

python -m wsol_jax.main --config=configs/pixelcam_glas.py                 PxAP 75.1 -> 83.6
python -m wsol_jax.main --config=configs/pixelcam_glas.py:grad_cam_pp     PxAP 76.8 -> 86.6
python -m wsol_jax.main --config=configs/pixelcam_glas.py:deep_mil        PxAP 79.9 -> 85.5

cam, grad_cam, lse, max and wildcat are there, too; for these no number is published. The released
schedule: 1000 epochs a phase, though the learning rate reaches its floor by epoch 20. Accuracy 100
before and after.
"""

from configs import common
from wsol_jax import choices


def get_config(cam="layer_cam"):
    choices.require("map", cam, common.READ_OUT)  # configs/paper/table01.py has SAT, and U-Net
    config = common.glas(common.base(common.named("pixelcam_glas", cam)))
    config.head = common.head(common.HEADS[cam])
    config.method = common.pixelcam()
    config.optimizer = common.released_optimizer()
    config.epochs = 1000
    return common.with_baseline(config, cam)
