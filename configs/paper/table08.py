"""PixelCAM's Table 8: InceptionV3, on GlaS and CAMELYON16.

python -m wsol_jax.main --mode=report --config=configs/paper/table08.py
python -m wsol_jax.main --config=configs/paper/table08.py:glas/layer_cam+pixelcam

Data sets: glas, camelyon16. Maps: deep_mil, grad_cam_pp, layer_cam. Each alone, with +negev or with
+pixelcam; with "/short" behind it on a schedule for a CPU.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table08", "pixelcam.TABLE_8", variant, "inception_v3")
