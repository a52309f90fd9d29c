"""Rows of PixelCAM's Table 1: ResNet-50, and SAT on DeiT-Tiny, on GlaS and CAMELYON16.

python -m wsol_jax.main --config=configs/paper/table01.py:glas/layer_cam+pixelcam

Data sets: glas, camelyon16. Maps: deep_mil, grad_cam_pp, layer_cam, sat, unet.
Each alone, with +negev or with +pixelcam; sat without negev, unet alone.
The published numbers are in `wsol_jax/published/pixelcam.py`.
"""

from configs import common


def get_config(variant="glas/layer_cam+pixelcam"):
    return common.row("paper/table01", "resnet50", variant)
