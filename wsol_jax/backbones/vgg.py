"""VGG16 (Simonyan & Zisserman, ICLR 2015) in the form of weakly supervised localization.

The last two poolings are left out and a 3x3 convolution to 1024 channels follows, so a 224² image
has 28² features. Modules carry torchvision's names, counted without the missing poolings.
"""

import functools
import re
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from wsol_jax import convolution

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512, 512, 512, 512))
EXTRA_TENSORS = ("classifier.", "pre_logits.", "head.")  # ImageNet's: torchvision's name, timm's
NEW_TENSORS = ("conv6.weight", "conv6.bias")  # in no ImageNet checkpoint

_LATER = re.compile(r"^features\.(2[4-9])\.")  # torchvision's index of the fourth pooling is 23
_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class VGG16(nn.Module):
    """Feature levels: image (b H W 3) -> (64 at H, 128 at H/2, 256 at H/4, 1024 at H/8).

    19,434,304 parameters.

    Attributes:
      width: channels of the first stage; every other width follows.
      dtype: of the computation; parameters stay float32.
      axis_name: not used, there are no batch statistics.
    """

    width: int = 64
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        del keys, train  # nothing is drawn, and evaluation is no different
        conv = functools.partial(
            convolution.Conv,
            kernel_size=(3, 3),
            padding=1,
            dtype=self.dtype,
            kernel_init=_kaiming,
        )
        x, index, levels = image, 0, []
        for stage, channels in enumerate(STAGES):
            if stage:
                x = convolution.max_pool(x, window=2, stride=2, padding=0)
                index += 1
            for width in channels:
                x = nn.relu(conv(width * self.width // 64, name=f"features.{index}")(x))
                index += 2  # the ReLU counts as a module of its own
            levels.append(x)
        levels[-1] = nn.relu(conv(1024 * self.width // 64, name="conv6")(x))
        return tuple(levels)


def renamed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A torchvision checkpoint under the names here: the fourth pooling is not counted."""
    return {_LATER.sub(lambda m: f"features.{int(m[1]) - 1}.", k): v for k, v in tensors.items()}
