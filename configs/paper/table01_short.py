"""Rows of PixelCAM's Table 1 on GlaS with a schedule for a CPU: 14 epochs a phase, SAT's 100.

python -m wsol_jax.main --config=configs/paper/table01_short.py:layer_cam+pixelcam

Maps: deep_mil, grad_cam_pp, layer_cam, sat, unet. Each alone, with +negev or with +pixelcam; sat
without negev, unet alone. Of layer_cam and grad_cam_pp one classifier serves all six rows: pass the
first finished run as --config.baseline.workdir=.
"""

from configs import common


def get_config(variant="layer_cam+pixelcam"):
    return common.short(common.row("paper/table01_short", "resnet50", f"glas/{variant}"))
