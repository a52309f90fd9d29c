"""Schedules and parameter groups."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsol_jax import optimizer

PARAMS = {"encoder": {"layer4.0": jnp.ones(2), "layer3.0": jnp.ones(2)}, "head": jnp.ones(2)}


def test_decay_at_given_epochs():
    schedule = optimizer.step_decay(1.0, 0.1, (2, 3), 1e-6, steps_per_epoch=10)
    rates = [float(schedule(step)) for step in (0, 19, 20, 29, 30, 1000)]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_the_floor_holds_for_each_group():
    transform = optimizer.sgd(
        learning_rate=1e-3,
        steps_per_epoch=1,
        decay_epochs=(1, 2, 3),
        floor=1e-4,
        momentum=0.0,
        weight_decay=0.0,
        fast=("encoder/layer4", "head"),
    )
    state = transform.init(PARAMS)
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    rates = []
    for _ in range(4):
        changes, state = transform.update(gradients, state, PARAMS)
        rates.append([-float(changes["encoder"]["layer3.0"][0]), -float(changes["head"][0])])
    slow_fast = [[1e-3, 1e-2], [1e-4, 1e-3], [1e-4, 1e-4], [1e-4, 1e-4]]
    np.testing.assert_allclose(rates, slow_fast, rtol=1e-5)


def test_weight_decay_reaches_every_parameter():
    transform = optimizer.sgd(learning_rate=1.0, steps_per_epoch=1, decay_epochs=(), momentum=0.0)
    nothing = jax.tree.map(jnp.zeros_like, PARAMS)
    changes, _ = transform.update(nothing, transform.init(PARAMS), PARAMS)
    moved = optax.apply_updates(PARAMS, changes)
    for value in jax.tree.leaves(moved):
        np.testing.assert_allclose(value, 1 - 1e-4, rtol=1e-6)


def test_groups_follow_the_paths():
    labels = optimizer.groups(PARAMS, ("encoder/layer4", "head"))
    assert labels == {"encoder": {"layer4.0": "fast", "layer3.0": "slow"}, "head": "fast"}
    assert set(jax.tree.leaves(optimizer.groups(PARAMS, ()))) == {"slow"}


def test_a_part_that_learns_fast_must_be_there():
    message = r"optimizer.fast names 'encoder/layer5', but 'encoder' has only \['layer3.0', 'layer4"
    with pytest.raises(ValueError, match=message):
        optimizer.groups(PARAMS, ("encoder/layer5", "head"))
    optimizer.groups(PARAMS, ("encoder/layer4", "decoder"))  # a module that only others have


def test_frozen_parameters_stay_to_the_bit():
    transform = optimizer.sgd(
        learning_rate=0.1, steps_per_epoch=1, decay_epochs=(), fast=("head",), frozen=("encoder",)
    )
    state, params = transform.init(PARAMS), PARAMS
    for _ in range(3):
        changes, state = transform.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, changes)
    jax.tree.map(np.testing.assert_array_equal, params["encoder"], PARAMS["encoder"])
    assert np.all(params["head"] < 0)
