"""CAMELYON16: 48,870 patches of lymph nodes, normal or metastatic, with every tumor outlined.

Ehteshami Bejnordi et al., JAMA 2017; patches by Rony et al., Machine Learning for Biomedical
Imaging 2023, see `slides.published_patches`. They are cut from the public slides by
`scripts/prepare_camelyon16.py`.
"""

import csv
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from wsol_jax import choices
from wsol_jax.data import splits
from wsol_jax.slides import published_patches, shards

CLASSES = published_patches.CLASSES
DIVISIONS = published_patches.DIVISIONS
DISJOINT = published_patches.DISJOINT
SPLITS = ("train", "valcl", "valpx", "test")
VALIDATED_BY_MASK = 12  # patches of the division by slide: six of each class, as the paper has it
MANIFEST = "manifest.csv"

Folder = str | pathlib.Path


def examples(
    split: str,
    *,
    division: str = DISJOINT,
    folder: Folder = "data/camelyon16_p512",
    test_patches: int | None = None,
) -> tuple[splits.Example, ...]:
    """The examples of a split, in the published order; those of train as `mixed`.

    Which patches of the division by slide are validated by mask (`valpx`) is not published: ours
    are `VALIDATED_BY_MASK` of its `valcl`, see `drawn`.

    Args:
      division: of the published patches into splits, see `published_patches.read`.
      folder: what `scripts/prepare_camelyon16.py` has made of the slides.
      test_patches: so many of the test split, see `drawn`; all of them unless given.

    Raises:
      ValueError: the test split has not so many patches of a class.
      FileNotFoundError: the folder lacks patches of the split; with how many, and what mends it.
    """
    choices.require("division", division, DIVISIONS)
    if split in published_patches.SPLITS[division]:
        listed = published_patches.read(split, division=division)
        listed = mixed(listed) if split == "train" else listed
    else:
        listed = drawn(published_patches.read("valcl", division=division), VALIDATED_BY_MASK)
    if split == "test" and test_patches is not None:
        listed = drawn(listed, test_patches)
    rows = _manifest(pathlib.Path(folder))
    missing = [patch.slide for patch in listed if (patch.slide, patch.x, patch.y) not in rows]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(listed)} patches of {split!r} are not in {folder}, those "
            f"of the slides {sorted(set(missing))[:5]} among them; cut them, too: {_remedy(folder)}"
        )
    found = []
    for patch in listed:
        row = rows[patch.slide, patch.x, patch.y]
        read = functools.partial(shards.read, pathlib.Path(folder, "shards", row["shard"]), row)
        found.append(splits.Example(patch.name, patch.label, read))
    return tuple(found)


def mixed(listed: Sequence[published_patches.Patch]) -> tuple[published_patches.Patch, ...]:
    """A list in a random order, always the same.

    The published one has all normal slides first, then those with tumor: the windows in which a
    streamed split is shuffled (`splits.WINDOW`) would be of one class.
    """
    return tuple(listed[i] for i in np.random.default_rng(0).permutation(len(listed)))


def drawn(
    listed: Sequence[published_patches.Patch], count: int
) -> tuple[published_patches.Patch, ...]:
    """So many patches of a list, half of each class, in its order; always the same ones.

    PixelCAM followed its training by 500 test patches, whose list is not at hand: these are others.

    Raises:
      ValueError: `count` is not even, or there are not so many of a class.
    """
    labels = np.array([patch.label for patch in listed])
    least = min(np.bincount(labels, minlength=len(CLASSES)))
    if count % 2 or not 2 <= count <= 2 * least:
        raise ValueError(
            f"{count} patches cannot be half normal and half metastatic; expected an even number "
            f"from 2 to {2 * least}"
        )
    random = np.random.default_rng(0)
    halves = [
        random.choice(np.flatnonzero(labels == label), count // 2, replace=False)
        for label in range(len(CLASSES))
    ]
    return tuple(listed[i] for i in np.sort(np.concatenate(halves)))


def _manifest(folder: pathlib.Path) -> dict[tuple[str, int, int], dict[str, str]]:
    """The rows of the manifest by slide, x and y."""
    file = folder / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"the folder {folder} has no {MANIFEST}; {_remedy(folder)}")
    with file.open(newline="") as stream:
        rows = csv.DictReader(stream)
        return {(row["slide"], int(row["x"]), int(row["y"])): row for row in rows}


def _remedy(folder: Folder) -> str:
    return (
        "python scripts/prepare_camelyon16.py --slides SLIDES --annotations ANNOTATIONS --output "
        f"{folder}"
    )
