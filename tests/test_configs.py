"""Every config builds, takes one finite step, and has the published number of parameters."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import transform

from wsol_jax import experiment, train

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.py") if p.stem != "common")
PARAMETERS = {"layercam_glas": 23_514_179, "pixelcam_glas": 23_518_277}
BATCH = 2


def load(path):
    """A config file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return load(request.param).get_config()


@pytest.mark.parametrize("variant", ["layer_cam", "grad_cam_pp", "control"])
def test_variants_of_the_short_schedule_share_a_baseline(variant):
    module = load(ROOT / "configs" / "pixelcam_glas_short.py")
    usual, other = module.get_config(), module.get_config(variant)
    assert set(other.baseline.method.readouts) == set(usual.baseline.method.readouts)
    assert (other.name == usual.name) == (variant == "layer_cam")
    for section in ("optimizer", "epochs", "batch_size"):
        assert other[section] == usual[section]
        assert other.baseline[section] == usual.baseline[section]


def test_is_named_after_its_file_and_survives_json(config):
    assert (ROOT / "configs" / f"{config.name}.py").is_file()
    assert json.loads(config.to_json())["name"] == config.name


def test_parameter_count(config):
    built = experiment.build(config, config.method)
    shapes = jax.eval_shape(lambda: experiment_variables(built, 64))
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert count == PARAMETERS.get(config.name, count)
    assert count > 100_000


@pytest.mark.parametrize("part", ["baseline", "main"])
def test_takes_one_finite_step(config, part):
    section = config if part == "main" else config.baseline
    if section is None:
        return
    built = experiment.build(config, section.method)
    variables = experiment_variables(built, 64)
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    state = train.State(jnp.int32(0), params, stats, transform(built).init(params))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (BATCH, 72, 72, 3), np.uint8),
        "mask": rng.integers(0, 2, (BATCH, 72, 72), np.uint8),
        "label": np.array([0, 1], np.int32),
        "index": np.arange(BATCH, dtype=np.int32),
        "valid": np.ones(BATCH, bool),
        "cam": rng.random((BATCH, 8, 8)).astype(np.float16),
    }
    step = jax.jit(train.make_step(built, transform(built), 64))
    _, losses = step(state, batch, jax.random.key(0))
    assert np.isfinite(float(losses["total"]))


def experiment_variables(built, size):
    return built.model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)))
