"""Whole-slide images read with OpenSlide. Places are level-0 pixels, scales microns per pixel.

OpenSlide (Goode et al., Journal of Pathology Informatics 2013) comes with the extra `slides`, and
is imported when the first slide is opened.
"""

import hashlib
import math
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from wsol_jax.slides import rasters

EXTRA = ". scripts/environment.sh slides, or pip install '.[slides]' in the project's folder"
# A resolution tag of 72, 96 or 300 dots per inch (353, 265, 85) tells of a screen or a printer.
PLAUSIBLE_MPP = (0.01, 50.0)
MICRONS = {"inch": 25400.0, "centimeter": 10000.0}  # per unit of a TIFF resolution tag
COARSER = 1.01  # a level up to 1 % coarser than asked for serves: levels of 4.0005 are common
PIXELS = 2**24  # of a level that are read at a time: a slide may have none but the finest
ENDS = 2**20  # bytes at both ends of a file that make up its fingerprint

File = str | pathlib.Path
Mpp = tuple[float, float]


class Slide(NamedTuple):
    """An open slide; it is closed when nothing refers to it any more.

    Attributes:
      file: where it was opened.
      size: width and height in level-0 pixels.
      mpp: microns per level-0 pixel, horizontally and vertically; None where nobody knows.
      bounds: left and top, in level-0 pixels, of the part that some viewers crop a slide to; (0, 0)
        where the format has none.
      downsamples: level-0 pixels per pixel of every stored level, 1 first.
      handle: OpenSlide's.
    """

    file: pathlib.Path
    size: tuple[int, int]
    mpp: Mpp | None
    bounds: tuple[int, int]
    downsamples: tuple[float, ...]
    handle: Any


def open_slide(file: File) -> Slide:
    """Opens a slide of any format that OpenSlide knows.

    Raises:
      FileNotFoundError, ValueError: with the file, the reason, and what mends it.
      ImportError: OpenSlide is not installed.
    """
    file = pathlib.Path(file)
    openslide = require_openslide()
    if not file.is_file():
        state = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"the slide {file} {state}; name the file of a slide")
    try:
        handle = openslide.OpenSlide(file)
    except openslide.OpenSlideUnsupportedFormatError:
        raise ValueError(f"cannot read the slide {file}: {_fault(file)}") from None
    except openslide.OpenSlideError as error:
        raise ValueError(f"cannot read the slide {file}: {error}; {_remedy(file)}") from None
    left, top = (int(handle.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
    mpp = _known_mpp(handle.properties)
    return Slide(file, handle.dimensions, mpp, (left, top), handle.level_downsamples, handle)


def require_plausible(mpp: float, file: File) -> None:
    """Raises ValueError where microns per pixel, given for a file, are none of a slide."""
    if not _plausible(mpp):
        raise ValueError(
            f"mpp {mpp} for {file}: expected microns per pixel between {PLAUSIBLE_MPP[0]} and "
            f"{PLAUSIBLE_MPP[1]}, about 0.25 for a scan at 40x and 0.5 at 20x"
        )


def require_mpp(slide: Slide) -> Mpp:
    """The slide's microns per level-0 pixel, or a ValueError that says how to give them."""
    if slide.mpp is None:
        raise ValueError(
            f"{slide.file} does not say how many microns a pixel is wide; give it as --mpp, about "
            "0.25 for a scan at 40x and 0.5 at 20x"
        )
    return slide.mpp


def region(
    slide: Slide, x: int, y: int, width: int, height: int, *, downsample: float = 1.0
) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels of a window; white beyond the borders and where nothing was scanned.

    Args:
      x, y: left and top of the window in level-0 pixels; may lie outside of the slide.
      width, height: of the picture that is returned, in its own pixels.
      downsample: level-0 pixels per pixel, horizontally and vertically; at 1 the pixels are those
        of level 0, at more they are means over the nearest finer level.

    Raises:
      ValueError: an empty window, or a part of the file that cannot be decoded.
    """
    rasters.Window(x, y, width, height, downsample).checked()
    level = max(i for i, d in enumerate(slide.downsamples) if i == 0 or d <= COARSER * downsample)
    ratio = downsample / slide.downsamples[level]
    rows = max(1, int(PIXELS / (width * ratio * ratio)))  # of the picture, read at a time
    pieces = [
        _rows(slide, x, y, level, ratio, width, first, min(first + rows, height))
        for first in range(0, height, rows)
    ]
    return np.concatenate(pieces)


def overview(slide: Slide, *, side: int = 1024) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """The whole slide, its longer side `side` pixels, and the downsample of that picture.

    A slide smaller than that keeps its size.
    """
    downsample = max(1.0, max(slide.size) / side)
    width, height = (max(1, round(length / downsample)) for length in slide.size)
    return region(slide, 0, 0, width, height, downsample=downsample), downsample


def fingerprint(file: File) -> str:
    """SHA-256, as hexadecimal digits, of a file's size, first and last MiB: cheap for any slide.

    It tells slides, and whole from truncated files, apart. It does not see a change inside, and
    covers the named file alone where a format (MIRAX, DICOM, VMS) spreads a slide over many.
    """
    file = pathlib.Path(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        digest = hashlib.sha256(str(size).encode() + b"\n" + stream.read(ENDS))
        stream.seek(max(ENDS, size - ENDS))
        digest.update(stream.read(ENDS))
    return digest.hexdigest()


def require_openslide() -> ModuleType:
    """OpenSlide's module, or an ImportError that names the extra that it comes with."""
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the library itself is missing
        raise ImportError(f"reading slides needs OpenSlide ({error}): {EXTRA}") from None
    return openslide


def _rows(slide, x, y, level, ratio, width, first, last):
    """Rows `first` to `last` of a region whose pixel is `ratio` pixels of a level wide and high."""
    top, bottom, right = first * ratio, last * ratio, width * ratio
    above = math.floor(top)
    place = y + round(above * slide.downsamples[level])
    picture = _read_level(slide, x, place, level, (math.ceil(right), math.ceil(bottom) - above))
    if ratio != 1:
        box = (0, top - above, right, bottom - above)
        picture = picture.resize((width, last - first), Image.Resampling.BOX, box=box)
    return np.asarray(picture)


def _read_level(slide: Slide, x: int, y: int, level: int, size: tuple[int, int]) -> Image.Image:
    """Pixels of a level, from a place at level 0, over white."""
    openslide = require_openslide()
    try:
        pixels = slide.handle.read_region((x, y), level, size)
    except openslide.OpenSlideError as error:
        raise ValueError(
            f"cannot read the slide {slide.file} at x {x}, y {y}, level {level}: {error}; "
            f"{_remedy(slide.file)}"
        ) from None
    # OpenSlide leaves what is outside transparent.
    return Image.alpha_composite(Image.new("RGBA", size, "white"), pixels).convert("RGB")


def _known_mpp(properties: Mapping[str, str]) -> Mpp | None:
    """From OpenSlide's property, else the resolution tags, which some formats leave to us."""
    stated = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    microns = MICRONS.get(properties.get("tiff.ResolutionUnit", "").lower(), 0.0)
    tags = [properties.get(f"tiff.{axis}Resolution") for axis in "XY"]
    for values, scale in ((stated, None), (tags, microns)):
        numbers = [_number(value) for value in values]
        if scale is not None:
            numbers = [scale / number if number else 0.0 for number in numbers]
        if all(_plausible(number) for number in numbers):
            return numbers[0], numbers[1]
    return None


def _plausible(mpp: float) -> bool:
    return PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _fault(file: pathlib.Path) -> str:
    """Why OpenSlide does not recognize a file, and what mends it, from the file's first bytes."""
    with file.open("rb") as stream:
        head = stream.read(4)
    if not head:
        return "it is empty; fetch it again"
    if head[:2] == b"PK":
        return "it is a ZIP archive; unpack it and name the slide inside"
    if head[:1] in (b"<", b"{"):
        return "it holds text, perhaps the web page of a failed download; fetch it again"
    if head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"it is a TIFF whose directory is cut off or that is not tiled; {_remedy(file)}"
    if file.suffix.lower() == ".mrxs" and not (file.with_suffix("") / "Slidedat.ini").is_file():
        return f"its pixels are in the folder {file.stem}, which is not whole; copy it beside it"
    return (
        "it is of no format that OpenSlide knows (SVS, NDPI, MRXS, SCN, BIF, DICOM, tiled TIFF "
        f"...); convert it: vips tiffsave {file.name} {file.stem}.tif --tile --pyramid"
    )


def _remedy(file: pathlib.Path) -> str:
    return (
        f"compare its {file.stat().st_size} bytes with the original's and fetch it again; if it "
        f"is whole, convert it: vips tiffsave {file.name} new.tif --tile --pyramid"
    )
