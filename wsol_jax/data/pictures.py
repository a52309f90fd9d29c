"""Images and masks read, checked and brought to size, in the same way for every input source.

Images as torchvision's Resize on a PIL image (bilinear, antialiased, aspect not kept), masks as
OpenCV's INTER_NEAREST: what the released code of PixelCAM trains on and scores with.
"""

import contextlib
import io
import pathlib
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from wsol_jax.data import splits

File = pathlib.Path | io.BytesIO


def read(image: File, mask: File) -> splits.Picture:
    """An RGB image and its mask of instance numbers, at their own size."""
    return np.asarray(_decoded(image).convert("RGB")), _read_mask(mask)


def size(file: pathlib.Path) -> tuple[int, int]:
    """Width and height of a picture, from its header alone."""
    with _readable(file), Image.open(file) as picture:
        return picture.size


def resize(
    picture: splits.Picture, size: int
) -> tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s"]]:
    """The image at `size` x `size` and the mask of its objects: 1 where the number is not 0."""
    image, mask = picture
    square = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
    rows, columns = (_nearest(length, size) for length in mask.shape)
    return np.asarray(square), (mask[np.ix_(rows, columns)] > 0).astype(np.uint8)


def _nearest(source: int, target: int) -> Int[np.ndarray, "t"]:
    """The pixels that OpenCV's INTER_NEAREST picks: floor(i (1 / (target / source))) in float64."""
    return np.minimum(np.floor(np.arange(target) * (1 / (target / source))), source - 1).astype(int)


def _read_mask(mask: File) -> UInt8[np.ndarray, "H W"]:
    opened = _decoded(mask)
    if opened.mode not in ("1", "L", "P"):
        raise ValueError(
            f"mask {mask} has colour mode {opened.mode}; expected one 8-bit channel that holds the "
            "number of the object at every pixel, 0 for none"
        )
    return np.asarray(opened).astype(np.uint8)


def _decoded(file: File) -> Image.Image:
    with _readable(file), Image.open(file) as picture:
        picture.load()
    return picture


@contextlib.contextmanager
def _readable(file: File) -> Iterator[None]:
    """One error that names the file; what Pillow raises depends on where the file is cut."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(
            f"cannot decode {file}: {error}; expected a whole BMP or PNG file, fetch it again"
        ) from error
