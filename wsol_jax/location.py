"""The mask of a transformer's location token, and what SAT asks of it (Wu et al., ICCV 2023)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from wsol_jax import losses

AREA = 0.35  # share of the image that the object covers, as released

# The released smoothing of the mask: a Gaussian over 3 x 3 patches, zero outside the map.
CORNER, EDGE, CENTRE = 0.002628462, 0.046011604, 0.8054397
SMOOTHING = ((CORNER, EDGE, CORNER), (EDGE, CENTRE, EDGE), (CORNER, EDGE, CORNER))


def require(encoder: Any) -> None:
    """Raises ValueError where an encoder has no location token."""
    if not getattr(encoder, "location", False):
        raise ValueError(
            "SAT needs a location token; pass --config.backbone.location=True with a ViT backbone"
        )


def terms(
    maps: Float[Array, "b h w"], valid: Bool[Array, "b"], area: float = AREA
) -> tuple[losses.Distance, losses.Ratio]:
    """|mean m - area|, the mean being that of the batch, and mean s (1 - s), s the smoothed m."""
    smooth = smoothed(maps)
    covered = losses.mean(jnp.mean(maps, axis=(1, 2)), valid)
    undecided = losses.mean(jnp.mean(smooth * (1 - smooth), axis=(1, 2)), valid)
    return losses.Distance(covered, area), undecided


def smoothed(maps: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Maps under `SMOOTHING`; they shrink at the border, where zeros are mixed in."""
    kernel = jnp.asarray(SMOOTHING, maps.dtype)[..., None, None]
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    return jax.lax.conv_general_dilated(maps[..., None], kernel, (1, 1), "SAME", **options)[..., 0]
