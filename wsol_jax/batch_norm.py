"""Batch normalisation with PyTorch's bookkeeping, synchronised over devices.

Flax keeps the biased variance; the published models keep the unbiased one, which moves the running
statistics by n / (n - 1). Statistics are float32 (or wider) whatever the features are.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsol_jax import ops


class BatchNorm(nn.Module):
    """y = scale (x - mean) / sqrt(var + epsilon) + bias, over all axes but the last.

    In training, mean and (biased) var are those of the batch over every device of `axis_name`, and
    the running statistics move by `momentum` towards them, with the unbiased variance. The
    collection "calibration", where it is mutable, receives the mean and mean square of the input,
    and epsilon.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool = False) -> Float[Array, "*b c"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if self.is_mutable_collection("calibration") and not self.is_initializing():
            self.variable("calibration", "moments", lambda: self._moments(x))
        if not train or self.is_initializing():
            return _normalize(x, mean.value, var.value, scale, bias, self.epsilon)
        batch_mean, batch_var, count = self._statistics(x)
        mean.value += self.momentum * (batch_mean - mean.value)
        var.value += self.momentum * (batch_var * count / max(count - 1, 1) - var.value)
        return _normalize(x, batch_mean, batch_var, scale, bias, self.epsilon)

    def _statistics(self, x):
        """Mean, biased variance and number of samples per channel, over all devices."""
        wide = ops.wide(x)
        axes = tuple(range(x.ndim - 1))
        mean = self._average(jnp.mean(wide, axes))
        # The variance is least at the mean, so its derivative by the mean, a sum over everything,
        # is 0: do not compute it.
        centre = jax.lax.stop_gradient(mean)
        var = self._average(jnp.mean(jnp.square(wide - centre), axes))
        devices = jax.lax.axis_size(self.axis_name) if self.axis_name else 1
        return mean, var, devices * (x.size // x.shape[-1])

    def _moments(self, x):
        wide = ops.wide(x)
        axes = tuple(range(x.ndim - 1))
        return jnp.mean(wide, axes), jnp.mean(jnp.square(wide), axes), self.epsilon

    def _average(self, values):
        return jax.lax.pmean(values, self.axis_name) if self.axis_name else values


def _normalize(x, mean, var, scale, bias, epsilon):
    """One multiplication and one addition per element, at least in float32."""
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return (x * factor + (bias - mean * factor)).astype(x.dtype)
