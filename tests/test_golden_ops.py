"""Normalising and resizing of maps against recorded outputs of the original code."""

import re

import golden_cases
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax import ops

CASES = golden_cases.cases("10_")
TOLERANCE = 1e-6


def inputs():
    """Every recorded input map: (case, its name, the map)."""
    found = [
        (c, n.removesuffix("/in"), c.arrays[n])
        for c in CASES
        for n in c.arrays
        if n.endswith("/in")
    ]
    return pytest.mark.parametrize(("case", "name", "image"), found, ids=[n for _, n, _ in found])


@inputs()
def test_resizing(case, name, image):
    pattern = re.compile(
        rf"{name}/(bilinear|nearest|torch_bilinear_antialias)_(\d+)x(\d+)(_align\w+)?"
    )
    matches = [m for m in map(pattern.fullmatch, case.arrays) if m]
    assert matches
    maps = jnp.asarray(case.arrays[f"{name}/_CAM._normalize"])[None, ..., None]
    for match in matches:
        kind, shape = match[1], (int(match[2]), int(match[3]))
        shrinks = any(to < of for to, of in zip(shape, image.shape, strict=True))
        if kind == "torch_bilinear_antialias" and shrinks:
            continue  # stored CAMs only ever grow, where antialiasing changes nothing
        if kind == "nearest":
            resized = ops.resize_nearest(maps, shape)
        else:
            resized = ops.resize(maps, shape, align_corners=match[4] == "_alignTrue")
        np.testing.assert_allclose(
            resized[0, ..., 0], case.arrays[match[0]], rtol=0, atol=TOLERANCE
        )


@inputs()
def test_normalising_before_resizing(case, name, image):
    normalized = ops.min_max(jnp.asarray(image)[None])
    np.testing.assert_allclose(
        normalized[0], case.arrays[f"{name}/_CAM._normalize"], atol=TOLERANCE
    )
    final = ops.resize_maps(normalized, (224, 224))[0]
    pipeline = f"{name}/eval_pipeline_224"
    np.testing.assert_allclose(final[case.strides(pipeline)], case.arrays[pipeline], atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_maps_without_range_become_zero(case):
    for kind, image in {
        "zeros": np.zeros((2, 4)),
        "const": np.full((2, 4), 3.0),
        "nan": np.array([[np.nan, 1.0], [0.0, 2.0]]),
    }.items():
        recorded = case.spec["edge_cases"][kind]["after_nan_to_num"]
        assert set(recorded) == {0.0}
        np.testing.assert_array_equal(ops.min_max(jnp.asarray(image, jnp.float32)[None]), 0)
