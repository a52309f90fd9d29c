"""GlaS: 165 images of colon glands, benign or malignant, with every gland outlined.

Sirinukunwattana et al., Medical Image Analysis 2017. The folds are those released with PixelCAM:
train, valcl (validated by class), valpx (six images of valcl, validated by mask) and test, the
official 80. `glas_splits` lists them, an image per line, in the published order.
"""

import csv
import functools
import pathlib
import shutil
import urllib.request
import zipfile

from wsol_jax import choices
from wsol_jax.data import pictures, splits

CLASSES = ("benign", "malignant")
SPLITS = ("train", "valcl", "valpx", "test")
FOLDS = (0, 1, 2, 3, 4)
ARCHIVE = (
    "https://warwick.ac.uk/fac/sci/dcs/research/tia/glascontest/download/"
    "warwick_qu_dataset_released_2016_07_08.zip"
)
UNPACKED = "Warwick QU Dataset (Released 2016_07_08)"

Folder = str | pathlib.Path


def examples(
    split: str, *, fold: int = 0, folder: Folder = "data/glas"
) -> tuple[splits.Example, ...]:
    """The examples of a split; every file is checked now, but for its pixels.

    Args:
      folder: the unpacked official archive (`.bmp`), or lossless `.png` files of the same stems
        beside Grade.csv; directly inside, or one level down in the folder of the archive.

    Raises:
      FileNotFoundError, ValueError: with the file, what was expected, and what mends it.
    """
    listed = published(split, fold=fold)
    root = _root(pathlib.Path(folder))
    grades = _grades(root / "Grade.csv")
    found = []
    for name, grade in listed:
        files = _file(root, name), _file(root, f"{name}_anno")
        _require_equal_size(*files)
        if grades.get(name) != grade:
            raise ValueError(
                f"{root / 'Grade.csv'} has {name} as {grades.get(name)}, the published list as "
                f"{grade}; {_remedy(root)}"
            )
        read = functools.partial(pictures.read, *files)
        found.append(splits.Example(name, CLASSES.index(grade), read))
    return tuple(found)


def published(split: str, *, fold: int = 0) -> tuple[tuple[str, str], ...]:
    """Name and grade of every image of a split, in the published order."""
    choices.require("split", split, SPLITS)
    choices.require("fold", fold, FOLDS)
    file = pathlib.Path(__file__).with_name("glas_splits") / (
        "test.txt" if split == "test" else f"fold{fold}.txt"
    )
    rows = [line.split() for line in file.read_text().splitlines()]
    return tuple((name, grade) for where, name, grade in rows if where == split)


def download(folder: Folder) -> pathlib.Path:
    """Fetches the official archive into `folder`, unless it lies there, and unpacks it."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / pathlib.PurePosixPath(ARCHIVE).name
    try:
        if not archive.exists():
            partial = archive.with_suffix(".part")
            with (
                urllib.request.urlopen(ARCHIVE, timeout=30) as response,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(response, file)
            partial.rename(archive)
        with zipfile.ZipFile(archive) as members:
            members.extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        if isinstance(error, zipfile.BadZipFile):  # a web page in its place, say
            archive.unlink()
        raise ConnectionError(
            f"cannot fetch GlaS: {error}. Download {ARCHIVE} by other means (the set is free for "
            f"research), unpack it, and name the folder where it lies"
        ) from error
    return folder


def _root(folder: pathlib.Path) -> pathlib.Path:
    """The folder itself or the archive's folder in it, whichever holds Grade.csv."""
    for root in (folder, folder / UNPACKED, folder / UNPACKED.replace(" ", "_")):
        if (root / "Grade.csv").is_file():
            return root
    state = "has no Grade.csv" if folder.is_dir() else "does not exist"
    raise FileNotFoundError(f"the GlaS folder {folder} {state}; {_remedy(folder)}")


def _grades(file: pathlib.Path) -> dict[str, str]:
    """Grade by name. The official file ends its lines with a bare \\r and pads its fields."""
    rows = csv.reader(file.read_text(encoding="utf-8-sig").splitlines())
    return {row[0].strip(): row[2].strip() for row in rows if len(row) > 2}


def _file(root: pathlib.Path, stem: str) -> pathlib.Path:
    for file in (root / f"{stem}.bmp", root / f"{stem}.png"):
        if file.is_file():
            return file
    raise FileNotFoundError(f"{root / stem}.bmp (or .png) is missing; {_remedy(root)}")


def _require_equal_size(image: pathlib.Path, mask: pathlib.Path) -> None:
    sizes = [pictures.size(file) for file in (image, mask)]
    if sizes[0] != sizes[1]:
        (w, h), (mask_w, mask_h) = sizes
        raise ValueError(
            f"{mask} is {mask_w} x {mask_h}, its image {image.name} {w} x {h}; expected equal "
            f"sizes; {_remedy(mask.parent)}"
        )


def _remedy(folder: pathlib.Path) -> str:
    return (
        "name the folder of the unpacked archive, or fetch it (free for research): "
        f"python -c \"from wsol_jax.data import glas; glas.download('{folder}')\", from {ARCHIVE}"
    )
