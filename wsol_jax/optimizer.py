"""SGD as the published models were trained: two parameter groups and step decay with a floor."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wsol_jax import choices

Schedule = Callable[[Any], Any]


def sgd(
    *,
    learning_rate: float,
    steps_per_epoch: int,
    decay_epochs: tuple[int, ...],
    decay: float = 0.1,
    floor: float = 1e-6,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    fast: tuple[str, ...] = (),
    fast_ratio: float = 10.0,
    frozen: tuple[str, ...] = (),
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum; weight decay on every parameter, biases and norms included.

    Args:
      learning_rate: per step, of the slow group.
      steps_per_epoch: the schedule counts epochs.
      decay_epochs: epochs at whose start the learning rate is multiplied by `decay`.
      floor: least learning rate, of either group.
      fast: prefixes of the parameter paths ("encoder/layer4", "head") that learn `fast_ratio` times
        as fast.
      frozen: prefixes of the paths of parameters that stay as they are, to the bit.

    Raises:
      ValueError: a rate, decay or momentum out of its range.
    """
    choices.require_number("learning_rate", learning_rate, above=0)
    choices.require_number("decay", decay, above=0, most=1)
    choices.require_number("momentum", momentum, below=1)
    choices.require_number("floor", floor)
    choices.require_number("weight_decay", weight_decay)
    choices.require_number("fast_ratio", fast_ratio)
    rates = {"slow": learning_rate, "fast": learning_rate * fast_ratio}
    schedules = {
        group: step_decay(rate, decay, decay_epochs, floor, steps_per_epoch)
        for group, rate in rates.items()
    }

    def descent(schedule):
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.trace(decay=momentum, nesterov=True),
            optax.scale_by_learning_rate(schedule),
        )

    return optax.partition(
        {"frozen": optax.set_to_zero(), **{g: descent(s) for g, s in schedules.items()}},
        lambda params: groups(params, fast, frozen),
    )


def step_decay(
    base: float, decay: float, decay_epochs: tuple[int, ...], floor: float, steps_per_epoch: int
) -> Schedule:
    """Step -> max(base * decay^n, floor), n how many of `decay_epochs` have begun."""
    starts = [epoch * steps_per_epoch for epoch in decay_epochs]

    def rate(step):
        return jnp.maximum(base * decay ** sum((step >= start) * 1 for start in starts), floor)

    return rate


def groups(params: Any, fast: tuple[str, ...], frozen: tuple[str, ...] = ()) -> Any:
    """ "frozen", "fast" or "slow" for every parameter, by its path.

    Raises:
      ValueError: a prefix names a part of a module that the module does not have. The module itself
        may be missing: a head that only the second phase has, say. Or one prefix is a list of them.
    """
    joined = [prefix for prefix in fast if "," in prefix]  # as config flags take a list of texts
    if joined:
        raise ValueError(
            f"optimizer.fast has {joined[0]!r}; expected several: "
            f'--config.optimizer.fast="{tuple(joined[0].split(","))}"'
        )
    names = jax.tree.map_with_path(lambda path, _: "/".join(str(key.key) for key in path), params)
    for prefix in fast:
        module = prefix.partition("/")[0]
        own = [name for name in jax.tree.leaves(names) if name.startswith(module)]
        if own and not any(name.startswith(prefix) for name in own):
            parts = sorted({name.split("/")[1] for name in own if "/" in name})
            raise ValueError(f"optimizer.fast names {prefix!r}, but {module!r} has only {parts}")

    def group(name):
        if name.startswith(tuple(frozen)):
            return "frozen"
        return "fast" if name.startswith(tuple(fast)) else "slow"

    return jax.tree.map(group, names)
