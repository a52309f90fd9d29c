"""PixelCAM's Table 4: class separability J of the features.

python -m wsol_jax.main --mode=report --config=configs/paper/table04.py

Its rows are runs of table01.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table04", "pixelcam.TABLES_4_5", variant)
