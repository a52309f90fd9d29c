"""Turns a PyTorch checkpoint (.pth) into .safetensors, which wsol_jax reads without PyTorch.

    python scripts/convert_weights.py resnet50.pth resnet50.safetensors

Needs PyTorch, which comes with the extra `bench`. Nothing but tensors is read from the file, so
that a checkpoint from elsewhere cannot run code.
"""

import argparse
import pathlib
import pickle
import re
from collections.abc import Mapping

import numpy as np
import safetensors.numpy

CONTAINERS = ("state_dict", "model", "model_state_dict")  # where checkpoints keep their weights
WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")  # put by DataParallel and torch.compile


def state_dict(checkpoint: Mapping) -> dict:
    """The tensors of a checkpoint by their own names, out of any container and wrapper."""
    for container in CONTAINERS:
        if isinstance(checkpoint.get(container), Mapping):
            others = [k for k, v in checkpoint.items() if k != container and _has_tensors(v)]
            left = f", not those under {', '.join(others)}" if others else ""
            print(f"the weights under {container}{left}")
            checkpoint = checkpoint[container]
    strangers = [name for name, value in checkpoint.items() if not hasattr(value, "shape")]
    if strangers or not checkpoint:
        raise ValueError(
            f"expected a state_dict, tensors by name, or one under {', '.join(CONTAINERS)}; "
            f"found {'nothing' if not checkpoint else strangers[:5]}"
        )
    return {WRAPPERS.sub("", name): value for name, value in checkpoint.items()}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights in a PyTorch file: floats as float32, integers as they are."""
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        import torch
    except ModuleNotFoundError as error:
        message = "reading .pth needs PyTorch: pip install torch (the extra 'bench' holds it)"
        raise ModuleNotFoundError(message, name="torch") from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, which could run code when it is read; "
            "where you trust it, save only its weights: torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}; expected a state_dict")
    return {name: _array(tensor) for name, tensor in state_dict(checkpoint).items()}


def main(arguments: list[str] | None = None) -> None:
    """Converts the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path, help="PyTorch checkpoint, .pth or .pt")
    parser.add_argument("target", type=pathlib.Path, help="file to write, .safetensors")
    options = parser.parse_args(arguments)
    try:
        tensors = read(options.source)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    options.target.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, options.target)
    numbers = sum(tensor.size for tensor in tensors.values())
    print(f"{options.target}: {len(tensors)} tensors, {numbers:,} numbers")


def _has_tensors(value) -> bool:
    return isinstance(value, Mapping) and any(hasattr(v, "shape") for v in value.values())


def _array(tensor) -> np.ndarray:
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    return tensor.detach().contiguous().numpy()  # safetensors writes the memory as it lies


if __name__ == "__main__":
    main()
