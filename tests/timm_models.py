"""What timm's transformers give, recorded, so that ours are compared with them where it is not.

    python tests/timm_models.py

writes the records again, with PyTorch and timm, of `requirements/bench.lock` or any later versions.
"""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "golden"
TENSORS = FOLDER / "timm_tensors.json"  # by variant: how many, and a digest of names and shapes
TOKENS = FOLDER / "timm_tokens.npz"  # by "kind/height x width": patch tokens (b n 24)
KINDS = {  # keywords of ours, keywords of timm's
    "deit": ({}, {}),
    "registers": (
        {"registers": 4, "prefix_position": False, "layer_scale": True},
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
    ),
    "deit3": (
        {"prefix_position": False, "layer_scale": True},
        {"no_embed_class": True, "init_values": 1e-6},
    ),
    "gated": ({"gated": True, "hidden": 40}, {"mlp_ratio": 80 / 24}),
}
SIZES = ((32, 32), (48, 24))


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of the names and shapes of tensors, in PyTorch's layout."""
    rows = sorted([name, *map(int, shape)] for name, shape in shapes.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Values for tensors, each from its own name."""
    return {
        name: np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.3, shape)
        for name, shape in shapes.items()
    }


def images(size: tuple[int, int]) -> np.ndarray:
    """Two images (2 h w 3)."""
    return np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)


def reference(kind: str):
    """A small transformer of timm's, with `drawn` tensors."""
    import torch
    from timm.models import vision_transformer

    options = dict(KINDS[kind][1])
    if kind == "gated":
        options |= {"mlp_layer": vision_transformer.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    model = vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=4,
        num_heads=3,
        num_classes=0,
        dynamic_img_size=True,
        **options,
    )
    values = drawn({name: tuple(value.shape) for name, value in model.state_dict().items()})
    model.load_state_dict({name: torch.as_tensor(value) for name, value in values.items()})
    return model.eval()


def tokens(kind: str, size: tuple[int, int]) -> np.ndarray:
    """The patch tokens that timm makes of `images`."""
    import torch

    model = reference(kind)
    with torch.no_grad():
        found = model.forward_features(torch.as_tensor(images(size).transpose(0, 3, 1, 2)))
    return found[:, model.num_prefix_tokens :].numpy()


def tensors(variant: str) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a model of timm's."""
    import timm
    import torch

    with torch.device("meta"):  # shapes without values
        model = timm.create_model(variant)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def main() -> None:
    """Writes the records."""
    import timm
    import torch

    from wsol_jax.backbones import vit

    known = {
        variant: {name: s for name, s in tensors(variant).items() if not name.startswith(extra)}
        for variant in vit.VARIANTS
        for extra in [tuple(vit.EXTRA_TENSORS)]
    }
    record = {
        "made_with": {"timm": timm.__version__, "torch": torch.__version__},
        "tensors": {name: [len(shapes), digest(shapes)] for name, shapes in known.items()},
    }
    TENSORS.write_text(json.dumps(record, indent=1) + "\n")
    recorded = {f"{kind}/{h} x {w}": tokens(kind, (h, w)) for kind in KINDS for h, w in SIZES}
    np.savez_compressed(TOKENS, **recorded)


if __name__ == "__main__":
    main()
