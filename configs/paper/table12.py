"""PixelCAM's Table 12: depth of the pixel head.

python -m wsol_jax.main --mode=report --config=configs/paper/table12.py
python -m wsol_jax.main --config=configs/paper/table12.py:glas/deep_mil+pixelcam,multi-layer
"""

from configs import tables

CHANGES = {"linear": {}, "multi-layer": {"method.pixel_head": "multi_layer"}}


def get_config(variant=""):
    return tables.of_rows("paper/table12", "pixelcam.TABLES_12_13", variant, changes=CHANGES)
