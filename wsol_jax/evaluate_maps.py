"""Anyone's heat maps, in files, against masks: scores with intervals, and two folders compared.

The metrics are those of a run, at the size of the masks. Maps are read one at a time and leave a
histogram each; these stay in memory, 24 kB an image.
"""

import logging
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from wsol_jax import (
    evaluate,
    files,
    logbook,
    map_files,
    map_scores,
    pixel_counts,
    pixel_labels,
    significance,
)
from wsol_jax.data import pictures

COLUMNS = ("maps", "image", "resized", "foreground", *map_scores.SCORES)
CHUNK = 2**18  # pixels are counted in rows of so many, which are filled up: few shapes to compile

_histogram = jax.jit(pixel_counts.histogram)


class Counted(NamedTuple):
    """The maps of a folder, counted: their files, which of them were resized, a histogram each."""

    paths: tuple[pathlib.Path, ...]
    resized: tuple[bool, ...]
    counts: Int32[np.ndarray, "n 2 bins"]


def run(
    maps: pathlib.Path,
    masks: pathlib.Path,
    output: pathlib.Path,
    against: pathlib.Path | None = None,
) -> dict[str, Any]:
    """Scores the maps of a folder and, where there is `against`, their lead over those of another.

    A mask is foreground where it is not 0. A map of another size than its mask is resized
    bilinearly. Writes `scores.json`, with what is returned, and `scores.csv`, with every image.

    Raises:
      FileNotFoundError, ValueError: see `map_files`, or no mask has foreground; nothing is written.
    """
    truths = map_files.find_masks(masks)
    folders = {"maps": maps} if against is None else {"maps": maps, "against": against}
    found = {title: map_files.find_maps(folder, truths) for title, folder in folders.items()}
    output.mkdir(parents=True, exist_ok=True)
    counted = {title: _counted(paths, truths) for title, paths in found.items()}
    numbers = {"masks": str(masks), "images": len(truths), **_numbers(counted)}
    for line in _table(numbers):
        logging.info("%s", line)
    rows = [row for title in counted for row in _rows(title, counted[title])]
    files.write_csv(output / "scores.csv", COLUMNS, rows)
    files.write_json(output / "scores.json", {**numbers, "record": logbook.record()})
    return numbers


def _counted(maps, truths):
    counts, resized = [], []
    for name, path in maps.items():
        heat, truth = map_files.read(path), (pictures.read_mask(truths[name]) > 0).astype(np.uint8)
        resized.append(heat.shape != truth.shape)
        if resized[-1]:
            heat = np.asarray(evaluate.to_size(jnp.asarray(heat)[None], truth.shape)[0])
        counts.append(_count(heat, truth))
    return Counted(tuple(maps.values()), tuple(resized), np.stack(counts))


def _count(
    heat: Float32[np.ndarray, "H W"], truth: UInt8[np.ndarray, "H W"]
) -> Int32[np.ndarray, "2 bins"]:
    """The histogram of one image."""
    short = -heat.size % CHUNK
    scores = np.pad(heat.ravel(), (0, short)).reshape(-1, 1, CHUNK)
    filled = np.pad(truth.ravel(), (0, short), constant_values=pixel_labels.UNANNOTATED)
    return np.asarray(_histogram(scores, filled.reshape(scores.shape), np.ones(len(scores), bool)))


def _numbers(counted: dict[str, Counted]) -> dict[str, Any]:
    background, foreground = counted["maps"].counts.sum(axis=(0, 2), dtype=np.int64)
    if foreground == 0:
        raise ValueError(
            f"none of the {background} pixels of the masks is foreground, which is what is not 0; "
            "PxAP needs some"
        )
    numbers = {
        "constant_map": float(100 * foreground / (background + foreground)),
        "intervals": {"level": significance.LEVEL, "resamples": significance.RESAMPLES},
    }
    for title, each in counted.items():
        facts = {
            "folder": str(each.paths[0].parent),
            "kinds": sorted({p.suffix for p in each.paths}),
        }
        numbers[title] = {**facts, "resized": sum(each.resized), **map_scores.summary(each.counts)}
    if "against" in counted:
        both = (each.counts for each in counted.values())
        numbers["difference"] = map_scores.differences(*both)
    return numbers


def _table(numbers: dict[str, Any]) -> Iterator[str]:
    """The lines of the console."""
    titles = [title for title in ("maps", "against", "difference") if title in numbers]
    for title in titles[:2]:
        facts = numbers[title]
        yield (
            f"{title}: {numbers['images']} {'/'.join(facts['kinds'])} files of {facts['folder']}, "
            f"{facts['resized']} of them resized to their masks"
        )
    yield _line("", map_scores.SCORES.values())
    for title in titles:
        yield _line(title, (_cell(numbers[title][name]) for name in map_scores.SCORES))
    level = f"{100 * significance.LEVEL:.0f} % of {significance.RESAMPLES} resamples of the images"
    yield f"brackets: {level}; a constant map has a PxAP of {numbers['constant_map']:.2f}"
    for title in titles[:2]:
        rates = numbers[title]["at_best_threshold"]
        shown = "  ".join(f"{key} {rates[key]:.2f}" for key in ("tp", "fn", "tn", "fp", "miou"))
        yield f"{title} at threshold {rates['threshold']:.3f}, best for these images: {shown}"


def _line(title: str, cells: Iterable[str]) -> str:
    return f"{title:12}{''.join(f'{cell:36}' for cell in cells)}".rstrip()


def _cell(score: dict[str, float]) -> str:
    shown = f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"
    return f"{shown} p {score['p']:.2g}" if "p" in score else shown


def _rows(title: str, counted: Counted) -> Iterator[dict[str, Any]]:
    """The `COLUMNS` of every image, empty where there are none."""
    scores = map_scores.of_each(counted.counts).values()
    for path, resized, *values in zip(counted.paths, counted.resized, *scores, strict=True):
        known = ("" if np.isnan(value) else float(value) for value in values)
        yield dict(zip(COLUMNS, (title, path.stem, int(resized), *known), strict=True))
