"""PixelCAM's Table 10: t-tests of PixelCAM against its baselines; InceptionV3.

python -m wsol_jax.main --mode=report --config=configs/paper/table10.py

Fifteen seeds of the runs of table08.py, which it shares.
"""

from configs import tables


def get_config(variant=""):
    return tables.t_tests(
        "paper/table10", "pixelcam.TABLE_10", variant, "paper/table08", "inception_v3"
    )
