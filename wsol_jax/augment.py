"""What happens to a batch between the input pipeline and the model, on the device.

Training views are random crops, flips, perhaps turns, and colour jitter; evaluation views are only
normalised. Every image draws from its own key, so its view does not depend on the others.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Shaped

from wsol_jax import ops

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# The colour jitter of the released code: brightness, contrast, saturation, and hue in turns.
NO_JITTER = (1.0, 1.0, 1.0, 0.0)
JITTER = (0.5, 0.5, 0.5, 0.05)
GRAY = (0.2989, 0.587, 0.114)  # red, green and blue in torchvision's grayscale


def train_view(
    batch: Mapping[str, Array],
    keys: Key[Array, "b"],
    *,
    size: int = 224,
    turn: bool = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> dict[str, Array]:
    """The batch under a random crop, two random flips and colour jitter of the image.

    Args:
      batch: `image` uint8 (b H W 3); `mask` (b H W) and `cam` (b h w) in [0, 1], where present,
        take the same crop and flips. The CAM is resized to (H, W) first, as if it had been stored
        so, and is not normalised again. Where images are padded at the bottom and the right,
        `size` (b 2) is the height and width of each, both at least those of the crop, which then
        shows no padding; it is used up here. Other entries are handed on.
      size: side of the crop in pixels.
      turn: a random transposition too, so that the eight symmetries of the square are equally
        likely, as by the left-right flip and the turn by 0, 90, 180 or 270 degrees of the max-min
        uncertainty paper on CAMELYON16.
      mean, std: of the images in [0, 1] that the backbone was pretrained on.

    Returns:
      The batch, with `image` float32 (b size size 3) normalised, `mask` (b size size) and `cam`
      float32 (b size size) in [0, 1].
    """
    _check(batch, size)
    shape = batch["image"].shape[1:3]
    views = {name: batch[name] for name in ("image", "mask", "cam") if name in batch}
    if "cam" in views:
        views["cam"] = ops.resize_maps(views["cam"].astype(jnp.float32), shape)
    others = {name: value for name, value in batch.items() if name != "size"}
    sizes = batch.get("size", jnp.broadcast_to(jnp.asarray(shape), (len(keys), 2)))
    geometry, colour = jax.vmap(jax.random.split, out_axes=1)(keys)
    views = jax.vmap(functools.partial(_crop_and_flip, size=size, turn=turn))(
        views, sizes, geometry
    )
    images = jax.vmap(_draw_jitter)(views["image"] / 255.0, colour)
    return {**others, **views, "image": _normalize(images, mean, std)}


def eval_view(
    batch: Mapping[str, Array],
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> dict[str, Array]:
    """The batch with its images, uint8 and already of the model's size, normalised."""
    return {**batch, "image": _normalize(batch["image"] / 255.0, mean, std)}


def jitter(
    image: Float[Array, "H W 3"], order: Int[Array, "4"], factors: Float[Array, "4"]
) -> Float[Array, "H W 3"]:
    """Brightness, contrast, saturation and hue changed one after the other, in a given order.

    The first three blend, x <- clip(f x + (1 - f) t, 0, 1), with t = 0, the image's mean gray, or
    each pixel's gray. Equal to torchvision's ColorJitter on float images. Images of one batch
    differ in their orders, so every step computes a blend and a hue and keeps one of them.

    Args:
      image: values in [0, 1].
      order: a permutation of 0 brightness, 1 contrast, 2 saturation, 3 hue.
      factors: the three f, and the turn of the hue as a part of the full circle in [-1/6, 1/6].
    """

    def step(image, operation):
        gray = jnp.sum(image * jnp.asarray(GRAY), axis=-1, keepdims=True)
        target = jnp.where(operation == 1, jnp.mean(gray), jnp.where(operation == 2, gray, 0))
        factor = factors[operation]
        blended = jnp.clip(factor * image + (1 - factor) * target, 0, 1)
        return jnp.where(operation == 3, _turn_hue(image, factors[3]), blended), None

    return jax.lax.scan(step, image, order)[0]


def _draw_jitter(image: Float[Array, "H W 3"], key: Key[Array, ""]) -> Float[Array, "H W 3"]:
    order_key, factor_key = jax.random.split(key)
    order = jax.random.permutation(order_key, 4)
    uniform = jax.random.uniform(factor_key, (4,), minval=-1.0, maxval=1.0)
    return jitter(image, order, jnp.asarray(NO_JITTER) + jnp.asarray(JITTER) * uniform)


def _turn_hue(image: Float[Array, "H W 3"], turn: Float[Array, ""]) -> Float[Array, "H W 3"]:
    """RGB -> HSV, h + turn, -> RGB; with h in sixths of the circle, value v and chroma c.

    channel_n = v - c clip(min(k, 4 - k), 0, 1), k = (n + h) mod 6, n = 5, 3, 1.
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value, chroma = jnp.max(image, axis=-1), jnp.ptp(image, axis=-1)
    divisor = jnp.where(chroma == 0, 1, chroma)
    # Ordering the channels, unlike finding the one equal to v, bears a compiler that computes v
    # twice with different rounding: where two channels nearly tie, their formulas agree.
    hue = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    k = jnp.asarray([5.0, 3.0, 1.0]) + (hue + 6 * turn)[..., None]
    k = jnp.where(k < 6, k, k - 6)  # k in [-1, 0) needs no turn: it gives what k + 6 would give
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def _check(batch: Mapping[str, Array], size: int) -> None:
    """Raises ValueError where the crop cannot be what it should."""
    shape = batch["image"].shape[1:3]
    if min(shape) < size:
        raise ValueError(f"images of {shape[0]}x{shape[1]} pixels are smaller than size={size}")
    if "mask" in batch and batch["mask"].shape[1:] != shape:
        raise ValueError(
            f"masks of shape {batch['mask'].shape[1:]} do not fit images of shape {shape}; "
            "expected equal shapes, as of a split opened without original_mask"
        )
    if "cam" in batch and "size" in batch:
        raise ValueError(
            "a batch with 'size' has images of several shapes, which CAMs of one shape do not fit; "
            "expected images of one shape, as of a split opened without keep_aspect"
        )


def _crop_and_flip(
    views: dict[str, Shaped[Array, "H W ..."]],
    own: Int[Array, "2"],
    key: Key[Array, ""],
    *,
    size: int,
    turn: bool,
) -> dict[str, Shaped[Array, "size size ..."]]:
    """The same square of every view, mirrored top-bottom and left-right with probability 1/2.

    With `turn` rows and columns are exchanged, too, with probability 1/2. The square lies within
    the `own` height and width of the image.
    """
    corner_key, flip_key = jax.random.split(key)
    top, left = jax.random.randint(corner_key, (2,), 0, own - size + 1)
    upturned, mirrored, *transposed = jax.random.bernoulli(flip_key, shape=(3 if turn else 2,))

    def view(image):
        channels = image.shape[2:]
        start = (top, left, *(0 for _ in channels))
        square = jax.lax.dynamic_slice(image, start, (size, size, *channels))
        square = jnp.where(upturned, square[::-1], square)
        square = jnp.where(mirrored, square[:, ::-1], square)
        return jnp.where(transposed[0], square.swapaxes(0, 1), square) if turn else square

    return jax.tree.map(view, views)


def _normalize(
    images: Float[Array, "b H W 3"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "b H W 3"]:
    return (images - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
