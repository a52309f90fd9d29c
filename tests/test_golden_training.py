"""The optimizer and whole training steps against recorded runs of the original code."""

import golden_cases
import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_golden_methods
from golden_models import close, compiled

from configs import common
from wsol_jax import optimizer, train

FAST = common.ENCODERS["resnet50"].fast


def known(prefix):
    found = golden_cases.cases(prefix)
    return pytest.mark.parametrize("case", found, ids=[c.name for c in found])


@known("12_")
def test_sgd(case):
    # The recorded schedule moved once every two updates.
    transform = optimizer.sgd(learning_rate=0.1, steps_per_epoch=2, decay_epochs=(5,))
    params = {"w": jnp.asarray(case.arrays["sgd/w0"])}
    state = transform.init(params)
    for gradient, expected in zip(
        case.arrays["sgd/grads"], case.arrays["sgd/w_after_each_step"], strict=True
    ):
        changes, state = transform.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, changes)
        np.testing.assert_allclose(params["w"], expected, rtol=1e-6, atol=1e-7)


@known("12_")
def test_step_decay(case):
    name = "mystep/lr_per_epoch(lr.001,step5,gamma.1,min1e-6)"
    schedule = optimizer.step_decay(1e-3, 0.1, tuple(range(5, 40, 5)), 1e-6, steps_per_epoch=3)
    rates = [float(schedule(3 * epoch)) for epoch in range(40)]
    np.testing.assert_allclose(rates, case.arrays[name], rtol=1e-6)


@known("12_")
def test_parameter_groups(case):
    recorded = case.spec["groups"]["pixelcam_resnet50"]
    pixelcam = golden_cases.cases("04_pixelcam_resnet50_WGAP_linear")[0]
    built = golden_models.build(pixelcam, "pixelcam")
    params = golden_models.shapes(built.model)["params"]
    labels = jax.tree.leaves(optimizer.groups(params, FAST))
    sizes = [x.size for x in jax.tree.leaves(params)]
    for group, expected in zip(("slow", "fast"), recorded, strict=True):
        counted = [n for label, n in zip(labels, sizes, strict=True) if label == group]
        assert (len(counted), sum(counted)) == (expected["n_tensors"], expected["n_params"])


@known("13_")
def test_five_training_steps_in_float64(case):
    with jax.enable_x64(True):
        built = golden_models.build(case, "pixelcam")
        variables = golden_models.variables(built, case, jnp.float64)
        transform = optimizer.sgd(
            learning_rate=1e-3, steps_per_epoch=10, decay_epochs=(5,), fast=FAST
        )
        params = variables["params"]
        state = train.State(jnp.int32(0), params, variables["batch_stats"], transform.init(params))
        image = golden_models.images("float64")
        step = compiled(lambda state, batch: train.update(built, transform, state, batch, None))
        for number, expected in enumerate(case.arrays["f64/trajectory"]):
            batch = test_golden_methods.batch_of(image, seeds=seeds_of(case, number))
            state, losses = step(state, batch)
            got = [losses["total"], losses["image"], losses["pixel"]]
            close(np.array(got), expected[:3], 1e-7)
            if number == 1:
                check_state(case, state)
        check_outputs(case, built, state, image)


def check_state(case, state):
    """Weights and running statistics after two updates."""
    collections = {"params": state.params, "batch_stats": state.batch_stats}
    leaves = golden_models.named(collections, case)
    for name in [n for n in case.arrays if n.startswith("f64/after2/")]:
        close(leaves[name.removeprefix("f64/after2/")][case.strides(name)], case.arrays[name], 1e-8)


def check_outputs(case, built, state, image):
    """Evaluation after all five updates."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    outputs = compiled(built.model.apply)(variables, image)
    close(outputs["logits"], case.arrays["f64/final_eval/logits"], 1e-5)
    name = "f64/final_eval/pixel_logits"
    pixels = golden_models.nchw(outputs["pixel_logits"])
    close(pixels[case.strides(name)], case.arrays[name], 1e-5)


def seeds_of(case, step):
    positions, targets = case.arrays[f"seeds/step{step}"], case.arrays[f"seeds/step{step}_values"]
    return test_golden_methods.as_seeds(positions, targets)
