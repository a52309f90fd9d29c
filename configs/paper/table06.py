"""PixelCAM's Table 6: pixel rates of the runs of Table 1, where they are best on the test split.

python -m wsol_jax.main --mode=report --config=configs/paper/table06.py

Its rows are runs of table01.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table06", "pixelcam.TABLE_6", variant)
