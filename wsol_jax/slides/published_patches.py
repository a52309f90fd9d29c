"""The 48,870 published CAMELYON16 patches: 512 x 512 level-0 pixels of 398 slides, two divisions.

Rony et al., Machine Learning for Biomedical Imaging 2023, cut and divided them by slide; the code
released with PixelCAM divides the same patches anew. Their coordinates are enough to cut them
from the public slides. `camelyon16_patches.txt.gz` holds the facts of every patch, a line each:
  slide, region, row, patch: its numbers in the published name; normal patches have the last alone
  x, y: its left and top in level-0 pixels
  tissue, tumor: how many of its pixels are that; normal patches have no tumor
  split: of the division by slide; fold: that holds it out, of the five by patch; pixels: 1 if it is
  one of the ten of its fold that are validated by mask
"""

import functools
import gzip
import pathlib
from typing import NamedTuple

from wsol_jax import choices

CLASSES = ("normal", "metastatic")
SIDE = 512  # level-0 pixels
DISJOINT = "slide_disjoint"
DIVISIONS = (DISJOINT, *(f"patch_fold{fold}" for fold in range(5)))
SPLITS = dict.fromkeys(DIVISIONS, ("train", "valcl", "valpx", "test"))
SPLITS[DISJOINT] = ("train", "valcl", "test")
LIST = pathlib.Path(__file__).with_name("camelyon16_patches.txt.gz")
ROOT = "camelyon16/w-512xh-512"
FOLDERS = {
    "train": "split_0/fold_0/train",
    "valcl": "split_0/fold_0/valid",
    "test": "split_1/fold_0/test",
}


class Patch(NamedTuple):
    """A published patch.

    Attributes:
      slide: such as "tumor_001", a file of CAMELYON16 without its suffix.
      x, y: left and top in level-0 pixels of the slide.
      label: position in `CLASSES`.
      tissue, tumor: share of its pixels, as published; `tumor` is 0 for a normal patch.
      name: path of its published file.
    """

    slide: str
    x: int
    y: int
    label: int
    tissue: float
    tumor: float
    name: str


def read(split: str, *, division: str = DISJOINT) -> tuple[Patch, ...]:
    """The patches of a split, ordered by slide and number.

    Args:
      split: train, valcl (validated by class), valpx (ten patches of valcl, validated by mask; not
        of the division by slide) or test, which is the same in all divisions.
      division: "slide_disjoint", of which both papers quote the counts, or "patch_fold0" to
        "patch_fold4", released with PixelCAM. In the latter the slides of valcl are in train too,
        but for two of patch_fold1, so that its accuracy is optimistic.
    """
    choices.require("division", division, DIVISIONS)
    choices.require("split", split, SPLITS[division])
    return tuple(patch for patch, places in _all() if (division, split) in places)


@functools.cache
def _all() -> tuple[tuple[Patch, frozenset[tuple[str, str]]], ...]:
    """Every patch with the splits, as (division, split), that it is in."""
    lines = gzip.decompress(LIST.read_bytes()).decode().splitlines()
    return tuple(_parse(line.split("\t")) for line in lines)


def _parse(fields: list[str]) -> tuple[Patch, frozenset[tuple[str, str]]]:
    slide, region, row, number, x, y, tissue, tumor, split, fold, pixels = fields
    shares = [int(count or 0) / SIDE**2 for count in (tissue, tumor)]
    numbers = f"reg_{region}_row_{row}_patch_{number}" if tumor else f"patch_{number}"
    name = _name(slide, split, f"{numbers}_x_{x}_y_{y}", shares if tumor else shares[:1])
    patch = Patch(slide, int(x), int(y), int(bool(tumor)), *shares, name)
    places = {(DISJOINT, split)}
    for division in DIVISIONS[1:]:
        if split == "test":
            places.add((division, "test"))
        elif division == f"patch_fold{fold}":
            places |= {(division, "valcl"), (division, "valpx" if pixels else "valcl")}
        else:
            places.add((division, "train"))
    return patch, frozenset(places)


def _name(slide: str, split: str, numbers: str, shares: list[float]) -> str:
    """The path as published, which repeats everything that is known of the patch."""
    kind = slide.partition("_")[0]
    source = ("testing", "images") if kind == "test" else ("training", kind)
    parts = "_".join(f"{k}_{v}" for k, v in zip(("tissue", "metastatic"), shares, strict=False))
    file = f"Patch_file_{'-'.join(source)}-{slide}.tif_{numbers}_{parts}_w_{SIDE}_h_{SIDE}.png"
    if len(shares) == 2:
        return "/".join((ROOT, "metastatic-patches", *source, slide, file))
    return "/".join((ROOT, "normal-patches", FOLDERS[split], file))
