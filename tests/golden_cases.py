"""Recorded outputs of the original code: where they lie, and the weights they were made with.

A case is a folder with `case.json` (what was run) and `case.npz` (what came out). The cases are
those in `tests/golden`, or in the folder named by the environment variable WSOL_GOLDEN.
"""

import functools
import json
import os
import pathlib
import re
import zlib
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """One recorded run: its name, its description and its tensors in PyTorch layout."""

    name: str
    spec: dict
    arrays: dict[str, np.ndarray]

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The recorded model's tensors, but for its constants."""
        constant = self.spec.get("fixed_tensors", {})
        return {k: v for k, v in self.spec["state"].items() if k not in constant}

    def state(self, prefix: str = "") -> dict[str, np.ndarray]:
        """The weights of the recorded model whose names start with `prefix`, which is cut off."""
        shapes, seed = self.shapes, self.spec["seed"]
        return {k[len(prefix) :]: draw(k, shapes, seed) for k in shapes if k.startswith(prefix)}

    def strides(self, name: str) -> tuple[slice, ...]:
        """The slices of the full tensor that were kept under `name`."""
        steps = self.spec["tensors"][name].get("slice_strides")
        return tuple(slice(None, None, s) for s in steps) if steps else (...,)


def root() -> pathlib.Path:
    """The folder of the recorded cases."""
    return pathlib.Path(os.environ.get("WSOL_GOLDEN", pathlib.Path(__file__).parent / "golden"))


def cases(*prefixes: str) -> list[Case]:
    """Every recorded case whose name starts with one of `prefixes`, by name."""
    folders = sorted(p.parent for p in root().glob("*/case.json"))
    if not folders:
        raise FileNotFoundError(f"no recorded cases in {root()}; see WSOL_GOLDEN")
    return [_load(folder) for folder in folders if folder.name.startswith(prefixes)]


@functools.cache
def inputs() -> tuple[np.ndarray, np.ndarray]:
    """The two recorded images, normalised, float64 (2 224 224 3), and their labels."""
    arrays = np.load(root() / "inputs.npz")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((arrays["images"] / 255 - mean) / std), arrays["labels"]


@functools.cache
def masks() -> np.ndarray:
    """The masks of the two recorded images, 0 and 1 (2 224 224)."""
    return (np.load(root() / "inputs.npz")["masks"] > 0).astype(np.uint8)


def draw(name: str, shapes: dict[str, list[int]], seed: int) -> np.ndarray:
    """A tensor drawn from its name and those of the others: no weights have to be stored."""
    parent = name.rpartition(".")[0]
    sibling = shapes.get(f"{parent}.weight" if parent else "weight")
    is_norm = sibling is not None and len(sibling) == 1
    damping = _damping(name, is_norm, shapes)
    return _draw(name, tuple(shapes[name]), seed, is_norm=is_norm, damping=damping)


@functools.cache  # the cases share their encoders
def _draw(
    name: str, shape: tuple[int, ...], seed: int, *, is_norm: bool, damping: float
) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_mean":
        value = 0.1 * rng.standard_normal(shape)
    elif kind == "running_var" or (kind == "weight" and is_norm):
        value = rng.uniform(0.5, 1.5, shape)
    elif kind in ("pos_embed", "cls_token", "loc_token", "loc_embed", "dist_token"):
        value = 0.02 * rng.standard_normal(shape)
    elif kind == "bias":
        value = (0.1 if is_norm else 0.05) * rng.standard_normal(shape)
    else:
        value = np.sqrt(2.0 / np.prod(shape[1:])) * rng.standard_normal(shape)
    drawn = np.asarray(damping * value, np.float32)
    drawn.flags.writeable = False
    return drawn


def _damping(name: str, is_norm: bool, shapes: dict) -> float:
    """Factor that keeps the activations of deep random networks moderate."""
    last_norm = re.search(r"layer\d+\.\d+\.bn3\.(weight|bias)$", name)
    second_norm = re.search(r"layer\d+\.\d+\.bn2\.(weight|bias)$", name)
    block = name.rpartition(".")[0][:-1]
    if last_norm or (second_norm and f"{block}3.weight" not in shapes):
        return 0.3
    if re.search(r"blocks\.\d+\.(attn\.proj|mlp\.fc2)\.weight$", name):
        return 0.5
    head = r"(classification_head\d?|pixel_wise_classification_head\.conv4)\."
    if re.match(head, name) and name.endswith("weight") and not is_norm:
        return 0.25
    return 1.0


def _load(folder: pathlib.Path) -> Case:
    spec = json.loads((folder / "case.json").read_text())
    return Case(folder.name, spec, dict(np.load(folder / "case.npz")))
