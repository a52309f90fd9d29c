"""PixelCAM's Table 2: t-tests of PixelCAM against its baselines; the rows of Table 1.

python -m wsol_jax.main --mode=report --config=configs/paper/table02.py

Fifteen seeds of the runs of table01.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.t_tests("paper/table02", "pixelcam.TABLE_2", variant, "paper/table01")
