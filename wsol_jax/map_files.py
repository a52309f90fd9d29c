"""Heat maps in files, by whatever made them: found, paired with their masks, read and checked.

A map has the name of its mask but for the ending. What a number means is never guessed: floats lie
in [0, 1], whole numbers of 8 or 16 bits are divided by the largest of their type.
"""

import pathlib
from collections.abc import Collection

import numpy as np
from jaxtyping import Float32, Shaped
from PIL import Image

from wsol_jax.data import pictures

ARRAYS = (".npy",)
PICTURES = (".png", ".tif", ".tiff")
MASKS = (".bmp", *PICTURES)
TOLD = 5  # names in a message
EXPECTED = (
    "one channel, height by width, of floats in [0, 1] (in a TIFF file of 32 bits), or of 8 or 16 "
    "bits that stand for 0 to 1"
)


def find_masks(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The masks of a folder, by name."""
    found = _listed(folder, MASKS)
    if not found:
        raise FileNotFoundError(f"no masks in {folder}; expected files that end in {MASKS}")
    return found


def find_maps(folder: pathlib.Path, names: Collection[str]) -> dict[str, pathlib.Path]:
    """The maps of a folder, one for each of the `names` of the masks and in their order.

    They are its `.npy` files; where it has none, its pictures.

    Raises:
      FileNotFoundError: a mask has no map.
      ValueError: a map has no mask, or two have one name.
    """
    found = _listed(folder, ARRAYS) or _listed(folder, PICTURES)
    missing = [name for name in names if name not in found]
    strange = [name for name in found if name not in names]
    message = (
        f"{len(missing)} of {len(names)} masks have no map in {folder} {missing[:TOLD]}, "
        f"{len(strange)} of {len(found)} maps no mask {strange[:TOLD]}; expected one map for each "
        f"mask, named as it is but for the ending: {ARRAYS} or, where there are none, {PICTURES}"
    )
    if missing:
        raise FileNotFoundError(message)
    if strange:
        raise ValueError(message)
    return {name: found[name] for name in names}


def read(path: pathlib.Path) -> Float32[np.ndarray, "H W"]:
    """A map with values in [0, 1]; ValueError, which names the file, where it holds anything else.

    Floats are rounded to 32 bits, which the package's own maps have.
    """
    values = _loaded(path)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{path} has the shape {values.shape}; expected {EXPECTED}")
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind == "b" or (kind == "u" and width <= 2):
        return np.divide(values, 256**width - 1 if kind == "u" else 1, dtype=np.float32)
    if kind != "f":
        raise ValueError(f"{path} holds {values.dtype}; expected {EXPECTED}")
    outside = values[~((values >= 0) & (values <= 1))]  # NaN is neither
    if outside.size:
        raise ValueError(
            f"{outside.size} of the {values.size} values of {path} are not in [0, 1], as "
            f"{outside[0]}; scale all maps by one rule, and clip what rounding lifts above 1"
        )
    return values.astype(np.float32)


def _listed(folder, suffixes):
    """Paths by stem, in order."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; expected one with {suffixes} files")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    found = {path.stem: path for path in paths}
    twice = [f"{p.name} and {found[p.stem].name}" for p in paths if p != found[p.stem]]
    if twice:
        raise ValueError(f"{folder} has two files of one name, {twice[0]}; expected one of them")
    return found


def _loaded(path: pathlib.Path) -> Shaped[np.ndarray, "..."]:
    with pictures.readable(path, expected=EXPECTED):
        if path.suffix.lower() in ARRAYS:
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as picture:
            if picture.mode == "P" or getattr(picture, "n_frames", 1) > 1:
                raise ValueError("it has a palette, or several pages")
            return np.asarray(picture)
