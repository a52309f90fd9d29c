"""Array shapes in signatures are checked throughout the tests; they cost nothing in training."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib import metadata

from jaxtyping import install_import_hook

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Small programs that run once or twice: compiling them well takes longer than running them badly.
# `XLA_FLAGS= bash scripts/test.sh` compiles as in training.
FAST_TO_COMPILE = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if metadata.version("jaxlib").startswith("0.10."):  # later ones end on a flag they do not know
    FAST_TO_COMPILE.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(FAST_TO_COMPILE))
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # compiled once for all tests and their processes
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="wsol_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # of every operation that is lowered
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    # Each worker on its own cores: threads of two workers on the same ones wait for each other.
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    own = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[own::workers] or cores)
gc.set_threshold(100_000, 50, 50)  # tracing makes objects by the million, hardly any in cycles
install_import_hook("wsol_jax", "checks.typechecker").__enter__()

LONGEST = (
    "golden_methods",
    "train",
    "distributed",
    "configs",
    "parallel",
    "main",
    "golden_training",
    "notebook",
    "miniature",
    "golden_models",
    "golden_maxmin",
    "tables",
    "evaluate",
    "vit",
    "weights",
    "wiring",
)


def pytest_collection_modifyitems(items):
    """The longest files first, so that the workers end together."""
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
