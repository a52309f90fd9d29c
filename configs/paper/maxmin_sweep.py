"""The hyper-parameters of the max-min paper's Fig. 10, one at a time: lambda, sigma, omega on GlaS.

python -m wsol_jax.main --mode=report --config=configs/paper/maxmin_sweep.py
python -m wsol_jax.main --config=configs/paper/maxmin_sweep.py:eem/lambda=1e-5

Regularizer eem or sem; the table has lambda 1e-7 to 1e-1, sigma 0.1 to 0.5 and omega 1 to 10, a run
any value. With "/short" behind it, or "short" for the whole table, on a schedule for a CPU. A swept
sigma does not rise with the epochs.
"""

from configs import maxmin, tables

NAME = "paper/maxmin_sweep"
SWEPT = {"lambda": "background_weight", "sigma": "sigma", "omega": "omega"}
VALUES = {
    "lambda": ("1e-7", "1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1"),
    "sigma": ("0.1", "0.15", "0.2", "0.3", "0.4", "0.5"),
    "omega": ("1", "2", "5", "8", "10"),
}


def get_config(variant=""):
    if variant not in ("", tables.SHORT):
        return _run(variant)
    end = f"/{variant}" if variant else ""
    settings = [f"{name}={value}" for name, values in VALUES.items() for value in values]
    rows = [f"{regularizer}/{setting}" for regularizer in maxmin.MAXMIN for setting in settings]
    cells = [tables.cell(row, _run(f"{row}{end}")) for row in rows]
    return tables.whole(NAME, "", cells, short=bool(variant))


def _run(variant):
    regularizer, _, rest = variant.partition("/")
    setting, _, length = rest.partition("/")
    name, _, value = setting.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = None
    known = regularizer in maxmin.MAXMIN and name in SWEPT and length in ("", tables.SHORT)
    if number is None or not known:
        raise ValueError(
            f"unknown setting {variant!r}; expected REGULARIZER/NAME=VALUE, or that and "
            f"/{tables.SHORT}, with REGULARIZER in {list(maxmin.MAXMIN)}, NAME in {list(SWEPT)} "
            "and a number as VALUE"
        )
    keywords = {"background": regularizer, SWEPT[name]: number}
    if name == "sigma":
        keywords |= {"sigma_step": 0.0, "sigma_max": number}
    config = maxmin.maxmin(f"{NAME}/{variant}", "glas", **keywords)
    config.published = ""  # the tables' rows are of the usual setting
    return maxmin.short(config) if length else config
