"""The patches of a slide in one file: a ZIP archive that is there whole, or not at all.

Images and masks are PNG files inside, which any program opens; `slide.json`, the last of them,
says what they are. They are stored uncompressed, so that one is read without the others, and their
dates are fixed: equal patches give equal bytes.
"""

import io
import json
import os
import pathlib
import uuid
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from wsol_jax.slides import patches

SUFFIX, PARTIAL = ".zip", ".part"
CONTENTS = "slide.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that ZIP can tell

Record = dict[str, Any]


def write(file: pathlib.Path, slide: Record, found: Iterable[patches.Patch]) -> None:
    """Writes the patches as they come, under another name until all are there.

    Args:
      slide: what is said of it in `slide.json`, where `patches` is added: of every patch the
        `Patch` without its pixels, and the names of its `image` and `mask` in the archive.
    """
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}{PARTIAL}")
    records = []
    try:
        with partial.open("xb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for number, patch in enumerate(found):
                    records.append(_record(patch, number))
                    image, mask = Image.fromarray(patch.image), Image.fromarray(patch.mask > 0)
                    _add(archive, records[-1]["image"], _png(image))
                    _add(archive, records[-1]["mask"], _png(mask))
                contents = json.dumps({**slide, "patches": records}, indent=1)
                _add(archive, CONTENTS, contents.encode())
            stream.flush()
            os.fsync(stream.fileno())  # the name must not outlive the bytes when power fails
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def contents(file: pathlib.Path) -> Record:
    """What `slide.json` says of a slide and its patches.

    Raises:
      FileNotFoundError, ValueError: the file is not there, or is no shard.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read(CONTENTS))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"{file} is no whole shard of patches ({error}); remove it and cut its slide again"
        ) from None


def read(file: pathlib.Path, record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Image, uint8 (512 512 3), and mask, uint8 (512 512), 1 for tumor, of one of its `patches`."""
    with zipfile.ZipFile(file) as archive:
        image, mask = (_pixels(archive.read(record[name])) for name in ("image", "mask"))
    return image, mask.astype(np.uint8)


def _record(patch: patches.Patch, number: int) -> Record:
    name = f"{number:05d}_x_{patch.x}_y_{patch.y}"
    facts = {k: v for k, v in patch._asdict().items() if k not in ("image", "mask")}
    return {**facts, "image": f"{name}.png", "mask": f"{name}_mask.png"}


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, EPOCH), content)


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture)
