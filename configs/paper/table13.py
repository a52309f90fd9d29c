"""PixelCAM's Table 13: depth of the pixel head, trained on one data set and tested on the other.

python -m wsol_jax.main --mode=report --config=configs/paper/table13.py

Its rows are runs of table12.py, which it shares.
"""

from configs import tables
from configs.paper import table12


def get_config(variant=""):
    options = {"changes": table12.CHANGES, "shifted": True}
    return tables.of_rows("paper/table13", "pixelcam.TABLES_12_13", variant, **options)
