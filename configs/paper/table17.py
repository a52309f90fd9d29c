"""PixelCAM's Table 17: lambda, the weight of the pixel loss.

python -m wsol_jax.main --mode=report --config=configs/paper/table17.py
python -m wsol_jax.main --config=configs/paper/table17.py:glas/layer_cam+pixelcam,lambda=0.1
"""

from configs import tables

CHANGES = {f"lambda={x:g}": {"method.pixel_weight": x} for x in (1.0, 0.5, 0.1, 0.01, 0.001)}


def get_config(variant=""):
    return tables.of_rows("paper/table17", "pixelcam.TABLE_17", variant, changes=CHANGES)
