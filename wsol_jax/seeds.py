"""Seeds: the few pixels of a CAM that PixelCAM takes as foreground and background examples.

A sampler turns a CAM into two maps of weights; pixels are then drawn in proportion to them,
without replacement, anew at every step. PixelCAM, MIDL 2025, section 2 and appendix J.3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from wsol_jax import choices
from wsol_jax.pixel_labels import BACKGROUND, FOREGROUND, UNANNOTATED

SAMPLERS = ("lowest", "probability", "complement", "threshold")
NEGATIVES = ("foreground", "background", "drop")  # what images of class 0 teach about pixels


class Seeds(NamedTuple):
    """Pixels with a label, n per image: first the foreground ones, then the background ones."""

    points: Int[Array, "b n 2"]  # row, column
    target: Int[Array, "b n"]  # 1 foreground, 0 background
    known: Bool[Array, "b n"]  # False: this seed could not be drawn, or fell into a conflict


def sample(
    keys: Key[Array, "b"],
    cam: Float[Array, "b H W"],
    *,
    sampler: str = "lowest",
    foreground: int = 5,
    background: int = 5,
    fraction: float = 0.2,
    erosion: int = 11,
    background_only: Bool[Array, "b"] | None = None,
) -> Seeds:
    """Draws seeds from the CAM C of each image's true class, each image with its own key.

    The sampler says which pixels are likely to become seeds:
      lowest: foreground in proportion to C, background anywhere in the lowest activations. What
        the released code trains with.
      probability: foreground as above, background in proportion to 1 - C / sum C, which is nearly
        uniform over the image. Also in the released code.
      complement: foreground as above, background in proportion to 1 - C. The paper's text.
      threshold: foreground anywhere in Otsu's region, eroded; background as in lowest. The
        paper's ablation TH.
    A pixel drawn for both classes is known to neither. Ties between activations carry no order, so
    the seeds of a constant CAM lie anywhere; `threshold` draws none where it is constant in eight
    bits.

    Args:
      cam: values in [0, 1], of the size the seeds are wanted at; NaN counts as 0.
      foreground, background: how many seeds to draw of each.
      fraction: part of the pixels that "lowest activations" means.
      erosion: side in pixels, odd, of the square that erodes Otsu's region.
      background_only: images without an object, such as normal tissue: they give no foreground,
        and background anywhere.
    """
    check(sampler=sampler, foreground=foreground, background=background, fraction=fraction)
    cam = jnp.clip(jnp.nan_to_num(cam.astype(jnp.float32)), 0, 1)
    likely = cam + 1e-6
    samplers = {
        "lowest": lambda: (likely, lowest_area(cam, fraction)),
        "probability": lambda: (likely, 1 - likely / jnp.sum(likely, axis=(1, 2), keepdims=True)),
        "complement": lambda: (likely, 1 - cam),
        "threshold": lambda: _threshold(cam, fraction=fraction, erosion=erosion),
    }
    objects, others = samplers[sampler]()
    if background_only is not None:
        negative = background_only[:, None, None]
        objects, others = jnp.where(negative, 0, objects), jnp.where(negative, 1, others)
    return _draw_seeds(keys, (objects, others), counts=(foreground, background))


def check(*, sampler: str, foreground: int, background: int, fraction: float) -> None:
    """Raises ValueError for arguments of `sample` that are out of their range."""
    choices.require("sampler", sampler, SAMPLERS)
    choices.require_number("foreground", foreground)
    choices.require_number("background", background)
    choices.require_number("fraction", fraction, above=0, most=1)


def require_centre(side: int) -> None:
    """Raises ValueError where a square of this side has no pixel in its middle."""
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a square of {side} pixels has no centre; expected an odd side")


def dense(seeds: Seeds, shape: tuple[int, int], *, dilation: int = 1) -> Int[Array, "b H W"]:
    """The seeds as label maps: 1 foreground, 0 background, 255 ignore.

    Args:
      dilation: side in pixels, odd, of the square each seed becomes; where squares of both
        classes meet, nothing is known.
    """
    rows, columns = seeds.points[..., 0], seeds.points[..., 1]
    images = jnp.arange(len(rows))[:, None]

    def mark(target: int) -> Bool[Array, "b H W"]:
        chosen = seeds.known & (seeds.target == target)
        marks = jnp.zeros((len(rows), *shape), bool).at[images, rows, columns].max(chosen)
        return _dilate(marks, dilation)

    # Seeds in conflict are gone by now; the released code ignores their whole squares as well.
    objects, others = mark(FOREGROUND), mark(BACKGROUND)
    labels = jnp.where(objects, FOREGROUND, jnp.where(others, BACKGROUND, UNANNOTATED))
    return jnp.where(objects & others, UNANNOTATED, labels)


def lowest_area(cam: Float[Array, "b H W"], fraction: float) -> Float[Array, "b H W"]:
    """Weight 1 for the int(fraction H W) pixels of lowest activation, 0 for the others.

    Pixels tied at the limit share the places that are left, so that their order does not matter.

    Args:
      cam: values in [0, 1].
      fraction: in (0, 1].
    """
    _, height, width = cam.shape
    count = int(fraction * height * width)
    if not 0 < fraction <= 1 or count == 0:
        raise ValueError(
            f"fraction={fraction} of {height}x{width} pixels: expected in (0, 1], one pixel or more"
        )
    limit = _smallest(cam, count)[:, None, None]
    below, tied = cam < limit, cam == limit
    places = count - jnp.sum(below, axis=(1, 2), keepdims=True)
    share = places / jnp.maximum(jnp.sum(tied, axis=(1, 2), keepdims=True), 1)
    return jnp.where(below, 1.0, jnp.where(tied, share, 0.0))


def otsu_region(cam: Float[Array, "b H W"], *, erosion: int = 1) -> Bool[Array, "b H W"]:
    """The pixels above Otsu's threshold of floor(255 C), eroded by a square; none if C is constant.

    The border of the image does not erode. Otsu's threshold t separates the levels <= t from those
    above with the largest n_0 n_1 (m_1 - m_0)^2, n and m being their counts and means; the
    smallest such t, and at least 1, as in the released code.

    Args:
      cam: values in [0, 1].
      erosion: side of the square in pixels, odd; 1 leaves the region as it is.
    """
    levels = jnp.floor(255 * cam).astype(jnp.int32)
    counts = jax.vmap(lambda level: jnp.zeros(256, jnp.int32).at[level].add(1))(levels)
    number, total = jnp.cumsum(counts, axis=1), jnp.cumsum(counts * jnp.arange(256), axis=1)
    number_above, total_above = number[:, -1:] - number, total[:, -1:] - total
    means_apart = total_above / jnp.maximum(number_above, 1) - total / jnp.maximum(number, 1)
    between = number.astype(jnp.float32) * number_above * means_apart**2
    threshold = jnp.where(jnp.any(between > 0, axis=1), jnp.argmax(between, axis=1), 255)
    region = levels > jnp.maximum(threshold, 1)[:, None, None]
    return ~_dilate(~region, erosion)


def _threshold(
    cam: Float[Array, "b H W"], *, fraction: float, erosion: int
) -> tuple[Float[Array, "b H W"], Float[Array, "b H W"]]:
    varied = jnp.ptp(jnp.floor(255 * cam), axis=(1, 2), keepdims=True) > 0
    region = otsu_region(cam, erosion=erosion).astype(jnp.float32)
    return region, jnp.where(varied, lowest_area(cam, fraction), 0)


def _smallest(cam: Float[Array, "b H W"], count: int) -> Float[Array, "b"]:
    """The `count`-th smallest of the values in [0, 1] of each image, without sorting.

    Floats >= 0 are ordered like their bits read as integers, and those up to 1 take 30 bits: the
    limit is found bit by bit, thirty times faster than a sort on a CPU.
    """
    bits = jax.lax.bitcast_convert_type(cam, jnp.int32)

    def next_bit(step: Int[Array, ""], low: Int[Array, "b"]) -> Int[Array, "b"]:
        high = low + (1 << (29 - step))
        below = jnp.sum(bits < high[:, None, None], axis=(1, 2))
        return jnp.where(below < count, high, low)

    limit = jax.lax.fori_loop(0, 30, next_bit, jnp.zeros(len(cam), jnp.int32))
    return jax.lax.bitcast_convert_type(limit, jnp.float32)


def _draw_seeds(
    keys: Key[Array, "b"],
    weights: tuple[Float[Array, "b H W"], Float[Array, "b H W"]],
    *,
    counts: tuple[int, int],
) -> Seeds:
    """Draws both classes independently; what both have drawn becomes unknown."""
    object_keys, other_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    draw = jax.vmap(_draw, in_axes=(0, 0, None))
    objects, object_known = draw(object_keys, weights[0], counts[0])
    others, other_known = draw(other_keys, weights[1], counts[1])
    same = jnp.all(objects[:, :, None] == others[:, None], axis=-1)
    conflict = same & object_known[:, :, None] & other_known[:, None]
    object_known &= ~jnp.any(conflict, axis=2)
    other_known &= ~jnp.any(conflict, axis=1)
    target = jnp.asarray([FOREGROUND] * counts[0] + [BACKGROUND] * counts[1])
    return Seeds(
        points=jnp.concatenate([objects, others], axis=1),
        target=jnp.broadcast_to(target, (len(keys), len(target))),
        known=jnp.concatenate([object_known, other_known], axis=1),
    )


def _draw(
    key: Key[Array, ""], weights: Float[Array, "H W"], count: int
) -> tuple[Int[Array, "n 2"], Bool[Array, "n"]]:
    """Draws pixels one after the other, each in proportion to the weights of those still there.

    First a row by its sum, then a column within it: P(row) P(column | row) = w / sum w. So a draw
    takes H + W random numbers, not H W. Where no weight is left, the point is not known.
    """

    def draw_one(left, key):
        weights, sums = left
        row_key, column_key = jax.random.split(key)
        row = jax.random.categorical(row_key, jnp.log(sums))
        column = jax.random.categorical(column_key, jnp.log(weights[row]))
        known = sums[row] > 0
        weights = weights.at[row, column].set(0)
        sums = sums.at[row].set(jnp.sum(weights[row]))
        return (weights, sums), (jnp.stack([row, column]), known)

    left = weights, jnp.sum(weights, axis=1)
    return jax.lax.scan(draw_one, left, jax.random.split(key, count))[1]


def _dilate(mask: Bool[Array, "b H W"], side: int) -> Bool[Array, "b H W"]:
    """True wherever the square of `side` pixels around a pixel meets the mask."""
    require_centre(side)
    for window in ((1, side, 1), (1, 1, side)):
        mask = jax.lax.reduce_window(mask, False, jax.lax.bitwise_or, window, (1, 1, 1), "SAME")
    return mask
