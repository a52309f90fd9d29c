"""A folder of whole slides -> their maps, by a trained run, as viewers open them.

OUTPUT/slides.csv         a line a slide: tiles, tissue and that of it in regions, or why it failed
OUTPUT/SLIDE/map.tif      the map in 8 bits, a pyramid with its scale; 0 off the tissue, and where
                          a tile has too little of it to be looked at
OUTPUT/SLIDE/roi.geojson  its regions at or above the threshold, in level-0 pixels
OUTPUT/SLIDE/roi_cropped.geojson  the same for viewers that crop the slide to its bounds (QuPath),
                          where it has such
OUTPUT/SLIDE/overlay.png  the map over the slide, small
OUTPUT/SLIDE/tiles.csv    every tile that was looked at, with the probabilities of the classes
OUTPUT/SLIDE/slide.json   how all of it was made

A slide's folder is whole or not there; killed, the same command goes on with the next one. Tiles
are read by `reader.region` at the scale at which the run was evaluated, whose images were resized
bilinearly from level 0 where these are means over the nearest finer level.
"""

import concurrent.futures
import itertools
import json
import logging
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from wsol_jax import experiment, files, logbook, predict, visualize
from wsol_jax.slides import exports, mosaic, prepare, reader

# Methods whose values do not depend on what else is in a tile.
COMPARABLE = ("pixelcam", "negev", "unet")
COLUMNS = ("slide", "tiles", "tissue_mm2", "roi_mm2", "seconds", "error")
OVERLAY = 2048  # pixels along the longer side, at most
CELLS, POOLED = 64, 8  # finer maps are averaged over blocks of so many values along, at most
COARSEST = 4  # pixels of a tile along a level-0 pixel, at most


class Request(NamedTuple):
    """What a map is made with; a slide that was mapped with the same is left as it is.

    Attributes:
      map: which one, at which checkpoint.
      weights: of the run, see `predict.Localizer`.
      threshold: of the regions.
      field: microns along a tile.
    """

    map: str
    weights: str
    threshold: float
    field: float


class Batched(NamedTuple):
    """What a run makes of batches of tiles.

    Attributes:
      localize: pictures (b h w 3) -> probabilities (b k) or None, maps (b c c).
      shape: of the pictures.
      cells: c.
    """

    localize: Callable[..., tuple]
    shape: tuple[int, int, int, int]
    cells: int


def run(
    config: Any,
    workdir: pathlib.Path,
    images: pathlib.Path,
    output: pathlib.Path,
    *,
    field: float,
    mpp: float | None = None,
    checkpoint: str = "",
) -> list[dict[str, Any]]:
    """Maps every slide of a folder; one that fails is reported, and the others are mapped.

    Args:
      images: folder of slides, looked through with all inside of it; files whose names end in
        `prepare.MASK` are left out.
      field: microns along an image of the data that the run was trained on.
      mpp: microns along a level-0 pixel of slides that do not say so.
      checkpoint: see `predict.localizer`.

    Returns:
      The lines of slides.csv.

    Raises:
      BlockingIOError: another command is at work there.
      FileExistsError: a folder there was made with something else, or of another slide of the
        same name; says what.
      FileNotFoundError, ImportError, ValueError: no slides, no run, no OpenSlide, a method whose
        maps cannot be joined; before any work.
      SystemExit: slides have failed; everything else is written.
    """
    _require(config, images, output, field, mpp)
    slides = {s.name: s.file for s in prepare.find(images) if not s.name.endswith(prepare.MASK)}
    if not slides:
        raise FileNotFoundError(
            f"the folder {images} holds masks alone, files named *_mask; expected slides"
        )
    found = predict.localizer(config, workdir, checkpoint)
    request = Request(found.origin, found.weights, found.threshold, field)
    output.mkdir(parents=True, exist_ok=True)
    with files.locked(output):
        known = {
            name: _finished(output / name, file, request, mpp) for name, file in slides.items()
        }
        batched = _batched(found.localize, config)
        for name, file in slides.items():
            if known[name] is None:
                known[name] = _attempt(file, output / name, request, mpp, batched)
                logging.info("%s: %s", name, _summary(known[name]))
            rows = [{"slide": slides[n].name, **facts} for n, facts in known.items() if facts]
            files.write_csv(output / "slides.csv", COLUMNS, rows)
    failed = sum("error" in row for row in rows)
    if failed:
        raise SystemExit(f"{failed} of {len(rows)} slides failed, see {output / 'slides.csv'}")
    logging.info("all of %d mapped: %s", len(rows), output / "slides.csv")
    return rows


def _require(config, images, output, field, mpp):
    if config.method.name not in COMPARABLE:
        raise ValueError(
            f"maps of the method {config.method.name!r} are not known to be comparable from tile "
            "to tile (most are stretched to [0, 1] in each), so that they cannot be joined; "
            f"expected a run of one of {list(COMPARABLE)}"
        )
    if not (field > 0 and math.isfinite(field)):
        raise ValueError(
            f"field {field}: expected microns along a training image, such as 124 for 512 pixels "
            "at 40x"
        )
    if mpp is not None:
        reader.require_plausible(mpp, images)
    if output.resolve().is_relative_to(images.resolve()):
        raise ValueError(
            f"the output {output} lies in the folder of slides {images}, where its maps would be "
            "taken for slides; pass another --output"
        )
    reader.require_openslide()
    exports.require_tifffile()


def _batched(localize, config):
    """The localizer on batches of one shape, maps finer than `CELLS` averaged where they divide."""
    side = experiment.evaluation_sizing(config).side
    shape = (config.evaluation_batch_size, side, side, 3)
    _, maps = jax.eval_shape(localize, jax.ShapeDtypeStruct(shape, np.uint8))
    cells = maps.shape[1]
    blocks = [p for p in range(1, POOLED + 1) if cells % p == 0]
    pooled = next((p for p in blocks if cells // p <= CELLS), blocks[-1])

    def coarser(image):
        classes, maps = localize(image)
        split = maps.reshape(len(maps), cells // pooled, pooled, cells // pooled, pooled)
        return classes, split.mean((2, 4))

    return Batched(coarser if pooled > 1 else localize, shape, cells // pooled)


def _attempt(file, folder, request, mpp, batched):
    """The facts of a slide that is mapped now, or why that failed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        facts = _map_slide(file, partial, request, mpp, batched)
        files.write_json(partial / "slide.json", facts)
        files.sync(partial)
        os.replace(partial, folder)
        return facts["found"]
    except (ValueError, OSError, MemoryError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        return {"error": str(error) or type(error).__name__}


def _map_slide(file, folder, request, mpp, batched):
    """Writes all but slide.json, whose contents are returned."""
    began, fingerprint = time.monotonic(), reader.fingerprint(file)
    slide = reader.open_slide(file)
    given = mpp if slide.mpp is None else None
    scale = reader.require_mpp(slide) if given is None else (given, given)
    cells = _grid(slide, scale, request.field, batched)
    share = mosaic.tissue_share(slide, cells)
    tiles = mosaic.tiles(cells, share)
    logging.info("%s: %d tiles", file.name, len(tiles))
    values, probabilities = _joined(slide, cells, tiles, batched)
    values[share == 0] = 0
    exports.write_pyramid(folder / "map.tif", values, mpp=tuple(m * cells.cell for m in scale))
    place = {"cell": cells.cell, "size": slide.size, "mpp": scale}
    origins = {"roi.geojson": (0, 0)}
    if any(slide.bounds):
        origins["roi_cropped.geojson"] = slide.bounds
    for name, origin in origins.items():
        regions = exports.outlines(values, request.threshold, origin=origin, **place)
        (folder / name).write_text(json.dumps(regions), encoding="utf-8")
    _draw(slide, values, cells).save(folder / "overlay.png")
    region = values >= exports.least(request.threshold)
    columns, rows = _tile_table(cells, tiles, share, region, probabilities)
    files.write_csv(folder / "tiles.csv", columns, rows)
    square_mm = scale[0] * scale[1] * cells.cell**2 / 1e6
    of_tissue, of_region = (int(part.sum(dtype=np.int64)) / 255 for part in (share, share[region]))
    return {
        **request._asdict(),
        **place,
        "bounds": slide.bounds,
        "mpp_given": given,
        "fingerprint": fingerprint,
        "made": logbook.record(),
        "found": {
            "tiles": len(tiles),
            "tissue_mm2": round(of_tissue * square_mm, 4),
            "roi_mm2": round(of_region * square_mm, 4),
            "seconds": round(time.monotonic() - began, 1),
        },
    }


def _grid(slide, scale, field, batched):
    """The cells of a slide; ValueError where a tile is much finer than the slide."""
    tile, side = field / float(np.mean(scale)), batched.shape[1]
    if tile * COARSEST < side:
        raise ValueError(
            f"{slide.file}: {field} microns are {tile:.1f} of its pixels, which the run sees as "
            f"{side}; expected --field in microns, and a slide about as fine as the training images"
        )
    return mosaic.grid(slide.size, tile, batched.cells)


def _joined(
    slide: reader.Slide, cells: mosaic.Grid, tiles: Sequence[mosaic.Tile], batched: Batched
) -> tuple[UInt8[np.ndarray, "rows columns"], list[Float[np.ndarray, " k"]]]:
    """The map of a slide, and the class probabilities of its tiles; none of unclassified ones."""
    values, probabilities = np.zeros(cells.shape, np.uint8), []
    for batch, pictures in _pictures(slide, cells, tiles, batched.shape):
        classes, maps = jax.device_get(batched.localize(pictures))
        for tile, heat in zip(batch, maps, strict=False):  # the last batch is filled up
            mosaic.paste(values, cells, tile, heat)
        if classes is not None:
            probabilities += list(classes[: len(batch)])
    return values, probabilities


def _pictures(
    slide: reader.Slide, cells: mosaic.Grid, tiles: Sequence[mosaic.Tile], shape: tuple[int, ...]
) -> Iterator[tuple[Sequence[mosaic.Tile], UInt8[np.ndarray, "b h w 3"]]]:
    """Batches of tiles with their pictures; those of the next batch are read meanwhile."""
    count, side = shape[:2]
    downsample = cells.cell * cells.side / side

    def read(tile):
        return reader.region(slide, *mosaic.corner(cells, tile), side, side, downsample=downsample)

    batches = [tiles[first : first + count] for first in range(0, len(tiles), count)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        coming = [pool.submit(read, tile) for tile in tiles[:count]]
        for batch, following in itertools.zip_longest(batches, batches[1:], fillvalue=()):
            ready, coming = coming, [pool.submit(read, tile) for tile in following]
            pictures = np.zeros(shape, np.uint8)
            pictures[: len(batch)] = [picture.result() for picture in ready]
            yield batch, pictures


def _tile_table(cells, tiles, share, region, probabilities):
    """Columns and rows of tiles.csv; places are those of the tiles' middles."""
    classes = range(len(probabilities[0]) if probabilities else 0)
    columns = ("x", "y", "side", "tissue", "roi", *(f"probability_{k}" for k in classes))
    rows = []
    for i, tile in enumerate(tiles):
        place = mosaic.middle(cells, tile)
        start = (round(tile.column * cells.cell), round(tile.row * cells.cell))
        shares = (share[place].mean() / 255, region[place].mean())
        shown = [
            f"{value:.4f}" for value in (*shares, *(probabilities[i] if probabilities else ()))
        ]
        values = (*start, round(cells.step * cells.cell), *shown)
        rows.append(dict(zip(columns, values, strict=True)))
    return columns, rows


def _draw(slide, values, cells):
    """The map over the slide."""
    rgb, downsample = reader.overview(slide, side=OVERLAY)
    height, width = rgb.shape[:2]
    scale = downsample / cells.cell
    box = (0, 0, min(width * scale, values.shape[1]), min(height * scale, values.shape[0]))
    heat = Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return Image.fromarray(visualize.overlay(rgb, np.asarray(heat, np.float32) / 255))


def _finished(folder, file, request, mpp):
    """What was found of a slide that was mapped before; None if it was not.

    Raises:
      FileExistsError: it was mapped with something else, or the folder is none of ours.
    """
    if not folder.exists():
        return None
    try:
        known = json.loads((folder / "slide.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{folder} is not of a slide's map; pass another --output, or remove it"
        ) from None
    try:
        wanted = {**request._asdict(), "fingerprint": reader.fingerprint(file)}
    except OSError as error:
        return {"error": f"cannot read the slide {file}: {error}"}
    if known["mpp_given"] is not None:
        wanted["mpp_given"] = mpp
    differing = [key for key, value in wanted.items() if known.get(key) != value]
    if differing:
        was, would = ({key: d.get(key) for key in differing} for d in (known, wanted))
        raise FileExistsError(
            f"{folder} was made with {was}, and this, of {file}, would be {would}; pass another "
            "--output, or remove the folder"
        )
    return known["found"]


def _summary(row):
    if "error" in row:
        return f"failed: {row['error']}"
    return (
        f"{row['tiles']} tiles, {row['roi_mm2']:.2f} of {row['tissue_mm2']:.2f} mm2 of tissue are "
        f"regions of interest ({logbook.duration(row['seconds'])})"
    )
