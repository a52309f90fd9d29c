"""Rows of the max-min paper's Table 2: CAMELYON16.

python -m wsol_jax.main --config=configs/paper/maxmin_table2.py:eem

Rows: eem, sem, pn, erase, cam_avg, cam_max, cam_lse, grad_cam, wildcat, deep_mil, unet. The
released objective of eem and sem is --config.method.objective=camelyon16_released.
"""

from configs import maxmin


def get_config(variant="eem"):
    return maxmin.row(f"paper/maxmin_table2/{variant}", "camelyon16", variant)
