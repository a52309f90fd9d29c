"""Rows of the max-min paper's Table 1: GlaS.

python -m wsol_jax.main --config=configs/paper/maxmin_table1.py:eem

Rows: eem, sem, pn, erase, cam_avg, cam_max, cam_lse, grad_cam, wildcat, deep_mil, unet; with
"/short" behind it, on a schedule for a CPU. All-ones is the floor "all_foreground" of each run.
"""

from configs import maxmin


def get_config(variant="eem"):
    method, _, length = variant.partition("/")
    config = maxmin.row(f"paper/maxmin_table1/{variant}", "glas", method)
    return maxmin.short(config) if length == "short" else config
