"""Rows of PixelCAM's Table 7: VGG16, on GlaS and CAMELYON16.

python -m wsol_jax.main --config=configs/paper/table07.py:glas/layer_cam+pixelcam

Data sets: glas, camelyon16. Maps: deep_mil, grad_cam_pp, layer_cam.
Each alone, with +negev or with +pixelcam.
The published numbers are in `wsol_jax/published/pixelcam.py`.
"""

from configs import common


def get_config(variant="glas/layer_cam+pixelcam"):
    return common.row("paper/table07", "vgg16", variant)
