"""PixelCAM's Table 5: class separability J, trained on one data set and tested on the other.

python -m wsol_jax.main --mode=report --config=configs/paper/table05.py

Its rows are runs of table01.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table05", "pixelcam.TABLES_4_5", variant, shifted=True)
