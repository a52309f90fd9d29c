"""A folder of whole slides -> their maps, by a trained run, as viewers open them.

OUTPUT/slides.csv         a line a slide: tiles, tissue and that of it in regions, or why it failed
OUTPUT/SLIDE/map.tif      the map in 8 bits, a pyramid with its scale; 0 where there is no tissue
OUTPUT/SLIDE/roi.geojson  its regions at or above the threshold, in level-0 pixels
OUTPUT/SLIDE/overlay.png  the map over the slide, small
OUTPUT/SLIDE/tiles.csv    every tile that was looked at, with the probabilities of the classes
OUTPUT/SLIDE/slide.json   how all of it was made

A slide's folder is whole or not there; killed, the same command goes on with the next one. Tiles
are read by `reader.region` at the scale of the training images, which were resized bilinearly from
level 0 where these are means over the nearest finer level.
"""

import concurrent.futures
import csv
import io
import itertools
import json
import logging
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from wsol_jax import logbook, predict, visualize
from wsol_jax.slides import exports, mosaic, prepare, reader

# Methods whose values do not depend on what else is in a tile; others stretch each map to [0, 1].
COMPARABLE = ("pixelcam", "negev", "unet")
COLUMNS = ("slide", "tiles", "tissue_mm2", "roi_mm2", "seconds", "error")
OVERLAY = 2048  # pixels along the longer side, at most


class Request(NamedTuple):
    """What a slide's map is made with; a folder that has been made with the same is kept.

    Attributes:
      run, map: the folder of the run, and which map at which checkpoint.
      threshold: of the regions.
      field: microns along a tile.
      mpp: microns along a level-0 pixel where the slides are not asked.
    """

    run: str
    map: str
    threshold: float
    field: float
    mpp: float | None


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
    """Maps every slide of a folder; one that fails is told, and the others are mapped.

    Args:
      images: folder of slides, looked through with all inside of it.
      field: microns along the images that the run was trained on: what it sees at once.
      mpp: microns along a level-0 pixel, in place of what the slides say.
      checkpoint: see `predict.localizer`.

    Returns:
      The lines of slides.csv.

    Raises:
      FileExistsError: a folder there was made with something else; says what.
      FileNotFoundError, ImportError, ValueError: no slides, no run, no OpenSlide, a method whose
        maps cannot be joined; before any work.
      SystemExit: slides have failed; everything else is written.
    """
    if config.method.name not in COMPARABLE:
        raise ValueError(
            f"the method {config.method.name!r} stretches the map of every tile to [0, 1], so that "
            f"those of a slide cannot be joined; expected a run of one of {list(COMPARABLE)}"
        )
    if not field > 0:
        raise ValueError(
            f"field {field}: expected microns along a training image, such as 124 for 512 pixels "
            "at 40x"
        )
    if output.resolve().is_relative_to(images.resolve()):
        raise ValueError(
            f"the output {output} lies in the folder of slides {images}, where its maps would be "
            "taken for slides; pass another --output"
        )
    reader.require_openslide()
    sources = [source for source in prepare.find(images) if not _is_mask(source.name)]
    found = predict.localizer(config, workdir, checkpoint)
    request = Request(str(workdir.resolve()), found.origin, found.threshold, field, mpp)
    done = {
        source.name: _finished(output / source.name, source.file, request) for source in sources
    }
    side = config.resize if config.keep_aspect else config.image_size
    localize, rows = _batched(found.localize, side, config.evaluation_batch_size), []
    for source in sources:
        row = done[source.name] or _attempt(source.file, output / source.name, request, localize)
        rows.append({"slide": source.file.name, **row})
        _write_csv(output / "slides.csv", COLUMNS, rows)
        logging.info("%s: %s", source.name, _told(row))
    failed = [row["slide"] for row in rows if "error" in row]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(rows)} slides failed, see {output / 'slides.csv'}")
    return rows


class _Batched(NamedTuple):
    """A localizer of whole batches of tiles.

    Attributes:
      call: pictures (b h w 3) -> probabilities (b k) or None, maps (b i i).
      shape: of the pictures.
      cells: values along a map.
    """

    call: Callable[..., tuple]
    shape: tuple[int, int, int, int]
    cells: int


def _batched(localize, side, batch_size):
    shape = (batch_size, side, side, 3)
    _, maps = jax.eval_shape(localize, jax.ShapeDtypeStruct(shape, jnp.uint8))
    return _Batched(localize, shape, maps.shape[1])


def _attempt(file, folder, request, localize):
    """The facts of a slide that is mapped now, or why that failed."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        facts = _map_slide(file, partial, request, localize)
        logbook.write_json(partial / "slide.json", facts)
        shutil.rmtree(folder, ignore_errors=True)  # of the slide as it was
        os.replace(partial, folder)
        return facts["found"]
    except (ValueError, OSError, MemoryError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        return {"error": str(error) or type(error).__name__}


def _map_slide(file, folder, request, localize):
    """Writes all but slide.json, whose contents are returned."""
    began = time.monotonic()
    slide = reader.open_slide(file, mpp=request.mpp)
    mpp = reader.require_mpp(slide)
    cells = mosaic.grid(slide.size, request.field / float(np.mean(mpp)), localize.cells)
    share = mosaic.tissue_share(slide, cells)
    tiles = mosaic.tiles(cells, share)
    values, probabilities = _joined(slide, cells, tiles, localize)
    values[share == 0] = 0
    square_mm = mpp[0] * mpp[1] * cells.cell**2 / 1e6
    microns = tuple(axis * cells.cell for axis in mpp)
    exports.write_pyramid(folder / "map.tif", values, mpp=microns)
    regions = exports.outlines(values, request.threshold, cell=cells.cell, mpp=mpp)
    (folder / "roi.geojson").write_text(json.dumps(regions), encoding="utf-8")
    _draw(slide, values, cells).save(folder / "overlay.png")
    region = values >= exports.least(request.threshold)
    of_tissue, of_region = (int(part.sum(dtype=np.int64)) / 255 for part in (share, share[region]))
    columns, rows = _tile_table(cells, tiles, share, region, probabilities)
    _write_csv(folder / "tiles.csv", columns, rows)
    return {
        **request._asdict(),
        "fingerprint": reader.fingerprint(file),
        "size": slide.size,
        "mpp_used": mpp,
        "cell": cells.cell,
        "found": {
            "tiles": len(tiles),
            "tissue_mm2": round(of_tissue * square_mm, 4),
            "roi_mm2": round(of_region * square_mm, 4),
            "seconds": round(time.monotonic() - began, 1),
        },
    }


def _joined(
    slide: reader.Slide, cells: mosaic.Grid, tiles: Sequence[mosaic.Tile], localize: _Batched
) -> tuple[UInt8[np.ndarray, "rows columns"], list[Float[np.ndarray, " k"]]]:
    """The map of a slide, and the class probabilities of its tiles; none of unclassified ones."""
    values, probabilities = np.zeros(cells.shape, np.uint8), []
    for batch, pictures in _pictures(slide, cells, tiles, localize.shape):
        classes, maps = jax.device_get(localize.call(pictures))
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
        told = [f"{value:.4f}" for value in (*shares, *(probabilities[i] if probabilities else ()))]
        values = (*start, round(cells.step * cells.cell), *told)
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


def _finished(folder, file, request):
    """What is known of a slide that was mapped before; FileExistsError where it was by other means.

    A slide that has changed since is mapped again.
    """
    path = folder / "slide.json"
    if not path.is_file():
        if folder.exists():
            raise FileExistsError(f"{folder} is not of a slide's map; pass another --output")
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key, value in request._asdict().items() if known.get(key) != value]
    if differing:
        was, wanted = ({key: d[key] for key in differing} for d in (known, request._asdict()))
        raise FileExistsError(
            f"{folder} was made with {was}, and this would be {wanted}; pass another --output, or "
            "remove the folder"
        )
    return known["found"] if known["fingerprint"] == reader.fingerprint(file) else None


def _is_mask(name):
    return name.endswith(prepare.MASK)


def _told(row):
    if "error" in row:
        return f"failed: {row['error']}"
    return (
        f"{row['tiles']} tiles, {row['roi_mm2']:.2f} of {row['tissue_mm2']:.2f} mm2 of tissue are "
        f"regions of interest ({logbook.duration(row['seconds'])})"
    )


def _write_csv(path, columns, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    logbook.write_text(path, text.getvalue())
