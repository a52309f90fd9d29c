"""Slides drawn for the tests: pyramidal TIFF files of tissue, tumor, blank glass and pen marks.

The picture is drawn on a canvas; a slide may show every canvas pixel as a square of several.
"""

import functools
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tifffile
from PIL import Image, ImageDraw

from wsol_jax.slides import annotations

GLASS, TISSUE, TUMOR, PEN = (243, 243, 243), (214, 138, 180), (140, 70, 150), (30, 60, 190)
SIZE = (1100, 900)  # width and height of the canvas
PEN_STROKE = ((40, 820), (300, 780), (420, 850))
TIMES = 4  # between levels


def outlines() -> annotations.Annotation:
    """A tumor with a hole, an island of tumor in the hole, and another tumor that overlaps it."""
    outer = [(310.5, 200), (620, 180.25), (700, 400), (560, 640), (330, 600), (250, 380)]
    hole = [(400, 300), (560, 310), (540, 480.75), (420, 470)]
    island = [(450, 360), (500, 360), (500, 410), (450, 410)]
    other = [(640, 350), (820, 380), (780, 560), (620, 520)]
    return annotations.painting_order(
        annotations.Region(f"Annotation {i}", group, tumor, np.array(vertices, float))
        for i, (group, tumor, vertices) in enumerate(
            [("_2", False, hole), ("_0", True, outer), ("_0", True, island), ("_1", True, other)]
        )
    )


def picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    """Glass with a piece of tissue and, in the colours of `outlines`, its tumors; a pen stroke."""
    canvas = Image.new("RGB", size, GLASS)
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((150, 80, 950, 760), fill=TISSUE)
    for region in outlines():
        draw.polygon(region.vertices.ravel().tolist(), fill=TUMOR if region.tumor else TISSUE)
    draw.line(PEN_STROKE, fill=PEN, width=12)
    pixels = np.array(canvas)
    stained = np.any(pixels != GLASS, axis=-1, keepdims=True)
    noise = np.random.default_rng(0).normal(0, 8, pixels.shape)
    return np.where(stained, np.clip(pixels + noise, 1, 255), pixels).astype(np.uint8)


def write(
    file: pathlib.Path,
    canvas: np.ndarray,
    *,
    mpp: float | None = 0.25,
    levels: int = 3,
    magnify: int = 1,
    tile: int = 256,
) -> pathlib.Path:
    """A pyramidal tiled TIFF of the canvas (h w 3), its levels `TIMES` apart.

    Args:
      mpp: written as resolution tags; None leaves them out.
      magnify: level-0 pixels along a canvas pixel, a divisor of `tile`.
    """
    resolution = {} if mpp is None else {"resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(file, bigtiff=True) as writer:
        for level in range(levels):
            if mpp is not None:
                density = 10_000 / mpp / TIMES**level
                resolution["resolution"] = (density, density)
            height, width = (length * magnify for length in canvas.shape[:2])
            writer.write(
                _tiles(canvas, magnify, tile),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(level > 0),
                metadata=None,
                **resolution,
            )
            canvas, magnify = _coarser(canvas, magnify)
    return file


def write_asap(file: pathlib.Path, regions: Iterable[annotations.Region]) -> pathlib.Path:
    """Regions in ASAP's XML."""
    lines = ['<?xml version="1.0"?>', "<ASAP_Annotations><Annotations>"]
    for region in regions:
        lines.append(
            f'<Annotation Name="{region.name}" Type="Polygon" PartOfGroup="{region.group}">'
            "<Coordinates>"
        )
        lines += [
            f'<Coordinate Order="{i}" X="{x}" Y="{y}" />'
            for i, (x, y) in enumerate(region.vertices)
        ]
        lines.append("</Coordinates></Annotation>")
    lines.append("</Annotations><AnnotationGroups>")
    lines.append('<Group Name="_0" PartOfGroup="None" /></AnnotationGroups></ASAP_Annotations>')
    file.write_text("\n".join(lines))
    return file


def write_json(file: pathlib.Path, regions: Sequence[annotations.Region]) -> pathlib.Path:
    """Regions in NCRF's JSON."""
    told = [
        [{"name": r.name, "vertices": r.vertices.tolist()} for r in regions if r.tumor == kind]
        for kind in (True, False)
    ]
    file.write_text(json.dumps(dict(zip(("positive", "negative"), told, strict=True))))
    return file


def _tiles(canvas: np.ndarray, magnify: int, tile: int) -> Iterator[bytes]:
    step = tile // magnify
    for row in range(0, canvas.shape[0], step):
        for column in range(0, canvas.shape[1], step):
            part = canvas[row : row + step, column : column + step]
            beyond = [(0, step - length) for length in part.shape[:2]]
            yield _encoded(np.pad(part, [*beyond, (0, 0)]).tobytes(), step, magnify)


@functools.lru_cache(maxsize=64)  # blank glass is compressed once
def _encoded(pixels: bytes, step: int, magnify: int) -> bytes:
    part = np.frombuffer(pixels, np.uint8).reshape(step, step, 3)
    return zlib.compress(part.repeat(magnify, axis=0).repeat(magnify, axis=1).tobytes(), 1)


def _coarser(canvas: np.ndarray, magnify: int) -> tuple[np.ndarray, int]:
    if magnify >= TIMES:
        return canvas, magnify // TIMES
    return np.asarray(Image.fromarray(canvas).reduce(TIMES)), magnify
