"""What configs may give, and one message for what they may not."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any


def require(kind: str, value: Any, choices: Iterable) -> None:
    """Raises ValueError, with the choices, where the value is none of them.

    Args:
      kind: what the value is, such as "backbone".
      choices: a dictionary stands for its keys, which are listed in alphabetical order.
    """
    if value not in choices:
        known = sorted(choices) if isinstance(choices, dict) else list(choices)
        raise ValueError(f"unknown {kind} {value!r}; have {known}")


def require_number(
    name: str,
    value: float,
    *,
    above: float | None = None,
    least: float = 0,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raises ValueError, with the bounds, where the value is not finite or lies outside them.

    Args:
      above, below: bounds that the value may not equal, in place of `least` and `most`.
    """
    inside = value > above if above is not None else value >= least
    if not (math.isfinite(value) and inside and value <= most and value < below):
        low = f"above {above}" if above is not None else f"at least {least}"
        high = f" and at most {most}" if most < math.inf else ""
        high = f" and below {below}" if below < math.inf else high
        raise ValueError(f"{name} is {value}; expected a number {low}{high}")


def require_growth(name: str, first: float, last: float) -> None:
    """Raises ValueError where a number begins above `NAME_max`, the maximum that it grows to."""
    if first > last:
        raise ValueError(
            f"{name}={first} lies above {name}_max={last}, which it grows to; "
            f"pass {name}_max={first} to keep it"
        )


def settings(module: Any) -> dict[str, type]:
    """What a config may set of a flax module, or of a class of them, and of which type it is."""
    own = {"parent", "name", "dtype", "axis_name", "num_classes"}  # the program's or flax's own
    names = [f.name for f in dataclasses.fields(module) if f.init and f.name not in own]
    return {name: type(getattr(module, name)) for name in names}


def require_settings(kind: str, name: str, given: Iterable[str], module: Any) -> None:
    """Raises ValueError, with the `settings` there are, where something else is set.

    Args:
      kind: what the module is, such as "backbone"; `name`: which of them.
    """
    require_known(kind, name, given, settings(module))


def require_known(kind: str, name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError, with the settings there are, where something else is set."""
    unknown = [keyword for keyword in given if keyword not in known]
    if unknown:
        raise ValueError(f"the {kind} {name!r} has no setting {unknown}; have {list(known)}")
