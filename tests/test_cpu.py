"""CPU settings change no result, and stand back where they are not known."""

import importlib.metadata
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import batch, begin, small_method, transform

from wsol_jax import cpu, train


@pytest.fixture(autouse=True)
def _fresh():
    cpu._where_known.cache_clear()
    yield
    cpu._where_known.cache_clear()


def test_options_leave_a_step_as_it_is():
    step, at = (
        train.make_step(small_method("pixelcam"), transform(), 32),
        begin(small_method("pixelcam")),
    )
    arguments = (at, jax.tree.map(jnp.asarray, batch(0)), jax.random.key(0))
    plain, fast = (
        jax.jit(step, compiler_options=o)(*arguments) for o in ({}, cpu.compiler_options())
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        plain[0].params,
        fast[0].params,
    )


def test_an_unknown_option_is_left_out(monkeypatch):
    monkeypatch.setattr(cpu, "_YNN", "xla_cpu_no_such_option")
    assert cpu.compiler_options() == {}
    assert cpu.run_once_options() != {}


def test_accelerators_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cpu.compiler_options() == {}


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda name: object())
    assert cpu.keep_memory() is False


@pytest.mark.parametrize(
    ("platforms", "plugins", "told"),
    [
        (None, (), True),
        (None, ("xla_cuda13",), False),
        ("cpu", ("xla_cuda13",), True),
        ("cuda", (), False),
    ],
)
def test_a_plugin_stands_for_an_accelerator(monkeypatch, platforms, plugins, told):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: plugins)
    monkeypatch.setattr(jax, "config", types.SimpleNamespace(jax_platforms=platforms))
    assert cpu.expected() == told


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_the_command_fetches_no_memory_twice():
    program = """
import resource, sys
from absl import app
import jax, jax.numpy as jnp
from wsol_jax import main

def work():
    x, f = jnp.ones((4096, 8)), jax.jit(lambda x: (x @ x.T) @ x)  # 64 MiB in between
    for step in range(60):  # the first ones, which run ahead of each other, fetch some
        if step == 30:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        f(x).block_until_ready()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

main.MODES["embed"] = main.Mode(work)
sys.argv = ["main", "--mode=embed"]
app.run(main.main)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 16_384  # pages, of the 30 x 16,384 that the steps make use of
