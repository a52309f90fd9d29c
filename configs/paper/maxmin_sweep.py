"""The hyper-parameters of the max-min paper's Fig. 10, one at a time: lambda, sigma, omega on GlaS.

python -m wsol_jax.main --config=configs/paper/maxmin_sweep.py:eem/lambda=1e-5

Regularizer eem or sem; lambda 1e-7 to 1e-1, sigma 0.1 to 0.5, omega 1 to 10; with "/short" behind
it, on a schedule for a CPU. A swept sigma does not rise with the epochs.
"""

from configs import maxmin

SWEPT = {"lambda": "background_weight", "sigma": "sigma", "omega": "omega"}


def get_config(variant="eem/lambda=1e-5"):
    regularizer, _, rest = variant.partition("/")
    setting, _, length = rest.partition("/")
    name, _, value = setting.partition("=")
    if regularizer not in maxmin.MAXMIN or name not in SWEPT or not value:
        raise ValueError(
            f"unknown setting {variant!r}; expected REGULARIZER/NAME=VALUE with REGULARIZER in "
            f"{list(maxmin.MAXMIN)} and NAME in {list(SWEPT)}"
        )
    keywords = {"background": regularizer, SWEPT[name]: float(value)}
    if name == "sigma":
        keywords |= {"sigma_step": 0.0, "sigma_max": float(value)}
    config = maxmin.maxmin(f"paper/maxmin_sweep/{variant}", "glas", **keywords)
    return maxmin.short(config) if length == "short" else config
