"""PixelCAM's Table 16: n, the pixels of each kind that an image teaches.

python -m wsol_jax.main --mode=report --config=configs/paper/table16.py
python -m wsol_jax.main --config=configs/paper/table16.py:glas/grad_cam_pp+pixelcam,n=20
"""

from configs import tables

CHANGES = {f"n={n}": {"method.foreground": n, "method.background": n} for n in (1, 5, 10, 20)}


def get_config(variant=""):
    return tables.of_rows("paper/table16", "pixelcam.TABLE_16", variant, changes=CHANGES)
