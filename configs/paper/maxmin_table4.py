"""Rows of the max-min paper's Table 4: what each term adds, on GlaS.

python -m wsol_jax.main --config=configs/paper/maxmin_table4.py:foreground+eem

Rows: foreground, foreground+eem, foreground+sem, foreground+eem+size, foreground+sem+size; with
"/short" behind it, on a schedule for a CPU. The table's first row is wildcat of maxmin_table1.
"""

from configs import maxmin

PUBLISHED = {
    "foreground": "foreground",
    "foreground+eem": "foreground + background, eem",
    "foreground+sem": "foreground + background, sem",
    "foreground+eem+size": "foreground + background, eem, size constraints",
    "foreground+sem+size": "foreground + background, sem, size constraints",
}


def get_config(variant="foreground+eem"):
    terms, _, length = variant.partition("/")
    if terms not in PUBLISHED:
        raise ValueError(f"unknown row {terms!r}; have {list(PUBLISHED)}")
    regularizer = next((name for name in maxmin.MAXMIN if name in terms), None)
    switches = {"background": regularizer, "size": "size" in terms}
    config = maxmin.maxmin(f"paper/maxmin_table4/{variant}", "glas", **switches)
    config.published = PUBLISHED[terms]
    return maxmin.short(config) if length == "short" else config
