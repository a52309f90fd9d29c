"""Pretrained weights: torchvision and timm checkpoints into flax variables, strictly.

Checkpoints are `.safetensors` or `.npz` with PyTorch's names and layouts, from a path or the
Hugging Face hub; nothing is ever unpickled (`scripts/convert_weights.py` converts `.pth`). The
modules here carry PyTorch's names, so one rule translates them all.
"""

import hashlib
import json
import math
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from wsol_jax import ops

Variables = Mapping[str, Any]
HUB = r"([\w.-]+/[\w.-]+)(?::(.+))?"  # owner/model, or owner/model:file
LISTED = 12  # names of each kind in an error message
_FOLDED_VARIANCE = 1e-3  # how far the variance of an identity normalisation may be from 1


def load(source: str) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint, by PyTorch name, floating point as float32.

    The "module." that PyTorch's parallel training puts before every name is left out.

    Args:
      source: path of a `.safetensors` or `.npz` file, or a Hugging Face id `owner/model` or
        `owner/model:file` (the file is `model.safetensors` unless named).

    Raises:
      FileNotFoundError: there is no such file, and no such model, or the hub cannot be reached.
      ValueError: the file is a pickle, or damaged.
    """
    path = pathlib.Path(source)
    if path.suffix in (".pth", ".pt", ".bin"):
        raise ValueError(
            f"{source} is a pickle, which is never opened here; "
            f"run: python scripts/convert_weights.py {source} {path.with_suffix('.safetensors')}"
        )
    if not path.is_file():
        path = _download(source)
    try:
        tensors = _read(path)
    except Exception as error:  # whatever the two readers raise on a file that is not whole
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a whole .npz or .safetensors file "
            f"({error}); fetch it again"
        ) from error
    return {name.removeprefix("module."): _float32(value) for name, value in tensors.items()}


def described(source: str) -> dict[str, Any]:
    """What timm says of a checkpoint on the hub: its architecture, mean and std of its input.

    Nothing, where the source is a file, or the hub says nothing or cannot be reached.
    """
    match = re.fullmatch(HUB, source)
    if not match or pathlib.Path(source).is_file():
        return {}
    import huggingface_hub

    try:
        found = json.loads(
            pathlib.Path(huggingface_hub.hf_hub_download(match[1], "config.json")).read_text()
        )
    except (OSError, ValueError, huggingface_hub.errors.EntryNotFoundError):
        return {}
    known = {"architecture": found.get("architecture"), **(found.get("pretrained_cfg") or {})}
    return {key: known[key] for key in ("architecture", "mean", "std") if known.get(key)}


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """What tells the tensors of one checkpoint from all others, whatever its file is called."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        found.update(np.ascontiguousarray(tensors[name]))
    return found.hexdigest()[:16]


def assign(
    variables: Variables,
    tensors: Mapping[str, np.ndarray],
    *,
    extra: Iterable[str] = (),
    allow_missing: Iterable[str] = (),
) -> Variables:
    """`variables` with every leaf replaced by the tensor of the same name.

    Args:
      variables: flax collections "params" and "batch_stats".
      tensors: PyTorch names and layouts (convolutions O I H W, linear layers O I).
      extra: prefixes of names that may be present and are not used; BatchNorm's counters are not
        used either.
      allow_missing: PyTorch names that may be absent; these leaves keep their values.

    Raises:
      ValueError: listing missing, extra and misshapen tensors.
    """
    mismatch = mismatches(variables, tensors, extra=extra, allow_missing=allow_missing)
    if mismatch:
        raise ValueError(mismatch)
    result = flax.traverse_util.flatten_dict(dict(variables))
    for path, leaf in result.items():
        if (name := torch_name(path)) in tensors:
            result[path] = jnp.asarray(_flax_layout(tensors[name]), leaf.dtype)
    return flax.traverse_util.unflatten_dict(result)


def mismatches(
    variables: Variables,
    tensors: Mapping[str, np.ndarray],
    *,
    extra: Iterable[str] = (),
    allow_missing: Iterable[str] = (),
) -> str:
    """Why `assign` does not take the tensors; empty where it does. Of variables shapes suffice."""
    leaves = flax.traverse_util.flatten_dict(dict(variables))
    expected = {torch_name(path): _torch_shape(leaf.shape) for path, leaf in leaves.items()}
    given = {
        name: value.shape
        for name, value in tensors.items()
        if not name.startswith(tuple(extra)) and not name.endswith(".num_batches_tracked")
    }
    missing = [name for name in expected if name not in given and name not in set(allow_missing)]
    surplus = [name for name in given if name not in expected]
    misshapen = [
        f"{name} {shape}, expected {expected[name]}{_grid(name, shape)}"
        for name, shape in given.items()
        if name in expected and shape != expected[name]
    ]
    lines = ["is it one of another architecture?"]
    for title, names in [("missing", missing), ("extra", surplus), ("misshapen", misshapen)]:
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            lines.append(f"  {title} ({len(names)}): {', '.join(names[:LISTED])}{more}")
    return "\n".join(lines) if len(lines) > 1 else ""


def is_folded(variables: Variables) -> bool:
    """Whether every BatchNorm was folded into its convolution: the identity but for its bias."""
    stats = flax.traverse_util.flatten_dict(dict(variables.get("batch_stats", {})))
    mean = [np.all(np.asarray(v) == 0) for path, v in stats.items() if path[-1] == "mean"]
    var = [np.asarray(v) for path, v in stats.items() if path[-1] == "var"]
    return (
        bool(var)
        and all(mean)
        and all(np.ptp(v) == 0 and abs(v - 1).max() < _FOLDED_VARIANCE for v in var)
    )


def recalibrate(model: nn.Module, variables: Variables, batches: Iterable[Any]) -> Variables:
    """BatchNorm of a folded checkpoint with the statistics of `batches`, the function unchanged.

    With m and v the mean and variance of a normalisation's input, mean = m, var = v,
    scale = s sqrt(v + eps) / sqrt(v0 + eps) and bias = b + s (m - m0) / sqrt(v0 + eps): evaluation
    gives what it gave, and training with batch statistics starts level with it.
    """

    @jax.jit
    @ops.in_single_precision
    def moments(variables, image):
        _, updates = model.apply(variables, image, mutable=["calibration"])
        return updates["calibration"]

    sizes, collected = [], []
    for image in batches:
        sizes.append(len(image))
        collected.append(jax.device_get(moments(variables, image)))
    average = jax.tree.map(lambda *values: np.average(np.float64(values), 0, sizes), *collected)
    params = flax.traverse_util.flatten_dict(dict(variables["params"]))
    stats = flax.traverse_util.flatten_dict(dict(variables["batch_stats"]))
    for (*path, _), found in flax.traverse_util.flatten_dict(average).items():
        mean, square, epsilon = found
        _refit(params, stats, path, mean, square - mean**2, epsilon)
    unflatten = flax.traverse_util.unflatten_dict
    return {**variables, "params": unflatten(params), "batch_stats": unflatten(stats)}


def torch_name(path: tuple[str, ...]) -> str:
    """PyTorch's name of a leaf: (batch_stats, layer1.0, bn1, mean) -> layer1.0.bn1.running_mean."""
    torch = {"mean": "running_mean", "var": "running_var", "kernel": "weight", "scale": "weight"}
    *modules, leaf = path[1:]
    return ".".join([*modules, torch.get(leaf, leaf)])


def _refit(params, stats, path, mean, var, epsilon):
    scale, bias = params[(*path, "scale")], params[(*path, "bias")]
    slope = scale / np.sqrt(stats[(*path, "var")] + epsilon)
    stats_mean = stats[(*path, "mean")]
    params[(*path, "scale")] = jnp.asarray(slope * np.sqrt(var + epsilon), scale.dtype)
    params[(*path, "bias")] = jnp.asarray(bias + slope * (mean - stats_mean), bias.dtype)
    stats[(*path, "mean")] = jnp.asarray(mean, stats_mean.dtype)
    stats[(*path, "var")] = jnp.asarray(var, stats_mean.dtype)


def _flax_layout(value):
    """O I H W -> H W I O, O I -> I O; anything else stays."""
    return value.transpose({2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim, range(value.ndim)))


def _torch_shape(shape):
    """That of the tensor that `_flax_layout` brings to this one."""
    order = {2: (1, 0), 4: (3, 2, 0, 1)}.get(len(shape), range(len(shape)))
    return tuple(shape[axis] for axis in order)


def _read(path):
    if path.suffix == ".npz":
        with path.open("rb") as file:
            return dict(np.load(file, allow_pickle=False))
    import safetensors.numpy

    return safetensors.numpy.load_file(path)


def _float32(value):  # jnp.floating has bfloat16 too
    return value.astype(np.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value


def _download(source):
    match = re.fullmatch(HUB, source)
    is_file = source.endswith((".npz", ".safetensors")) and ":" not in source
    if not match or is_file:
        raise FileNotFoundError(
            f"no weights at {source!r}; expected a .safetensors or .npz file (made of a .pth by "
            "scripts/convert_weights.py), or a Hugging Face id such as 'timm/resnet50.tv_in1k'"
        )
    import huggingface_hub

    name = match[2] or "model.safetensors"
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(match[1], name))
    except (OSError, huggingface_hub.errors.EntryNotFoundError) as error:
        raise FileNotFoundError(
            f"{name} of {match[1]!r} cannot be had from the Hugging Face hub ({error}); pass a "
            ".safetensors or .npz file that you have as --config.weights.source="
        ) from error


def _grid(name, shape):
    """How to take the position embedding of a transformer that was trained at another size."""
    if name != "pos_embed":
        return ""
    side = math.isqrt(shape[1])  # the class token may have a position too
    return f": of {side} x {side} patches, pass --config.backbone.grid='({side},{side})'"
