"""PixelCAM's Table 9: t-tests of PixelCAM against its baselines; VGG16.

python -m wsol_jax.main --mode=report --config=configs/paper/table09.py

Fifteen seeds of the runs of table07.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.t_tests("paper/table09", "pixelcam.TABLE_9", variant, "paper/table07", "vgg16")
