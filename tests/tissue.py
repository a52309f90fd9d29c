"""Images of two stains, drawn from a stain matrix."""

import numpy as np

STAINS = np.array([[0.62, 0.70, 0.35], [0.35, 0.85, 0.40]])  # of haematoxylin and eosin
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def tissue(seed, matrix=STAINS, *, strength=(1.5, 1.0), side=40):
    """An image (side side 3): a margin of glass, then pixels of either stain or of both.

    Args:
      strength: the most of each stain; the least is a third of it.
    """
    rng = np.random.default_rng(seed)
    amount = rng.uniform(1 / 3, 1, (side, side, 2)) * strength
    kind = rng.integers(0, 3, (side, side))
    amount *= np.stack([kind != 1, kind != 0], axis=-1)
    amount[: side // 8] = 0
    return np.rint(240 * np.exp(-amount @ matrix) - 1).astype(np.uint8)


def turned(degrees, matrix=STAINS):
    """A stain matrix whose stains are turned by an angle about their sum."""
    axis = matrix.sum(axis=0) / np.linalg.norm(matrix.sum(axis=0))
    radians = np.radians(degrees)
    cross = np.cross(axis, matrix)
    along = (matrix @ axis)[:, None] * axis
    return np.cos(radians) * (matrix - along) + np.sin(radians) * cross + along
