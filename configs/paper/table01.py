"""PixelCAM's Table 1: ResNet-50, and SAT on DeiT-Tiny, on GlaS and CAMELYON16.

python -m wsol_jax.main --mode=report --config=configs/paper/table01.py
python -m wsol_jax.main --config=configs/paper/table01.py:glas/layer_cam+pixelcam

Data sets: glas, camelyon16. Maps: deep_mil, grad_cam_pp, layer_cam, sat, unet. Each alone, with
+negev or with +pixelcam; sat without negev, unet alone. With "/short" behind it, or "short" for the
whole table: 14 epochs a phase, SAT's 100, for a CPU.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table01", "pixelcam.TABLE_1", variant)
