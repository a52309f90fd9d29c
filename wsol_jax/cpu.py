"""What makes training fast where XLA computes on the CPU; it changes speed, not results.

With these, and 1x1 convolutions as matrix products (`convolution.py`), a ResNet-50 trains at nearly
PyTorch's speed on the same cores; `results/bench.md` has the figure.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util

import jax
import jax.numpy as jnp

# XLA hands convolutions to a library that splits them over output channels only, so that narrow
# layers use one core. Naming what it may have, products and reductions, keeps convolutions out.
_YNN = "xla_cpu_experimental_ynn_fusion_type"
_LIBRARY = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
_OPTIMIZATION = "xla_backend_optimization_level"

# glibc's malloc returns large buffers to the system and fetches them again, page by page, in each
# step: take nothing from mmap, give nothing back, share one arena. The numbers are malloc.h's.
# A thread that has an arena of its own keeps it, and an arena that is not the first one gives back.
_KEEP = {-4: 0, -1: -1, -8: 1}  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX


def compiler_options() -> dict[str, str | int]:
    """Options for `jax.jit` on a CPU; none elsewhere, or where this XLA does not know them."""
    return _where_known(_YNN, _LIBRARY)


def run_once_options() -> dict[str, str | int]:
    """Options for what runs once: a ResNet-50's initial values compile in half the time."""
    return _where_known(_OPTIMIZATION, 0)


@functools.cache
def _where_known(name, value):
    if jax.default_backend() != "cpu":
        return {}
    options = {name: value}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except Exception:  # whatever an XLA that has never heard of the option may raise
        return {}
    return options


def expected() -> bool:
    """Whether JAX, which has not looked for devices yet, can find nothing but the CPU."""
    if jax.config.jax_platforms:
        return jax.config.jax_platforms == "cpu"
    plugins = (importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return not (any(plugins) or importlib.metadata.entry_points(group="jax_plugins"))


def keep_memory() -> bool:
    """Makes malloc keep what it has for the life of the process; False where it is not glibc.

    To be called before JAX looks for devices and starts its threads, or they will not keep it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    accepted = [mallopt(name, value) for name, value in _KEEP.items()]
    return all(accepted)
