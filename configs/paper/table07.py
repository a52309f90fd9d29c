"""PixelCAM's Table 7: VGG16, on GlaS and CAMELYON16.

python -m wsol_jax.main --mode=report --config=configs/paper/table07.py
python -m wsol_jax.main --config=configs/paper/table07.py:glas/layer_cam+pixelcam

Data sets: glas, camelyon16. Maps: deep_mil, grad_cam_pp, layer_cam. Each alone, with +negev or with
+pixelcam; with "/short" behind it on a schedule for a CPU.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table07", "pixelcam.TABLE_7", variant, "vgg16")
