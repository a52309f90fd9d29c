"""Drawn tissue in the colours of haematoxylin and eosin, with glands: data anyone has at once.

A typical gland has a row of basal nuclei, pale goblet cells and a small lumen; an atypical one has
large nuclei in disorder and a torn lumen with debris. Most glands of a benign image are typical,
most of a malignant image atypical. The object is every gland, so a map of nothing but the evidence
for the class misses those of the other kind. Stain, light and the share of gland tell no class.
"""

import functools
from typing import NamedTuple

import numpy as np

from wsol_jax import choices
from wsol_jax.data import drawing, gland_shapes, splits

CLASSES = ("benign", "malignant")
SPLITS = {"train": 192, "valcl": 16, "valpx": 6, "test": 48}  # number of examples


class Stains(NamedTuple):
    """Concentration of both stains per pixel: about 1 in a nucleus, 0.5 in fibres."""

    haematoxylin: drawing.Field
    eosin: drawing.Field

    def under(
        self,
        haematoxylin: drawing.Field | float,
        eosin: drawing.Field | float,
        cover: drawing.Field,
    ) -> "Stains":
        """These below another layer, which hides them where `cover` is 1."""
        return Stains(
            self.haematoxylin + (haematoxylin - self.haematoxylin) * cover,
            self.eosin + (eosin - self.eosin) * cover,
        )


def examples(split: str) -> tuple[splits.Example, ...]:
    """The examples of a split, benign and malignant in turn; `valpx` is the head of `valcl`."""
    choices.require("split", split, tuple(SPLITS))
    source = "valcl" if split == "valpx" else split
    return tuple(
        splits.Example(f"{source}_{i:03d}", i % 2, functools.partial(draw, source, i))
        for i in range(SPLITS[split])
    )


@functools.lru_cache(maxsize=512)  # splits are opened at several sizes
def draw(split: str, index: int) -> splits.Picture:
    """Image and mask of gland numbers, 256 x 256: a function of its arguments. Odd: malignant."""
    rng = np.random.default_rng([list(SPLITS).index(split), index])
    glands = gland_shapes.place(rng, malignant=bool(index % 2))
    stains = _stroma(rng, glands)
    stains = _typical(rng, glands, stains)
    stains = _atypical(rng, glands, stains)
    stains = stains.under(0.0, 0.0, 0.5 * np.exp(-np.square((glands.depth + 1.2) / 1.3)))
    return drawing.stained(rng, *stains), glands.number


def _stroma(rng: np.random.Generator, glands: gland_shapes.Glands) -> Stains:
    """Wavy fibres with clefts, and nuclei along them: the same in both classes."""
    noise = functools.partial(drawing.noise, rng)
    angle = rng.uniform(0, np.pi)
    across = (
        np.cos(angle) * drawing.COLUMNS
        + np.sin(angle) * drawing.ROWS
        + 18 * noise(90)
        + 6 * noise(36)
    )
    wave = 0.5 * np.sin(2 * np.pi * across / rng.uniform(12, 17) + 1.5 * noise(28))
    wave += 0.3 * np.sin(2 * np.pi * across / 6.2 + 2 * noise(18))
    cleft = np.clip(0.6 * noise(15) + 0.9 * wave - rng.uniform(0.7, 1.2), 0, 1)
    fibres = Stains(
        0.10 + 0.03 * noise(26) + 0.02 * wave,
        0.48 + 0.09 * wave + 0.07 * noise(50) + 0.04 * noise(5),
    )
    crowd = np.clip(rng.uniform(0.15, 0.45) + 0.25 * noise(60), 0.05, 1)
    points = drawing.scatter(rng, (glands.depth < -2.5) * crowd, spacing=6, darts=1200)
    rows, columns = np.gradient(across)
    return _nuclei(
        rng,
        points,
        fibres.under(0.02, 0.12, 0.8 * cleft),
        long=4.0,
        spread=0.22,
        ratio=(0.3, 0.75),
        direction=np.arctan2(columns, -rows),
        turn=0.35,
        value=(0.85, 1.3),
    )


def _typical(rng: np.random.Generator, glands: gland_shapes.Glands, stains: Stains) -> Stains:
    """A basal row of nuclei, goblet cells full of pale mucus, a small round lumen."""
    noise = functools.partial(drawing.noise, rng)
    own = np.clip(glands.depth + 0.5, 0, 1) * ~glands.atypical
    lumen = (0.15 + 0.04 * noise(18) - glands.centre) * glands.radius / 1.5 + 0.5
    goblets = drawing.ellipses(
        rng,
        drawing.scatter(
            rng,
            0.95 * ~glands.atypical * (glands.depth > 9.5) * (glands.centre > 0.2),
            spacing=7.8,
            darts=3000,
        ),
        long=5.2,
        spread=0.12,
        ratio=(0.7, 0.9),
        direction=glands.outward,
        turn=0.0,
        value=(0.85, 1.0),
    )
    cytoplasm = Stains(0.17 + 0.04 * noise(7), 0.28 + 0.05 * noise(8)).under(0.13, 0.02, goblets)
    stains = stains.under(*cytoplasm, own).under(0.03, 0.04, np.clip(lumen, 0, 1) * own)
    basal = ~glands.atypical * (glands.depth > 2.5) * (glands.depth < 7.5)
    return _nuclei(
        rng,
        drawing.scatter(rng, basal, spacing=4.4, darts=5000),
        stains,
        long=4.0,
        spread=0.12,
        ratio=(0.5, 0.65),
        direction=glands.outward,
        turn=0.2,
        value=(0.9, 1.25),
    )


def _atypical(rng: np.random.Generator, glands: gland_shapes.Glands, stains: Stains) -> Stains:
    """Large nuclei in many rows and all directions, torn or several lumina, debris in them."""
    noise = functools.partial(drawing.noise, rng)
    own = np.clip(glands.depth + 0.5, 0, 1) * glands.atypical
    torn = rng.uniform(0.12, 0.34) + 0.13 * noise(18) + 0.07 * noise(9) - glands.centre
    sieve = 4 * (noise(23) - 1.6) * (glands.depth > 9)
    lumen = np.clip(np.maximum(torn * glands.radius / 2 + 0.5, sieve), 0, 1) * own
    stains = stains.under(0.20 + 0.06 * noise(12), 0.36 + 0.08 * noise(9), own)
    stains = stains.under(0.03, 0.25 + np.clip(0.5 * noise(7) + 0.1, 0, 0.5), lumen)
    rows = np.clip((rng.uniform(16, 26) - glands.depth) / 6, 0.3, 1)
    crowd = rows * np.clip(0.8 + 0.3 * noise(20), 0.15, 1) * np.clip(1 - 3 * lumen, 0, 1)
    points = drawing.scatter(
        rng, glands.atypical * (glands.depth > 2.5) * crowd, spacing=5.2, darts=5000
    )
    any_way = {"direction": glands.outward, "turn": 0.6}
    stains = _nuclei(
        rng, points, stains, long=4.9, spread=0.2, ratio=(0.45, 0.8), value=(0.85, 1.4), **any_way
    )
    debris = drawing.scatter(rng, 0.4 * (lumen > 0.6), spacing=4, darts=1500)
    return _nuclei(
        rng, debris, stains, long=1.8, spread=0.3, ratio=(0.6, 1.0), value=(0.5, 1.1), **any_way
    )


def _nuclei(rng: np.random.Generator, points: drawing.Points, stains: Stains, **shape) -> Stains:
    """Nuclei with grains of chromatin, laid over what is there."""
    layer = drawing.ellipses(rng, points, **shape)
    chromatin = np.maximum(layer * (1 + 0.16 * drawing.noise(rng, 2.6)), stains.haematoxylin)
    return stains.under(chromatin, 0.65 * stains.eosin, np.clip(layer / 0.35, 0, 1))
