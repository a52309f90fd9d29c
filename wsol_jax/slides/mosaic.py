"""A map of a slide from the maps of the tiles that a network sees.

A slide is a grid of cells, one for each value of its map. A tile is a square of cells. Of its map
the middle is kept, since near the border a network has seen less than all around; the middles of
neighbours touch, so that every cell is of one tile and nothing is blended.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from wsol_jax.slides import reader, tissue

MARGIN = 8  # a tile's margin is this part of its side, at least a cell
LEAST_TISSUE = 0.01  # share of its middle from which a tile is looked at
# Tissue is found in a picture of so many pixels along a cell, and along its longer side at most.
FINER, OVERVIEW = 4, 4096


class Grid(NamedTuple):
    """The cells of a slide.

    Attributes:
      cell: level-0 pixels along a cell.
      side: cells along a tile.
      shape: rows and columns of the slide's map.
    """

    cell: float
    side: int
    shape: tuple[int, int]

    @property
    def margin(self) -> int:
        """Cells along a tile's border that are left out."""
        return min(max(1, self.side // MARGIN), (self.side - 1) // 2)

    @property
    def step(self) -> int:
        """Cells along a tile's middle."""
        return self.side - 2 * self.margin


class Tile(NamedTuple):
    """A tile by the first row and column of its middle, in cells."""

    row: int
    column: int


def grid(size: tuple[int, int], tile: float, side: int) -> Grid:
    """The cells of a slide.

    Args:
      size: width and height of the slide in level-0 pixels.
      tile: level-0 pixels along a tile.
      side: cells along a tile.
    """
    cell = tile / side
    return Grid(cell, side, (math.ceil(size[1] / cell), math.ceil(size[0] / cell)))


def tissue_share(slide: reader.Slide, cells: Grid) -> UInt8[np.ndarray, "rows columns"]:
    """How much of each cell is tissue, from 0 to 255 for all of it.

    Black, with which some scanners fill what they have not scanned, is glass: left black it would
    part all else from itself, and pale tissue would pass for glass.
    """
    side = min(OVERVIEW, FINER * max(cells.shape))
    rgb, downsample = reader.overview(slide, side=side)
    black = (rgb <= tissue.WRITTEN_RGB_MIN).all(axis=-1, keepdims=True)
    found = 255 * tissue.tissue(np.where(black, np.uint8(255), rgb)).astype(np.uint8)
    height, width = (length * cells.cell / downsample for length in cells.shape)
    beyond = (math.ceil(height) - found.shape[0], math.ceil(width) - found.shape[1])
    padded = Image.fromarray(np.pad(found, [(0, max(0, pixels)) for pixels in beyond]))
    size, box = cells.shape[::-1], (0, 0, width, height)
    return np.asarray(padded.resize(size, Image.Resampling.BOX, box=box))


def tiles(cells: Grid, share: UInt8[np.ndarray, "rows columns"]) -> list[Tile]:
    """The tiles whose middle has tissue, row by row."""
    places = (
        Tile(row, column)
        for row in range(0, cells.shape[0], cells.step)
        for column in range(0, cells.shape[1], cells.step)
    )
    return [t for t in places if share[middle(cells, t)].mean() >= 255 * LEAST_TISSUE]


def corner(cells: Grid, tile: Tile) -> tuple[int, int]:
    """Left and top of a tile in level-0 pixels; beyond the slide where its margin is."""
    return (
        round((tile.column - cells.margin) * cells.cell),
        round((tile.row - cells.margin) * cells.cell),
    )


def middle(cells: Grid, tile: Tile) -> tuple[slice, slice]:
    """Where the middle of a tile lies in the slide's map."""
    return (
        slice(tile.row, min(tile.row + cells.step, cells.shape[0])),
        slice(tile.column, min(tile.column + cells.step, cells.shape[1])),
    )


def paste(
    values: UInt8[np.ndarray, "rows columns"],
    cells: Grid,
    tile: Tile,
    heat: Float[np.ndarray, "side side"],
) -> None:
    """Puts the middle of a tile's map, in [0, 1], into the slide's, in 8 bits."""
    place = middle(cells, tile)
    height, width = values[place].shape
    inner = heat[cells.margin :, cells.margin :][:height, :width]
    values[place] = np.rint(255 * inner.astype(np.float32))
