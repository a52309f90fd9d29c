"""The maps of a table's rows beside each other, of the same test images.

PixelCAM's figures 2, 3, 6 to 8 and 11 to 18. Drawn from what the runs keep for their reports.
"""

import collections
from collections.abc import Sequence

import numpy as np

from wsol_jax import figures, visualize
from wsol_jax.papers import cells, plan, typeset


def of_table(wanted: Sequence[plan.Need], at_hand: plan.Shelf) -> dict[str, bytes]:
    """A picture (PNG) for each data set: image, truth, and a column for every finished row.

    Maps are of the first seed of each row. Runs that are tested on other data have none.
    """
    shown: dict[str, dict[str, tuple]] = collections.defaultdict(dict)
    for need in wanted:
        found = cells.origin(need, at_hand)
        if found and found.run.gallery and not need.target:
            maps = found.run.gallery[f"map_{found.phase}_{need.name}"]
            drawn = (found.run.gallery, maps.astype(np.float32))
            shown[need.data].setdefault(typeset.row_title(need.row), drawn)
    return {data: _drawn(rows) for data, rows in shown.items()}


def _drawn(rows):
    """The rows whose runs keep the images that the first one keeps, which are all as a rule."""
    (gallery, _), *_ = rows.values()
    names = gallery["name"]
    alike = {
        title: maps
        for title, (other, maps) in rows.items()
        if np.array_equal(other["name"], names) and other["mask"].shape == gallery["mask"].shape
    }
    examples = [
        visualize.Example(
            str(name),
            gallery["image"][i],
            gallery["mask"][i],
            {title: maps[i] for title, maps in alike.items()},
        )
        for i, name in enumerate(names)
    ]
    return figures.gallery(examples)
