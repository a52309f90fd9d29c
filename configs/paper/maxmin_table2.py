"""The max-min paper's Table 2: CAMELYON16.

python -m wsol_jax.main --mode=report --config=configs/paper/maxmin_table2.py
python -m wsol_jax.main --config=configs/paper/maxmin_table2.py:eem

Rows: eem, sem, pn, erase, cam_avg, cam_max, cam_lse, grad_cam, wildcat, deep_mil, unet; with
"/short" behind it, or "short" for the whole table, on a schedule for a CPU. All-ones is the floor
"all_foreground" of each run. The released objective and schedule of eem and sem are those of
configs/maxmin_camelyon16_released.py.
"""

from configs import maxmin


def get_config(variant=""):
    return maxmin.table("paper/maxmin_table2", "camelyon16", variant)
