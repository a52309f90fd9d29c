"""The stains of histology images, and images re-stained in the style of another one.

Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009,
as torchstain computes it; Reinhard et al., "Color transfer between images", IEEE CG&A 2001.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

GLASS = 240  # grey value of the light that glass lets through: density 0
TISSUE = 0.15  # least density of tissue, in every channel: Macenko's beta
EXTREMES = (1.0, 99.0)  # percentiles of the tissue's directions that are stains: Macenko's alpha
STRONGEST = 99.0  # percentile of a stain's concentrations that is its strength

# Ours: below these a tile is blank, or has one stain. The least of the 473 GlaS and CAMELYON16
# images at hand are 0.07 and 0.022; one stain, in whole grey values, deviates by 0.002 to 0.006.
LEAST_TISSUE = 0.01  # share of the pixels
LEAST_DEVIATION = 0.015  # of the tissue's densities from their main direction

# Reinhard et al.: light in the three cones of the eye, and the axes l, alpha, beta of its log10.
CONES = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
AXES = np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]]) / np.sqrt([[3], [6], [2]])


class Stains(NamedTuple):
    """The two stains of each image, NaN where they could not be estimated.

    Attributes:
      matrix: densities (b 2 3) of haematoxylin, then eosin, in red, green and blue, of length 1.
      strength: (b 2), the `STRONGEST` percentile of the concentrations of each.
      estimated: (b), False for tiles that are blank or have one stain.
    """

    matrix: Float[Array, "b 2 3"]
    strength: Float[Array, "b 2"]
    estimated: Bool[Array, "b"]


class Colours(NamedTuple):
    """Mean and standard deviation (b 3) of l, alpha and beta over the pixels of each image."""

    mean: Float[Array, "b 3"]
    deviation: Float[Array, "b 3"]


def estimate(images: UInt8[Array, "b H W 3"]) -> Stains:
    """The stains of each image (Macenko et al.).

    The optical densities -log((I + 1) / 240) of tissue lie near a plane, that of their two main
    directions. The extreme directions in it are the stains, haematoxylin the one with more red;
    concentrations C are the least squares solution of density = C matrix.
    """
    density = _density(images)
    tissue = jnp.all(density >= TISSUE, axis=-1)
    plane, deviation = _main_plane(density, tissue)
    matrix = _extremes(density, tissue, plane)
    strength = jnp.percentile(_concentrations(density, matrix), STRONGEST, axis=(1, 2))
    estimated = (tissue.mean(axis=(1, 2)) >= LEAST_TISSUE) & (deviation >= LEAST_DEVIATION)
    estimated &= jnp.all(strength > 0, axis=1)
    return Stains(
        matrix=jnp.where(estimated[:, None, None], matrix, jnp.nan),
        strength=jnp.where(estimated[:, None], strength, jnp.nan),
        estimated=estimated,
    )


def macenko(images: UInt8[Array, "b H W 3"], style: Stains) -> UInt8[Array, "b H W 3"]:
    """The images with the two stains of `style`, each at its strength there.

    240 exp(-density) is cut to a whole number up to 255, as in torchstain. An image whose stains
    cannot be estimated stays as it is.

    Args:
      style: of one image, or of as many as there are images.
    """
    own = estimate(images)
    scale = jnp.expand_dims(style.strength / own.strength, (1, 2))
    scaled = scale * _concentrations(_density(images), own.matrix)
    restained = jnp.matmul(scaled, style.matrix[:, None], precision="highest")
    return _where(own.estimated, GLASS * jnp.exp(-restained), images)


def colours(images: UInt8[Array, "b H W 3"]) -> Colours:
    """The colours of each image (Reinhard et al.)."""
    values = _opponents(images)
    return Colours(values.mean(axis=(1, 2)), values.std(axis=(1, 2)))


def reinhard(images: UInt8[Array, "b H W 3"], style: Colours) -> UInt8[Array, "b H W 3"]:
    """The images with the mean and the deviation of `style` in l, alpha and beta, rounded.

    An image whose stains cannot be estimated stays as it is, as in `macenko`.

    Args:
      style: of one image, or of as many as there are images.
    """
    own, values = colours(images), _opponents(images)
    scale = jnp.expand_dims(style.deviation / own.deviation, (1, 2))
    scaled = scale * (values - jnp.expand_dims(own.mean, (1, 2)))
    logarithms = _transform(scaled + jnp.expand_dims(style.mean, (1, 2)), np.linalg.inv(AXES))
    shades = 255 * _transform(10**logarithms, np.linalg.inv(CONES))
    return _where(estimate(images).estimated, jnp.rint(shades), images)


def distance(
    one: Float[np.ndarray, "*b 2 3"], other: Float[np.ndarray, "*#b 2 3"]
) -> Float[np.ndarray, "*b"] | np.floating:
    """Angle between the stains of two matrices in degrees, the mean of the two stains' angles."""
    sine = np.linalg.norm(np.cross(one, other), axis=-1)
    cosine = np.sum(one * other, axis=-1)
    return np.degrees(np.arctan2(sine, cosine)).mean(axis=-1)


def _density(images):
    """Optical densities (b H W 3)."""
    return -jnp.log((images.astype(jnp.float32) + 1) / GLASS)


def _main_plane(density, tissue):
    """The two main directions (b 3 2) of the tissue, and its deviation along the second."""
    weights = tissue / jnp.maximum(tissue.sum(axis=(1, 2), keepdims=True), 1)
    mean = jnp.einsum("bhw,bhwc->bc", weights, density, precision="highest")
    centred = density - jnp.expand_dims(mean, (1, 2))
    weighted = weights[..., None] * centred
    # Rows first: one sum over all pixels would round by more than the third direction needs.
    rows = jnp.einsum("bhwc,bhwd->bhcd", weighted, centred, precision="highest")
    variances, directions = jnp.linalg.eigh(rows.sum(axis=1))
    along = jnp.einsum("bc,bcd->bd", mean, directions, precision="highest")
    directions *= jnp.where(along < 0, -1, 1)[:, None]  # so that no angle of tissue is near 180
    return directions[..., :0:-1], jnp.sqrt(jnp.maximum(variances[:, 1], 0))


def _extremes(density, tissue, plane):
    """The directions (b 2 3) at both ends of the tissue, haematoxylin first."""
    along, across = jnp.moveaxis(jnp.matmul(density, plane[:, None], precision="highest"), -1, 0)
    angles = jnp.where(tissue, jnp.arctan2(across, along), jnp.nan)
    ends = jnp.nanpercentile(angles, jnp.asarray(EXTREMES), axis=(1, 2))
    turns = jnp.stack([jnp.cos(ends), jnp.sin(ends)])
    matrix = jnp.einsum("bcd,dsb->bsc", plane, turns, precision="highest")
    first = (matrix[:, 0, 0] > matrix[:, 1, 0])[:, None, None]
    return jnp.where(first, matrix, matrix[:, ::-1])


def _concentrations(density, matrix):
    """Of both stains (b H W 2) in every pixel."""
    return jnp.matmul(density, jnp.linalg.pinv(matrix)[:, None], precision="highest")


def _opponents(images):
    """l, alpha and beta (b H W 3); a grey value of 0, which has no logarithm, counts as 1."""
    return _transform(jnp.log10(_transform(jnp.maximum(images, 1) / 255, CONES)), AXES)


def _transform(values, matrix):
    return jnp.matmul(values, jnp.asarray(matrix.T, jnp.float32), precision="highest")


def _where(estimated, shades, images):
    restained = jnp.clip(shades, 0, 255)
    return jnp.where(jnp.expand_dims(estimated, (1, 2, 3)), restained, images).astype(jnp.uint8)
