"""Systems of the max-min paper's Table 3: parameters and seconds for one image of GlaS.

python scripts/table11.py --paper maxmin

measures all of them on the present machine. They are the rows of Table 1, which this config names
too: python -m wsol_jax.main --config=configs/paper/maxmin_table3.py:eem
"""

from configs import maxmin


def get_config(variant="eem"):
    return maxmin.row(f"paper/maxmin_table3/{variant}", "glas", variant)
