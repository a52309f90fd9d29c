"""The brushes of drawn tissue: smooth noise, scattered points, soft ellipses, and two stains.

Everything is a field over one square canvas and depends on nothing but its arguments.
"""

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

SIZE = 256
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE].astype(np.float32)
# Optical density in red, green and blue (Ruifrok and Johnston 2001, table 1).
HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])

Field = Float[np.ndarray, "s s"]
Points = Float[np.ndarray, "2 n"]
Range = tuple[float, float]


def noise(rng: np.random.Generator, cell: float) -> Field:
    """Smooth noise of mean 0 and deviation about 1.3, its bumps `cell` pixels apart."""
    span = SIZE / cell
    count = int(span) + 4
    coarse = Image.fromarray(rng.standard_normal((count, count), np.float32))
    left, top = rng.uniform(1, count - 1 - span, 2)
    box = (left, top, left + span, top + span)
    return 1.6 * np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box))


def scatter(
    rng: np.random.Generator, share: Shaped[np.ndarray, "s s"], *, spacing: float, darts: int
) -> Points:
    """Random rows and columns, at least `spacing` pixels apart.

    `darts` are thrown; one survives with the probability `share` of the pixel that it hits.
    """
    points = SIZE * rng.random((2, darts), np.float32)
    points = points[:, rng.random(darts) < at(share, points)]
    reach = int(np.ceil(spacing))
    offset = np.arange(-reach, reach + 1)
    apart = offset[:, None] ** 2 + offset**2 >= spacing**2
    free = np.ones((SIZE + 2 * reach, SIZE + 2 * reach), bool)
    kept = []
    for i, (row, column) in enumerate(points.T.astype(int)):
        if free[row + reach, column + reach]:
            free[row : row + 2 * reach + 1, column : column + 2 * reach + 1] &= apart
            kept.append(i)
    return points[:, kept]


def ellipses(
    rng: np.random.Generator,
    points: Points,
    *,
    long: float,
    spread: float,
    ratio: Range,
    direction: Field,
    turn: float,
    value: Range,
) -> Field:
    """Soft-edged ellipses with a darker rim; where they meet the larger value stays.

    Args:
      long: mean of the long half axis in pixels; spread: its deviation, relative.
      ratio: range of the short to the long axis. value: range of the darkest values.
      direction: angle of the long axis per pixel; turn: deviation from it, in radians.
    """
    count = points.shape[1]
    long_axis = long * np.exp(spread * rng.standard_normal(count))
    short_axis = long_axis * rng.uniform(*ratio, count)
    angle = at(direction, points) + turn * rng.standard_normal(count)
    parameters = long_axis, short_axis, np.cos(angle), np.sin(angle), rng.uniform(*value, count)
    a, b, cos, sin, peak = (p.astype(np.float32)[:, None, None] for p in parameters)

    reach = int(np.ceil(long_axis.max(initial=1))) + 2
    offset = np.arange(-reach, reach + 1)
    corner = points.astype(int)
    dy, dx = (offset - (points - corner)[..., None]).astype(np.float32)
    dy, dx = dy[:, :, None], dx[:, None, :]
    radius = np.hypot((cos * dx + sin * dy) / a, (cos * dy - sin * dx) / b)
    shade = peak * np.clip((1 - radius) * b + 0.5, 0, 1)
    shade *= 0.82 + 0.18 * np.minimum(radius, 1) ** 2
    canvas = np.zeros((SIZE + 2 * reach, SIZE + 2 * reach), np.float32)
    rows, columns = corner[..., None] + reach + offset
    np.maximum.at(canvas, (rows[:, :, None], columns[:, None, :]), shade)
    return canvas[reach:-reach, reach:-reach]


def stained(
    rng: np.random.Generator, haematoxylin: Field, eosin: Field
) -> UInt8[np.ndarray, "s s 3"]:
    """Light through both stains, I = I0 exp(-density), with a random hue, strength and lamp.

    Strength is set for the mean of the image, so that nothing can be told from its mean colour.
    """
    violet, salmon = np.array([-0.04, 0.06, 0.0]), np.array([0.05, 0.0, 0.12])
    blue = (HAEMATOXYLIN + violet + rng.normal(0, 0.04, 3)) * rng.uniform(0.25, 0.37)
    red = (EOSIN + rng.uniform(0, 2) * salmon + rng.normal(0, 0.03, 3)) * rng.uniform(0.25, 0.4)
    density = np.stack([haematoxylin / haematoxylin.mean(), eosin / eosin.mean()], -1)
    light = np.exp(-(density @ np.stack([blue, red])).astype(np.float32))
    lamp = rng.uniform(238, 252) * (1 + 0.04 * noise(rng, 150))
    image = lamp[..., None] * light + 2.5 * rng.standard_normal(light.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def at(field: Shaped[np.ndarray, "s s"], points: Points) -> Shaped[np.ndarray, "n"]:
    """The values of a field at points."""
    return field[tuple(points.astype(int))]
