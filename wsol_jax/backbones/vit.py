"""Vision transformers (Dosovitskiy et al., ICLR 2021) whose patch tokens are the feature map.

One module serves DeiT, DeiT-III, plain ViT and DINOv2 models with their register tokens, layer
scale and gated MLPs; `VARIANTS` holds sizes and token layouts by timm's names. Modules carry timm's
names too, so its checkpoints load by name, and torchvision's once they are `renamed`.
"""

import re
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from wsol_jax import choices, convolution, ops

EXTRA_TENSORS = ("head.", "heads.", "mask_token")  # of a checkpoint, and in no encoder
NEW_TENSORS = ("loc_token", "loc_embed")
EPSILON = 1e-6  # of every layer normalisation
MASKED_BLOCKS = 3  # of a model with a location token, the last
TORCHVISION = (  # its names of tensors, and timm's
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+\.)ln_(\d)\.", r"\1norm\2."),
    (r"^(blocks\.\d+\.)self_attention\.in_proj_", r"\1attn.qkv."),
    (r"^(blocks\.\d+\.)self_attention\.out_proj\.", r"\1attn.proj."),
    (r"^(blocks\.\d+\.mlp\.)(?:0|linear_1)\.", r"\1fc1."),
    (r"^(blocks\.\d+\.mlp\.)(?:3|linear_2)\.", r"\1fc2."),
)

_normal = nn.initializers.truncated_normal(0.02)
_DINOV2 = {"patch": 14, "grid": (37, 37), "layer_scale": True}
_REGISTERS = {**_DINOV2, "registers": 4, "prefix_position": False}
_DEIT3 = {"layer_scale": True, "prefix_position": False}
_GIANT = {"depth": 40, "hidden": 4096, "gated": True}
VARIANTS = {
    "deit_tiny_patch16_224": {"width": 192, "heads": 3},
    "deit_small_patch16_224": {"width": 384, "heads": 6},
    "deit_base_patch16_224": {"width": 768, "heads": 12},
    "deit3_small_patch16_224": {"width": 384, "heads": 6, **_DEIT3},
    "deit3_medium_patch16_224": {"width": 512, "heads": 8, **_DEIT3},
    "deit3_base_patch16_224": {"width": 768, "heads": 12, **_DEIT3},
    "deit3_large_patch16_224": {"width": 1024, "heads": 16, "depth": 24, **_DEIT3},
    "vit_small_patch16_224": {"width": 384, "heads": 6},
    "vit_base_patch16_224": {"width": 768, "heads": 12},
    "vit_large_patch16_224": {"width": 1024, "heads": 16, "depth": 24},
    "vit_small_patch14_dinov2": {"width": 384, "heads": 6, **_DINOV2},
    "vit_base_patch14_dinov2": {"width": 768, "heads": 12, **_DINOV2},
    "vit_large_patch14_dinov2": {"width": 1024, "heads": 16, "depth": 24, **_DINOV2},
    "vit_giant_patch14_dinov2": {"width": 1536, "heads": 24, **_GIANT, **_DINOV2},
    "vit_small_patch14_reg4_dinov2": {"width": 384, "heads": 6, **_REGISTERS},
    "vit_base_patch14_reg4_dinov2": {"width": 768, "heads": 12, **_REGISTERS},
    "vit_large_patch14_reg4_dinov2": {"width": 1024, "heads": 16, "depth": 24, **_REGISTERS},
    "vit_giant_patch14_reg4_dinov2": {"width": 1536, "heads": 24, **_GIANT, **_REGISTERS},
}


class ViT(nn.Module):
    """Image (b H W 3) -> one feature level, the normalised patch tokens (b H/patch W/patch width).

    With a location token there is a level before it: the location maps (b H/patch W/patch 3).

    Attributes:
      width: of a token.
      heads: of the attention.
      depth: number of blocks.
      patch: side of a patch; both sides of an image must be multiples of it.
      grid: patches along height and width that the position embedding was trained with. For images
        of another size it is resized, bicubic and antialiased, as timm does.
      hidden: width inside the MLP, 4 times that of a token unless given.
      registers: tokens between the class token and the patches, without position.
      prefix_position: the class token has a position too.
      layer_scale: each branch is scaled per channel before it is added.
      gated: the MLP is W3 (silu(W1 x) * W2 x).
      location: a token after the patches whose attention masks that of the last three blocks, as in
        SAT (`location.py`).
      drop_path: rate of stochastic depth in the last block; it grows linearly from 0.
      dtype: of the computation; parameters and normalisations stay float32.
      axis_name: not used, there are no batch statistics.
    """

    width: int
    heads: int
    depth: int = 12
    patch: int = 16
    grid: tuple[int, int] = (14, 14)
    hidden: int = 0
    registers: int = 0
    prefix_position: bool = True
    layer_scale: bool = False
    gated: bool = False
    location: bool = False
    drop_path: float = 0.1
    dtype: jnp.dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        keys: Key[Array, "b"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "b h w _"], ...]:
        x, (h, w) = self._embed(image)
        masks = []
        block_keys = ops.split_keys(keys, self.depth)
        for index in range(self.depth):
            block = Block(
                heads=self.heads,
                hidden=self.hidden or 4 * self.width,
                layer_scale=self.layer_scale,
                gated=self.gated,
                location=self.location and index >= self.depth - MASKED_BLOCKS,
                drop_path=self.drop_path * index / max(self.depth - 1, 1),
                dtype=self.dtype,
                name=f"blocks.{index}",
            )
            x, mask = block(x, block_keys[index], train)
            if block.location:
                masks.append(mask)
        x = _norm("norm")(x)

        def patches(tokens):
            first = 1 + self.registers
            return tokens[:, first : first + h * w].reshape(-1, h, w, tokens.shape[-1])

        features = patches(x)
        return (patches(jnp.stack(masks, -1)), features) if self.location else (features,)

    def _embed(self, image):
        """All tokens: class, registers, patches, location; and the patches' rows and columns."""
        _check(image.shape, self.patch)
        embed = convolution.Conv(
            self.width,
            (self.patch, self.patch),
            (self.patch, self.patch),
            padding="VALID",
            dtype=self.dtype,
            name="patch_embed.proj",
        )
        x = embed(image)
        b, h, w, width = x.shape
        positions = self.param("pos_embed", _normal, (1, self._positions(), width))
        prefix, own = jnp.split(positions, [self._positions() - self.grid[0] * self.grid[1]], 1)
        own = own.reshape(1, *self.grid, width)
        if (h, w) != self.grid:
            own = jax.image.resize(own, (1, h, w, width), "cubic")
        first = self.param("cls_token", _normal, (1, 1, width))
        tokens = [first + prefix if self.prefix_position else first]
        if self.registers:
            tokens.append(self.param("reg_token", _normal, (1, self.registers, width)))
        tokens.append((x + own).reshape(b, h * w, width))
        if self.location:
            token, position = (
                self.param(name, _normal, (1, 1, width)) for name in ("loc_token", "loc_embed")
            )
            tokens.append(token + position)
        return jnp.concatenate(
            [jnp.broadcast_to(t, (b, *t.shape[1:])).astype(x.dtype) for t in tokens], axis=1
        ), (h, w)

    def _positions(self):
        return self.grid[0] * self.grid[1] + int(self.prefix_position)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); see `ViT` for the attributes."""

    heads: int
    hidden: int
    layer_scale: bool
    gated: bool
    location: bool
    drop_path: float
    dtype: jnp.dtype | None

    @nn.compact
    def __call__(self, x, keys, train):
        first, second = ops.split_keys(keys, 2)
        y, mask = self._attention(_norm("norm1")(x))
        x = self._add(x, y, "ls1.gamma", first, train)
        y = self._mlp(_norm("norm2")(x))
        return self._add(x, y, "ls2.gamma", second, train), mask

    def _attention(self, x):
        """Attention, and what the last token, at a sigmoid, makes of every other, as in SAT."""
        b, n, c = x.shape
        qkv = self._dense(3 * c, "attn.qkv")(x).reshape(b, n, 3, self.heads, -1)
        query, key, value = jnp.transpose(qkv, (2, 0, 3, 1, 4))  # each b h n d
        scores = jnp.einsum("bhnd,bhmd->bhnm", query * query.shape[-1] ** -0.5, key)
        scores = ops.wide(scores)
        weights, mask = jax.nn.softmax(scores), None
        if self.location:
            mask = jax.nn.sigmoid(jnp.mean(scores[:, :, -1], axis=1))
            weights *= mask[:, None, None]  # the rows no longer add up to 1, as released
        y = jnp.einsum("bhnm,bhmd->bhnd", weights.astype(value.dtype), value)
        return self._dense(c, "attn.proj")(jnp.moveaxis(y, 1, 2).reshape(b, n, c)), mask

    def _mlp(self, x):
        width = x.shape[-1]
        if self.gated:
            gate, x = jnp.split(self._dense(2 * self.hidden, "mlp.fc1")(x), 2, axis=-1)
            x = nn.silu(gate) * x
        else:
            x = nn.gelu(self._dense(self.hidden, "mlp.fc1")(x), approximate=False)
        return self._dense(width, "mlp.fc2")(x)

    def _add(self, x, y, name, keys, train):
        if self.layer_scale:
            y *= self.param(name, nn.initializers.constant(1e-5), y.shape[-1:]).astype(y.dtype)
        if train and self.drop_path:
            y = ops.drop_path(y, keys, self.drop_path)
        return x + y

    def _dense(self, features, name):
        return nn.Dense(features, kernel_init=_normal, dtype=self.dtype, name=name)


def build(variant: str, **keywords) -> ViT:
    """The transformer that timm calls `variant`; keywords are those of `ViT`."""
    choices.require("ViT variant", variant, VARIANTS)
    return ViT(**{**VARIANTS[variant], **keywords})


def renamed(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint of torchvision's under timm's names; any other stays as it is."""
    return {_timm_name(name): value for name, value in tensors.items()}


def _timm_name(name):
    for pattern, replacement in TORCHVISION:
        name = re.sub(pattern, replacement, name)
    return name


def _norm(name):
    return nn.LayerNorm(epsilon=EPSILON, name=name)


def _check(shape, patch):
    if shape[1] % patch or shape[2] % patch:
        nearest = [max(patch, round(n / patch) * patch) for n in shape[1:3]]
        raise ValueError(
            f"an image of {shape[1]} x {shape[2]} does not divide into patches of {patch}; "
            f"the nearest that does is {nearest[0]} x {nearest[1]}"
        )
