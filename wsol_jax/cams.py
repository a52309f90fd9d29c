"""Class activation maps read out of a trained classifier, one function per paper.

A read-out is a pure function of (head, features, label), where `head` holds two functions of the
features (b h w c): class logits (b k), whose gradient is `jax.grad`, and the head's own maps of all
classes (b h w k). All return raw maps at feature resolution; turn them into maps in [0, 1] with
`ops.min_max`, then resize: in that order, as the released code does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wsol_jax import choices

TIED = 2.0**-20  # how far from one half `bounded` puts equal maps, beyond the rounding of resizing

Features = Float[Array, "b h w c"]
Maps = Float[Array, "b h w"]


class Head(NamedTuple):
    """A pooling head as functions of the features: class logits (b k), class maps (b h w k)."""

    score: Callable[[Features], Float[Array, "b k"]]
    maps: Callable[[Features], Float[Array, "b h w k"]]


def cam(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """CAM (Zhou et al., CVPR 2016, eq. 2): the class scores of the pixels, before they are pooled.

    M = sum_k w_ck A_k + b_c for a linear head after average pooling, and likewise for heads that
    pool their scores otherwise (max, log-sum-exp, WILDCAT).
    """
    return pick(head.maps(features), label)


def deep_mil(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """Deep MIL (Ilse et al., ICML 2018): the attention that the class's pooling pays each pixel."""
    return pick(head.maps(features), label)


def grad_cam(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """Grad-CAM (Selvaraju et al., ICCV 2017, eqs. 1-2).

    M = relu(sum_k w_k A_k), w_k = mean_ij g_k.
    """
    return _weighted(features, jnp.mean(gradient(head, features, label), axis=(1, 2)))


def grad_cam_pp(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """Grad-CAM++ as released with PixelCAM: M = relu(sum_k w_k A_k), w_k = sum_ij g² relu(g).

    The paper divides g² by a denominator (see `grad_cam_pp_published`); in the released code the
    division is lost. Up to scale this is also what the `grad-cam` package computes.
    """
    g = gradient(head, features, label)
    return _weighted(features, jnp.sum(jnp.square(g) * jax.nn.relu(g), axis=(1, 2)))


def grad_cam_pp_published(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """Grad-CAM++ (Chattopadhyay et al., WACV 2018, eqs. 5 and 19).

    w_k = sum_ij alpha_ij relu(g_ij), alpha_ij = g² / (2 g² + sum_ab g_ab³ A_ab), 0 where g = 0.
    Computed of h = g / s, the largest |h| of an image being 1: squares of small g would be 0.
    """
    g = gradient(head, features, label)
    s = jnp.max(jnp.abs(g), axis=(1, 2, 3), keepdims=True)
    h = g / jnp.where(s > 0, s, 1)
    denominator = 2 * h**2 + s * jnp.sum(h**3 * features, axis=(1, 2), keepdims=True)
    known = denominator != 0
    alpha = jnp.where(known, h**2 / jnp.where(known, denominator, 1), 0)
    return _weighted(features, s[:, 0, 0] * jnp.sum(alpha * jax.nn.relu(h), axis=(1, 2)))


def layer_cam(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """LayerCAM (Jiang et al., TIP 2021, eqs. 6-8): M = relu(sum_k relu(g_k) A_k) at each pixel."""
    g = gradient(head, features, label)
    return jax.nn.relu(jnp.sum(jax.nn.relu(g) * features, axis=-1))


def mean_features(head: Head, features: Features, label: Int[Array, "b"]) -> Maps:
    """The mean over channels, which knows neither label nor classifier: a floor for the others."""
    del head, label
    return jnp.mean(features, axis=-1)


def pick(scores: Float[Array, "b *_ k"], label: Int[Array, "b"]) -> Float[Array, "b *_"]:
    """The entries of the last axis that belong to each image's label."""
    index = label.reshape(-1, *[1] * (scores.ndim - 1))
    return jnp.take_along_axis(scores, index, axis=-1)[..., 0]


def localized(
    logits: Float[Array, "b k"], label: Int[Array, "b"] | None, object_class: int | None
) -> Int[Array, "b"]:
    """The class whose map counts: the object's, if there is one, else the image's or predicted."""
    if object_class is not None:
        return jnp.full(len(logits), object_class)
    return jnp.argmax(logits, axis=-1) if label is None else label


def gradient(head: Head, features: Features, label: Int[Array, "b"]) -> Features:
    """g = dY_c / dA, the gradient of each image's class score at its features."""
    return jax.grad(lambda a: jnp.sum(pick(head.score(a), label)))(features)


def bounded(
    readout: Callable[[Head, Features, Int[Array, "b"]], Maps],
    head: Head,
    features: Features,
    label: Int[Array, "b"],
) -> Maps:
    """A read-out as maps in [0, 1] whose value one half is the border of the object.

    The object is where the map of `label` exceeds those of all other classes, or, for Deep MIL,
    where its attention exceeds 1 / (classes h w): how the max-min paper's baselines become masks.
    The difference m is only scaled, 1/2 + m / (2 max|m|), so that resizing a map of two classes and
    cutting it at one half is the same as resizing the class maps and comparing them. Of equal maps
    the lower class wins, as by argmax.
    """
    classes = head.score(features).shape[-1]
    maps = [readout(head, features, jnp.full_like(label, k)) for k in range(classes)]
    maps = jnp.stack(maps, axis=-1)
    own, of_label = pick(maps, label), label[:, None, None]
    if readout is deep_mil:
        margin, wins = own - 1 / (classes * own[0].size), of_label == 0
    else:
        others = jnp.where(jnp.arange(classes) == of_label[..., None], -jnp.inf, maps)
        margin, wins = own - jnp.max(others, axis=-1), of_label == jnp.argmax(maps, axis=-1)
    largest = jnp.max(jnp.abs(margin), axis=(1, 2), keepdims=True)
    scaled = 0.5 + 0.5 * margin / jnp.where(largest > 0, largest, 1)
    return jnp.where(margin == 0, 0.5 + jnp.where(wins, TIED, -TIED), scaled)


def readout(name: str) -> Callable[[Head, Features, Int[Array, "b"]], Maps]:
    """The read-out called `name`."""
    readouts = [
        cam,
        deep_mil,
        grad_cam,
        grad_cam_pp,
        grad_cam_pp_published,
        layer_cam,
        mean_features,
    ]
    names = {function.__name__: function for function in readouts}
    choices.require("read-out", name, names)
    return names[name]


def _weighted(features, weights):
    return jax.nn.relu(jnp.einsum("bhwc,bc->bhw", features, weights))
