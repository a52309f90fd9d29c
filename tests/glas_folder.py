"""A folder like the official GlaS one, with all 165 names and pictures of a few pixels."""

import pathlib

import numpy as np
from PIL import Image

from wsol_jax.data import glas

SIZE = (31, 22)  # width, height


def write(
    folder: pathlib.Path, *, suffix: str = ".bmp", sizes: tuple[tuple[int, int], ...] = (SIZE,)
) -> pathlib.Path:
    """Fills `folder` with pictures of noise, masks of two glands and the grades as published.

    Args:
      sizes: width and height of the pictures, in turns.
    """
    folder.mkdir(parents=True, exist_ok=True)
    listed = [row for s in ("train", "valcl", "test") for row in glas.published(s)]
    for i, (name, _) in enumerate(listed):
        rng = np.random.default_rng(i)
        width, height = sizes[i % len(sizes)]
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        mask = np.zeros((height, width), np.uint8)
        mask[2:9, 3:12], mask[12:20, 10 : 14 + i % 15] = 1, 2
        Image.fromarray(image).save(folder / f"{name}{suffix}")
        Image.fromarray(mask).save(folder / f"{name}_anno{suffix}")
    write_grades(folder, dict(listed))
    return folder


def write_grades(folder: pathlib.Path, grades: dict[str, str]) -> None:
    """Grade.csv as it is published: padded fields, lines that end in a bare carriage return."""
    lines = ["name,patient ID,grade (GlaS),grade (Sirinukunwattana et al. 2015)"]
    lines += [f"{name},7, {grade}, moderately differentiated" for name, grade in grades.items()]
    (folder / "Grade.csv").write_bytes("\r".join(lines).encode())
