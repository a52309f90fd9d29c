"""The max-min paper's Table 3: parameters, and seconds from an image of GlaS to its map.

python -m wsol_jax.main --mode=report --config=configs/paper/maxmin_table3.py

The rows are those of Table 1 but All-ones: maxmin_table3.py:eem is one row's run. An image of GlaS,
522 x 775, is seen at 432 x 641.
"""

from configs import maxmin, tables

NAME = "paper/maxmin_table3"
NOTE = (
    "The published times are of another device, and those of the classifiers of other code than "
    "EEM's, SEM's, PN's and ERASE's. EEM and SEM map in one pass of the encoder, and "
    "go through it once more for the class; our times are of both."
)


def get_config(variant=""):
    facts = {"seen": (432, 641), "mapped": (522, 775), "note": NOTE}
    return tables.costs(NAME, "maxmin.TABLE_3", variant, _run, **facts)


def _run(row):
    return maxmin.row(NAME, "glas", row)
