"""One training step on many devices: the engines `jit` and `pmap`.

Both split the batch along "data" and replicate the state, and both compute what one device would:
ratios are sums over sums, batch statistics and gradients those of the global batch, and every
image draws from its own key. `jit` leaves the communication to the compiler; in the `pmap` engine
the step asks for it by the axis name.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from wsol_jax import choices, cpu

AXIS = "data"


class Engine(NamedTuple):
    """How a step runs.

    Attributes:
      axis: name the step must sum over, or None where the compiler does it.
      compile: (step) -> the step on all devices, (state, batch, key) -> (state, metrics), which
        takes over the buffers of the state it is given.
      place: host state -> state on every device.
      feed: this host's rows of a batch -> global batch on the devices.
      fetch: state or metrics on the devices -> one copy on the host.
    """

    axis: str | None
    compile: Callable[[Callable], Callable]
    place: Callable[[Any], Any]
    feed: Callable[[Any], Any]
    fetch: Callable[[Any], Any]


def engine(name: str, devices: list[jax.Device] | None = None) -> Engine:
    """The engine `jit` (default everywhere) or `pmap`, on `devices` (default: all)."""
    engines = {"jit": _jit, "pmap": _pmap}
    choices.require("parallel engine", name, engines)
    return engines[name](devices or jax.devices())


def compile_evaluation(function: Callable) -> Callable:
    """(variables, batch) -> result on every device, for batches that the engine `jit` feeds."""
    rows, everywhere = _shardings(jax.devices())
    return jax.jit(
        function,
        in_shardings=(everywhere, rows),
        out_shardings=everywhere,
        compiler_options=cpu.compiler_options(),
    )


def image_keys(key: Key[Array, ""], size: int, axis: str | None) -> Key[Array, "b"]:
    """One key for each of this device's `size` images, from their rows in the global batch."""
    first = jax.lax.axis_index(axis) * size if axis else 0
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(size))


def total(values: Any, axis: str | None) -> Any:
    """Sum over the devices of `axis`."""
    return jax.lax.psum(values, axis) if axis else values


def check_batch(batch_size: int) -> None:
    """Raises ValueError where the devices cannot share a batch equally."""
    count = jax.device_count()
    if batch_size % count:
        raise ValueError(
            f"batch size {batch_size} does not divide among {count} devices; "
            f"the nearest that does is {max(count, round(batch_size / count) * count)}"
        )


def _jit(devices):
    rows, everywhere = _shardings(devices)

    def feed(batch):
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), batch)

    return Engine(
        axis=None,
        compile=lambda step: jax.jit(
            step,
            in_shardings=(everywhere, rows, everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
            compiler_options=cpu.compiler_options(),
        ),
        place=lambda state: jax.device_put(state, everywhere),
        feed=feed,
        fetch=jax.device_get,
    )


def _pmap(devices):
    local = [d for d in devices if d.process_index == jax.process_index()]
    split, _ = _shardings(local)

    def feed(batch):
        pieces = jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), batch)
        return jax.device_put(pieces, split)

    def place(state):
        copies = jax.tree.map(lambda x: np.broadcast_to(x, (len(local), *np.shape(x))), state)
        return jax.device_put(copies, split)

    return Engine(
        axis=AXIS,
        compile=lambda step: jax.pmap(
            step, AXIS, in_axes=(0, 0, None), devices=devices, donate_argnums=0
        ),
        place=place,
        feed=feed,
        fetch=lambda tree: jax.device_get(jax.tree.map(lambda x: x[0], tree)),
    )


def _shardings(devices):
    """Rows split over `devices`, and a copy on each of them."""
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    return NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())
