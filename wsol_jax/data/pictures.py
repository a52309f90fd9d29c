"""Images and masks read, checked and brought to size, in the same way for every input source.

Images as torchvision's Resize on a PIL image (bilinear, antialiased), masks as OpenCV's
INTER_NEAREST: what the released code of PixelCAM, with squares, and that of the max-min
uncertainty paper, with the aspect kept, train on and score with.
"""

import contextlib
import io
import pathlib
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import ExifTags, Image, ImageOps

from wsol_jax import pixel_labels
from wsol_jax.data import splits

File = pathlib.Path | io.BytesIO
Shape = tuple[int, int]  # height and width

DEEP = re.compile(r"(RGB|LA)\w*;16")  # stored pixels of which Pillow reads the upper eight bits
LOSSY = ("JPEG", "MPO", "JPEG2000")
ORIENTATION = ExifTags.Base.Orientation

Image.MAX_IMAGE_PIXELS = None  # images of tissue are large, and the user's own


class Sizing(NamedTuple):
    """The size that pictures are brought to.

    Attributes:
      side: of the square, in pixels; with `keep_aspect` the short side of the image.
      keep_aspect: the long side follows the short one.
      original_mask: masks keep their own size, for scores at the size of the truth.
    """

    side: int
    keep_aspect: bool = False
    original_mask: bool = False


def read(image: File, mask: File | None) -> splits.Picture:
    """An RGB image and its mask of instance numbers, if there is one, at their own size."""
    found = None if mask is None else read_mask(mask)
    return np.asarray(read_image(image)), found


def read_image(image: File) -> Image.Image:
    """A picture in RGB, white where it is transparent, as a slide is where nothing was scanned.

    Raises:
      ValueError: it cannot be decoded, or has channels of 16 or 32 bits, of whose range only its
        writer knows which part is white.
    """
    opened, stored = _decoded(image)
    if opened.mode.startswith(("I", "F")) or DEEP.search(stored):
        raise ValueError(
            f"image {image} has colour mode {opened.mode}, numbers of 16 or 32 bits; expected 8 "
            "bits a channel: scale it to 0 ... 255 and save it again"
        )
    return over_white(opened) if opened.has_transparency_data else opened.convert("RGB")


def read_mask(mask: File) -> UInt8[np.ndarray, "H W"]:
    """A mask of instance numbers, 0 where there is none.

    Raises:
      ValueError: it cannot be decoded, is compressed with loss, holds colours, or a palette whose
        number 0 is no black while an object is: software that reduces a drawn mask to a palette
        numbers it so.
    """
    opened, _ = _decoded(mask)
    if opened.format in LOSSY or "jpeg" in str(opened.info.get("compression")):
        raise ValueError(
            f"mask {mask} is compressed as a {opened.format} with loss, whose noise would be taken "
            "for objects; expected a PNG, TIFF or BMP file without"
        )
    if opened.mode not in ("1", "L", "P"):
        raise ValueError(
            f"mask {mask} has colour mode {opened.mode}; expected one 8-bit channel that holds the "
            "number of the object at every pixel, 0 for none"
        )
    numbers = np.asarray(opened).astype(np.uint8)
    if opened.mode == "P":
        palette = np.asarray(opened.getpalette("RGB")).reshape(-1, 3)
        others = palette[[n for n in np.unique(numbers) if 0 < n < len(palette)]]
        if np.any(palette[0] != 0) and np.any(np.all(others == 0, axis=1)):
            raise ValueError(
                f"mask {mask} has a palette in which number 0, for no object, is a colour, and an "
                "object black; expected the reverse: save it as 8-bit grey, 0 for none"
            )
    return numbers


def over_white(picture: Image.Image) -> Image.Image:
    """A picture in RGB, white showing through where it is transparent."""
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def size(file: File) -> tuple[int, int]:
    """Width and height of a picture as it is to be seen, from its header alone."""
    with readable(file), Image.open(file) as picture:
        sideways = picture.format != "TIFF" and picture.getexif().get(ORIENTATION, 1) > 4
        return picture.size[::-1] if sideways else picture.size


def resize(
    picture: splits.Picture, sizing: Sizing
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "_ _"]]:
    """The image brought to size, and the mask of its objects: 1 where the number is not 0.

    All of the mask is `pixel_labels.UNANNOTATED` where the picture has none.
    """
    image, mask = picture
    own = image.shape[:2] if mask is None else mask.shape
    (height, width), target = shapes(image.shape[:2], own, sizing)
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    if mask is None:
        return np.asarray(resized), np.full(target, pixel_labels.UNANNOTATED, np.uint8)
    rows, columns = (_nearest(*lengths) for lengths in zip(mask.shape, target, strict=True))
    return np.asarray(resized), (mask[np.ix_(rows, columns)] > 0).astype(np.uint8)


def shapes(image: Shape, mask: Shape, sizing: Sizing) -> tuple[Shape, Shape]:
    """The shapes that `resize` gives to an image and a mask of these shapes.

    Of side s and a short and a long side a and b: s and floor(s b / a), as torchvision's Resize(s).
    """
    target = (sizing.side, sizing.side)
    if sizing.keep_aspect:
        height, width = (int(sizing.side * length / min(image)) for length in image)
        target = (height, width)
    return target, mask if sizing.original_mask else target


@contextlib.contextmanager
def readable(file: File, expected: str = "a whole image file, fetch it again") -> Iterator[None]:
    """One error that names the file; what Pillow raises depends on where the file is cut."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"cannot decode {file}: {error}; expected {expected}") from error


def _nearest(source: int, target: int) -> Int[np.ndarray, "t"]:
    """The pixels that OpenCV's INTER_NEAREST picks: floor(i (1 / (target / source))) in float64."""
    return np.minimum(np.floor(np.arange(target) * (1 / (target / source))), source - 1).astype(int)


def _decoded(file: File) -> tuple[Image.Image, str]:
    """A picture as it is to be seen, turned as its camera says, and how its pixels are stored."""
    # Of a named file Pillow maps pixels into memory, and of a turned TIFF in the wrong shape.
    named = isinstance(file, pathlib.Path)
    with readable(file), file.open("rb") if named else file as stream:
        picture = Image.open(stream)
        stored = str([arguments for *_, arguments in picture.tile])
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
    return picture, stored
