"""Anyone's labelled images: a folder with a table, `labels.csv`, of a line an image.

Its columns are `file`, relative to the folder, and `label`, the number of the class from 0. More
may be there: `split`, on each line or on none, or in its place `group`, the patient's, say, whose
images come into one split; and `mask`, a picture of the same size that is not 0 on the object, for
the images that are to be scored by pixels. Others are not read.
"""

import collections
import csv
import functools
import hashlib
import logging
import pathlib

from wsol_jax import choices
from wsol_jax.data import pictures, splits

SPLITS = ("train", "valcl", "valpx", "test")
TABLE = "labels.csv"
COLUMNS = ("file", "label", "split", "mask", "group")
LOOK = 2**16  # bytes: stain-normalised copies under the old names differ everywhere
LOSSY = (".jpeg", ".jpg")
SHARES = {"train": 0.6, "valcl": 0.2, "test": 0.2}  # where the table names no splits

Folder = str | pathlib.Path


def examples(split: str, *, folder: Folder = "data/images") -> tuple[splits.Example, ...]:
    """The examples of a split, in the order of the table; every file is checked but for its pixels.

    A table without `split` is divided by the hash of each `group` or, where it has none, file,
    about as `SHARES` says, so that images that are added leave the others where they are. "valpx"
    are the images of the table with that split or, where there is none, those of valcl that have a
    mask; it may be empty.

    Args:
      split: one of `SPLITS`.
      folder: with `labels.csv`.

    Raises:
      FileNotFoundError, ValueError: with the line of the table, what was expected and found.
    """
    choices.require("split", split, SPLITS)
    rows = _rows(pathlib.Path(folder))
    found = [row for row in rows if row["split"] == split]
    if split == "valpx" and not found:
        return tuple(_example(row) for row in rows if row["split"] == "valcl" and row["mask"])
    if split != "valpx" and not found:
        counts = {name: sum(row["split"] == name for row in rows) for name in SPLITS}
        raise ValueError(
            f"no image of {pathlib.Path(folder, TABLE)} is of the split {split!r}, of {len(rows)}: "
            f"{counts}; expected some of {', '.join(SHARES)} each"
        )
    return tuple(_example(row) for row in found)


def _rows(folder):
    """The checked lines of the table, with paths for files and a split for each."""
    table = folder / TABLE
    if not table.is_file():
        raise FileNotFoundError(
            f"{table} does not exist; expected a table with the columns file and label, and "
            "split and mask if there are any; name its folder by --config.data.folder="
        )
    lines = _lines(table)
    blank = [line for line, row in lines if not row["split"]]
    if 0 < len(blank) < len(lines):
        raise ValueError(
            f"{blank[0]}: split is empty, and on {len(blank) - 1} more lines, while others have "
            f"one; expected one of {list(SPLITS)} on each line or on none"
        )
    rows = [_row(folder, line, row) for line, row in lines]
    if blank and not any(row["group"] for _, row in lines):
        logging.warning(
            "%s has neither splits nor groups: each image is put into a split by itself, so that "
            "images of one patient may be in several and scores too good; add the column group",
            table,
        )
    for (line, _), row in zip(lines, rows, strict=True):
        if row["label"] >= len(rows):
            raise ValueError(
                f"{line}: label is {row['label']}, of {len(rows)} images; expected the number of a "
                "class, from 0 on without a gap"
            )
    twice = [name for name, n in collections.Counter(row["name"] for row in rows).items() if n > 1]
    if twice:
        raise ValueError(f"{table} has {twice[:5]} more than once; expected a line an image")
    return rows


def _lines(table):
    """Where each line of the table is, in words, and its fields, empty ones and absent ones ""."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = [name.strip() for name in reader.fieldnames or ()]
            missing = {"file", "label"} - {*columns}
            if missing:
                raise ValueError(f"{table} has the columns {columns}; it lacks {sorted(missing)}")
            reader.fieldnames = columns
            return [
                (
                    f"{table}, line {reader.line_num}",
                    {k: (row.get(k) or "").strip() for k in COLUMNS},
                )
                for row in reader
            ]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{table} is not UTF-8 ({error}); save it as such, in Excel as 'CSV UTF-8'"
        ) from error


def _row(folder, line, row):
    file, label, split, mask, group = (row[column] for column in COLUMNS)
    if not file:
        raise ValueError(f"{line}: file is empty, expected the name of an image")
    if not label.isdecimal():
        raise ValueError(f"{line}: label is {label!r}, expected the number of a class, from 0")
    file = str(pathlib.PurePath(file))  # ./a.png is a.png
    split = split or _drawn(group or file)
    if split not in SPLITS:
        raise ValueError(f"{line}: unknown split {split!r}; have {list(SPLITS)}")
    paths = [folder / name for name in (file, mask) if name]
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{line}: {path} does not exist")
    if mask.lower().endswith(LOSSY):
        raise ValueError(
            f"{line}: the mask {mask} is a JPEG, whose noise would be taken for objects; expected "
            "a PNG, TIFF or BMP file"
        )
    sizes = [pictures.size(path) for path in paths]
    if len({*sizes}) > 1:
        raise ValueError(f"{line}: the image is {sizes[0]}, its mask {sizes[1]}; expected one size")
    if split == "valpx" and not mask:
        raise ValueError(f"{line}: an image of valpx, which is judged by its pixels, has no mask")
    mask = folder / mask if mask else None
    return {"file": folder / file, "label": int(label), "split": split, "mask": mask, "name": file}


def _drawn(name):
    """The split that the name of a group, or of a file, falls into."""
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    for split, part in SHARES.items():
        share -= part
        if share < 0:
            return split
    return split


def _example(row):
    read = functools.partial(pictures.read, row["file"], row["mask"])
    return splits.Example(row["name"], row["label"], read, _content(row["file"]))


def _content(file):
    """A digest of a file's size and of `LOOK` bytes around its middle."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, (size - LOOK) // 2))
        return hashlib.sha256(str(size).encode() + b"\n" + stream.read(LOOK)).hexdigest()[:16]
