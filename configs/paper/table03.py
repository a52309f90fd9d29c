"""PixelCAM's Table 3: trained on one data set, tested on the other.

python -m wsol_jax.main --mode=report --config=configs/paper/table03.py

Its rows are runs of table01.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.of_rows("paper/table03", "pixelcam.TABLE_3", variant, shifted=True)
