"""The max-min paper's Table 4: what each term adds, on GlaS.

python -m wsol_jax.main --mode=report --config=configs/paper/maxmin_table4.py
python -m wsol_jax.main --config=configs/paper/maxmin_table4.py:foreground+background,eem

Rows: wildcat, foreground, foreground+background,eem and the same with ,sizeconstraints; both for
sem, too. With "/short" behind it, or "short" for the whole table, on a schedule for a CPU.
"""

from configs import maxmin, tables

NAME = "paper/maxmin_table4"


def get_config(variant=""):
    options = {"data": ("glas",), "shorten": maxmin.short}
    return tables.choose(NAME, "maxmin.TABLE_4", variant, _run, **options)


def _run(row, data):
    if row == "wildcat":
        return maxmin.row(NAME, data, row)
    background = next((term for term in maxmin.MAXMIN if term in row), None)
    run = maxmin.maxmin(NAME, data, background=background, size="size" in row)
    run.published = row
    return run
