"""Names that configs may give, and one message for those they may not."""

from collections.abc import Iterable
from typing import Any


def require(kind: str, value: Any, choices: Iterable) -> None:
    """Raises ValueError, with the choices, where the value is none of them.

    Args:
      kind: what the value is, such as "backbone".
      choices: a dictionary stands for its keys, which are told in alphabetical order.
    """
    if value not in choices:
        told = sorted(choices) if isinstance(choices, dict) else list(choices)
        raise ValueError(f"unknown {kind} {value!r}; have {told}")
