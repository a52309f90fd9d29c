"""One table of numbers."""

from typing import NamedTuple


class Table(NamedTuple):
    """One published table.

    `columns` are "data/quantity", the data left out where the table has none. `rows` maps a method,
    such as "layer_cam" or "layer_cam + pixelcam", to one number for each column.
    """

    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | int | None, ...]]
