"""ResNet (He et al., CVPR 2016) in the stride-8 form of weakly supervised localization.

There layer3 and layer4 keep the resolution of layer2 (stride 1, no dilation), so a 224² image has
28² features. Modules carry torchvision's names, so its checkpoints load by name; so do those of the
deep stem, the form that the CSAIL scene parsing models (Zhou et al., CVPR 2017) were published in.
"""

import functools
import re
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from wsol_jax import batch_norm, choices, convolution

WSOL_STRIDES = (1, 2, 1, 1)
STANDARD_STRIDES = (1, 2, 2, 2)
_CONVOLUTION_BIAS = re.compile(r"^(layer\d\.\d+\.|)(?:conv(\d)|(downsample\.0))\.bias$")
EXTRA_TENSORS = ("fc.",)  # the ImageNet classifier of a checkpoint, which no encoder has

_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
    """Feature levels of a ResNet: image (b H W 3) -> (stem at H/2, layer1, ..., layer4).

    Attributes:
      blocks: residual blocks in each of the four layers.
      bottleneck: blocks of 1x1, 3x3, 1x1 convolutions (ResNet-50) instead of two 3x3 (ResNet-18).
      strides: stride of each layer's first block.
      stride_in: the bottleneck convolution with that stride: "conv2" (torchvision) or "conv1" (the
        original form). A checkpoint works only with the one it was trained with.
      width: channels of the stem; every other width follows.
      deep_stem: three 3x3 convolutions (CSAIL), the last of which doubles the channels, in place of
        one 7x7. ResNet-18 then has 11,324,992 parameters, not 11,176,512.
      dtype: of the computation; parameters and batch statistics stay float32.
      axis_name: devices that share batch statistics, under pmap.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    strides: tuple[int, int, int, int] = WSOL_STRIDES
    stride_in: str = "conv2"
    width: int = 64
    deep_stem: bool = False
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b _ _ _"], ...]:
        del keys  # nothing is drawn
        choices.require("stride_in", self.stride_in, ("conv1", "conv2"))
        conv = functools.partial(
            convolution.Conv,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=_kaiming,
        )
        norm = functools.partial(batch_norm.BatchNorm, axis_name=self.axis_name)
        x = image
        for number, (channels, kernel, stride) in enumerate(self._stem(), start=1):
            sizes, strides = (kernel, kernel), (stride, stride)
            x = conv(channels, sizes, strides, padding=kernel // 2, name=f"conv{number}")(x)
            x = nn.relu(norm(name=f"bn{number}")(x, train))
        levels = [x]
        x = convolution.max_pool(x, window=3, stride=2, padding=1)
        for layer, (blocks, stride) in enumerate(zip(self.blocks, self.strides, strict=True)):
            for block in range(blocks):
                x = Block(
                    channels=self.width * 2**layer,
                    stride=stride if block == 0 else 1,
                    bottleneck=self.bottleneck,
                    stride_in=self.stride_in,
                    conv=conv,
                    norm=norm,
                    name=f"layer{layer + 1}.{block}",
                )(x, train)
            levels.append(x)
        return tuple(levels)

    def _stem(self):
        """Channels, kernel and stride of each convolution before the pooling."""
        if not self.deep_stem:
            return [(self.width, 7, 2)]
        return [(self.width, 3, 2), (self.width, 3, 1), (2 * self.width, 3, 1)]


class Block(nn.Module):
    """relu(F(x) + shortcut(x)), the shortcut a 1x1 convolution where the shape changes."""

    channels: int
    stride: int
    bottleneck: bool
    stride_in: str
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b _ _ d"]:
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_in == "conv1" else (1, self.stride)
            y = self._unit(x, 1, self.channels, kernel=1, stride=first, train=train)
            y = self._unit(nn.relu(y), 2, self.channels, kernel=3, stride=second, train=train)
            y = self._unit(nn.relu(y), 3, 4 * self.channels, kernel=1, stride=1, train=train)
        else:
            y = self._unit(x, 1, self.channels, kernel=3, stride=self.stride, train=train)
            y = self._unit(nn.relu(y), 2, self.channels, kernel=3, stride=1, train=train)
        if x.shape != y.shape:
            strides = (self.stride, self.stride)
            x = self.conv(y.shape[-1], (1, 1), strides, padding=0, name="downsample.0")(x)
            x = self.norm(name="downsample.1")(x, train)
        return nn.relu(x + y)

    def _unit(self, x, number, channels, *, kernel, stride, train):
        """Convolution `number` of the block and its normalisation."""
        sizes, strides = (kernel, kernel), (stride, stride)
        x = self.conv(channels, sizes, strides, padding=kernel // 2, name=f"conv{number}")(x)
        return self.norm(name=f"bn{number}")(x, train)


def resnet18(**keywords) -> ResNet:
    """ResNet-18; the keywords are those of `ResNet`."""
    return ResNet(**{"blocks": (2, 2, 2, 2), "bottleneck": False, **keywords})


def resnet50(**keywords) -> ResNet:
    """ResNet-50: 23,508,032 parameters; the keywords are those of `ResNet`."""
    return ResNet(**{"blocks": (3, 4, 6, 3), "bottleneck": True, **keywords})


def renamed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint whose normalisations are gone, folded into biases of the convolutions, as usual.

    Such a bias becomes that of an identity normalisation; any other checkpoint stays as it is, also
    one whose convolutions have biases beside their normalisations.
    """
    full = {}
    for name, value in tensors.items():
        norm = _CONVOLUTION_BIAS.sub(_norm_of, name)
        if norm in tensors:
            norm = name
        full[norm] = value
        if norm != name:
            module, like = norm.removesuffix(".bias"), np.ones_like(value)
            full |= {f"{module}.weight": like, f"{module}.running_mean": 0 * like}
            full[f"{module}.running_var"] = like * np.float32(1 - batch_norm.BatchNorm.epsilon)
    return full


def _norm_of(match):
    block, convolution, _ = match.groups()
    return f"{block}downsample.1.bias" if convolution is None else f"{block}bn{convolution}.bias"
