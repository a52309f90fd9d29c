"""Outlined regions of a slide and their mask in any window, from ASAP's XML or NCRF's JSON.

CAMELYON16 (Ehteshami Bejnordi et al., JAMA 2017) outlines tumors in the groups `_0`, `_1` and
`Tumor`, and normal tissue inside of them in `_2` and `Exclusion`; CAMELYON17 calls them
`metastases` and `normal`.
"""

import json
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from wsol_jax import choices
from wsol_jax.slides import rasters

GROUPS = {  # whether they are tumor; else they are cut out of it
    **dict.fromkeys(("Tumor", "_0", "_1", "metastases"), True),
    **dict.fromkeys(("Exclusion", "_2", "normal"), False),
}
FLAT = ("Dot", "PointSet", "Measurement")  # ASAP's types that outline no area
RULES = ("published", "exact")
EXPECTED = "an ASAP file (.xml), or a .json of {positive, negative: [{name, vertices}]}"

Vertices = Float64[np.ndarray, "n 2"]


class Region(NamedTuple):
    """One outlined region.

    Attributes:
      name: as in the file. group: ASAP's, or the key of the JSON file.
      tumor: False for an exclusion, normal tissue inside of a tumor.
      vertices: x and y in level-0 pixels, exactly as in the file; the last joins the first.
    """

    name: str
    group: str
    tumor: bool
    vertices: Vertices


Annotation = tuple[Region, ...]  # in the order they are painted: a later one covers an earlier one


def read(file: str | pathlib.Path) -> Annotation:
    """The regions of a slide, in the order they are painted.

    Whatever outlines no area (dots, fewer than three vertices) is left out.

    Args:
      file: ASAP's XML, with groups among `GROUPS`, or NCRF's JSON.

    Raises:
      FileNotFoundError, ValueError: with the file, what was expected, and what mends it.
    """
    file = pathlib.Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"the annotation {file} does not exist; name {EXPECTED}")
    parse = {".xml": _read_asap, ".json": _read_json}.get(file.suffix.lower())
    if parse is None:
        raise ValueError(f"the annotation {file} has an unknown suffix; expected {EXPECTED}")
    try:
        found = tuple(parse(file))
    except (ElementTree.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"cannot read the annotation {file}: {reason}; expected {EXPECTED}"
        ) from None
    return painting_order(region for region in found if len(region.vertices) > 2)


def painting_order(regions: Iterable[Region]) -> Annotation:
    """Tumors, exclusions, tumors that lie in these, and so on; else as they come.

    A region lies in a larger one of the other kind where most of its vertices do. Where the two
    overlap otherwise the exclusion is painted last, as in the masks that ASAP makes.
    """
    regions = tuple(regions)
    by_area = sorted(range(len(regions)), key=lambda i: -_area(regions[i].vertices))
    depth: dict[int, int] = {}
    for place, i in enumerate(by_area):
        larger = (j for j in by_area[:place] if regions[j].tumor != regions[i].tumor)
        around = [depth[j] for j in larger if lies_in(regions[i], regions[j])]
        depth[i] = max(around, default=-1) + 1
    order = sorted(range(len(regions)), key=lambda i: (depth[i], not regions[i].tumor))
    return tuple(regions[i] for i in order)


def lies_in(inner: Region, outer: Region) -> bool:
    """Whether most vertices of a region lie in another one."""
    apart = inner.vertices.min(0) > outer.vertices.max(0)
    apart |= inner.vertices.max(0) < outer.vertices.min(0)
    return not apart.any() and bool(np.mean(_contains(outer.vertices, inner.vertices)) > 0.5)


def window(
    annotation: Sequence[Region],
    x: int,
    y: int,
    width: int,
    height: int,
    *,
    downsample: float = 1.0,
    rule: str = "published",
) -> UInt8[np.ndarray, "height width"]:
    """The mask of a window of the slide: 1 tumor, 0 everything else.

    Args:
      x, y: left and top of the window in level-0 pixels.
      width, height: of the mask, in its own pixels.
      downsample: level-0 pixels per pixel of the mask, in both directions.
      rule: "published", as the masks of the published patches were made: the union of the tumors as
        Pillow drew them in 2019, see `rasters.drawing`, with no exclusion. "exact": the pixels
        whose centre is in a tumor and not in an exclusion; at a coarse scale it misses what is
        smaller than a pixel.
    """
    choices.require("rule", rule, RULES)
    frame = rasters.Window(x, y, width, height, downsample).checked()
    mask = np.zeros((height, width), np.uint8)
    for region in annotation:
        if rasters.near(region.vertices, frame):
            if rule == "exact":
                mask[rasters.interior(region.vertices, frame)] = region.tumor
            elif region.tumor:
                mask[rasters.drawing(region.vertices, frame)] = 1
    return mask


def _read_asap(file: pathlib.Path) -> Iterator[Region]:
    root = ElementTree.parse(file).getroot()
    if root.tag != "ASAP_Annotations":  # of ImageScope, say, which would pass for a normal slide
        raise ValueError(f"its first element is {root.tag!r}, not 'ASAP_Annotations'")
    for element in root.iterfind("./Annotations/Annotation"):
        if element.attrib["Type"] in FLAT:
            continue
        name, group = element.attrib["Name"], element.attrib["PartOfGroup"]
        if group not in GROUPS:
            raise ValueError(
                f"{name!r} is in the group {group!r}, which may be a tumor or not; give it one "
                f"of the groups {list(GROUPS)}"
            )
        points = sorted(element.iterfind("./Coordinates/Coordinate"), key=_place)
        vertices = [[_coordinate(point.attrib[axis]) for axis in "XY"] for point in points]
        yield Region(name, group, GROUPS[group], _array(vertices))


def _read_json(file: pathlib.Path) -> Iterator[Region]:
    content = json.loads(file.read_text())
    for group in ("positive", "negative"):
        for polygon in content[group]:
            vertices = _array(polygon["vertices"])
            yield Region(polygon["name"], group, group == "positive", vertices)


def _place(point: ElementTree.Element) -> float:
    return _coordinate(point.attrib["Order"])


def _coordinate(text: str) -> float:
    return float(text.replace(",", "."))  # ASAP writes the decimal sign of the machine's language


def _array(vertices: list) -> Vertices:
    return np.array(vertices, np.float64).reshape(-1, 2)


def _area(vertices: Vertices) -> float:
    x, y = (vertices - vertices[0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def _contains(polygon: Vertices, points: Float64[np.ndarray, "m 2"]) -> Bool[np.ndarray, "m"]:
    """Whether points lie in a polygon: an odd number of its edges crosses the ray to their left."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            between = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
            inside ^= between & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x)
    return inside
