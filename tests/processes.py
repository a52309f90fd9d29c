"""Python programs in processes of their own, which find the package and the tests' helpers."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
COLLECT_RARELY = "import gc; gc.set_threshold(100_000, 50, 50)\n"  # as conftest.py does
FEW = {"train": 16, "test": 10}  # drawn images; all of them take a while to draw
DRAW_FEW = f"from wsol_jax.data import synthetic_glands as s; s.SPLITS.update({FEW})\n"


def run(program: str, *arguments: object, devices: int = 1, flags: tuple[str, ...] = ()) -> None:
    """Runs a program to its end; fails with what it complained of."""
    process = start(program, *arguments, devices=devices, flags=flags, stderr=subprocess.PIPE)
    _, complaints = process.communicate()
    assert process.returncode == 0, complaints


def start(
    program: str, *arguments: object, devices: int = 1, flags: tuple[str, ...] = (), **options
) -> subprocess.Popen:
    """Starts a program on simulated devices.

    Args:
      arguments: of the program, `flags` of Python.
      options: of `subprocess.Popen`.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{HERE}:{HERE.parent}",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, *flags, "-c", COLLECT_RARELY + program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, text=True, **options)
