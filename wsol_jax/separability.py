"""Class separability J: how far apart foreground and background lie in the encoder's features.

PixelCAM, appendix D, equations 4 to 6, and Tables 4 and 5: between-class over within-class scatter
of the features of one image, averaged over the images of a split.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, UInt8

from wsol_jax import metrics, ops, pixel_labels

LEAST = 1 / 255  # of an interpolated mask is foreground: not zero in eight bits


@flax.struct.dataclass
class Separability(metrics.Metric):
    """J of every image, and its mean over the images of each class.

    Args:
      values: J of the images so far (n), NaN where it is undefined.
      labels: their classes (n).
      valid: False for rows that only fill a batch (n).
    """

    values: Any
    labels: Any
    valid: Any

    @classmethod
    def empty(cls) -> "Separability":
        """Of no image."""
        return cls(values=np.zeros(0), labels=np.zeros(0, int), valid=np.zeros(0, bool))

    @classmethod
    def from_model_output(
        cls,
        features: Float[Array, "b h w c"],
        truth: UInt8[Array, "b H W"],
        valid: Bool[Array, "b"],
        label: Integer[Array, "b"],
        **_: Any,
    ) -> "Separability":
        """J of one batch; truth is 0 background, 1 foreground, 255 ignored, of any size."""
        between, within = scatter(features, truth_of_features(truth, features.shape[1:3]))
        vary = within > jnp.finfo(within.dtype).eps * between  # by more than rounding
        return cls(jnp.where(vary, between / within, jnp.nan), label, valid)

    def merge(self, other: "Separability") -> "Separability":
        """The images of both, on the host: it cannot be traced."""
        return jax.tree.map(lambda x, y: np.concatenate(jax.device_get((x, y))), self, other)

    def compute(self) -> float:
        """Mean over the images where J is defined; NaN where there are none."""
        return self.summary()["all"]

    def summary(self) -> dict[str, Any]:
        """Means by class index and over "all" images, how many were skipped, and J of each.

        An image is skipped that lacks foreground or background, or whose features do not vary
        within them.
        """
        checked = self.merge(self.empty())
        values, labels = checked.values[checked.valid], checked.labels[checked.valid]
        return {
            **{str(label): _mean(values[labels == label]) for label in np.unique(labels)},
            "all": _mean(values),
            "skipped": int(np.sum(np.isnan(values))),
            "per_image": {"labels": labels.tolist(), "values": values.round(6).tolist()},
        }


def truth_of_features(
    truth: UInt8[Array, "b H W"], shape: tuple[int, int]
) -> UInt8[Array, "b h w"]:
    """Truth at the size of the features, as in the authors' scripts.

    The mask is interpolated bilinearly, without antialiasing, and foreground is what is not zero in
    eight bits: any of the middle four pixels where 8 x 8 become one. A feature is unannotated where
    any of these pixels is.
    """
    foreground, ignored = (
        ops.resize_maps((truth == value).astype(jnp.float32), shape) >= LEAST
        for value in (1, pixel_labels.UNANNOTATED)
    )
    return jnp.where(ignored, pixel_labels.UNANNOTATED, foreground).astype(jnp.uint8)


def scatter(
    features: Float[Array, "b h w c"], truth: UInt8[Array, "b h w"]
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """Traces of the between-class and the within-class scatter of each image's features x.

    tr(S_B) = sum_i n_i |m_i - m|² = n_0 n_1 / (n_0 + n_1) |m_1 - m_0|² and tr(S_W) = sum_ij
    |x_ij - m_i|², where class i has the n_i features x_ij of mean m_i. The first is NaN of an image
    that lacks a class.

    Args:
      truth: 0 background, 1 foreground; others belong to neither.
    """
    x = ops.wide(features)
    background, foreground = truth == 0, truth == 1
    # Means before squares, and all as seen from one pixel, which changes no difference: features
    # that lie far from zero would lose theirs in float32.
    x = x - x[:, :1, :1]
    means = _mean_over(background, x), _mean_over(foreground, x)
    sizes = [jnp.sum(members, axis=(1, 2), dtype=x.dtype) for members in (background, foreground)]
    distance = jnp.sum(jnp.square(means[1] - means[0]), axis=(1, 2, 3))
    spread = jnp.square(x - jnp.where(foreground[..., None], means[1], means[0]))
    known = (background | foreground)[..., None]
    within = jnp.sum(jnp.where(known, spread, 0), axis=(1, 2, 3))
    return sizes[0] * sizes[1] / (sizes[0] + sizes[1]) * distance, within


def _mean_over(members, x):
    """Mean of x over the pixels that are members (b 1 1 c); NaN where there are none."""
    members = members.astype(x.dtype)
    sums = jnp.einsum("bhw,bhwc->bc", members, x, precision="highest")
    return (sums / jnp.sum(members, axis=(1, 2))[:, None])[:, None, None]


def _mean(values):
    """Mean of the values that are defined, NaN where none is."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")
