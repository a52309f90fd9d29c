"""One training step on many devices, of one or several processes: the engines `jit` and `pmap`.

Both split the batch along "data" and replicate the state, and both compute what one device would:
ratios are sums over sums, batch statistics and gradients those of the global batch, and every
image draws from its own key. `jit` leaves the communication to the compiler; in the `pmap` engine
the step asks for it by the axis name. Of an encoder in half precision the compiler sums gradients
over the devices in half precision, too, where `pmap` sums in single.
"""

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from wsol_jax import choices, cpu, ops

AXIS = "data"


class Engine(NamedTuple):
    """How a step runs.

    Attributes:
      axis: name the step must sum over, or None where the compiler does it.
      compile: (step) -> the step on all devices, (state, batch, key) -> (state, metrics), which
        takes over the buffers of the state it is given.
      place: host state -> state on every device.
      share: variables of a state on the devices -> the same as the engine `jit` has them.
      feed: this host's rows of a batch -> global batch on the devices.
      fetch: state or metrics on the devices -> one copy on the host.
    """

    axis: str | None
    compile: Callable[[Callable], Callable]
    place: Callable[[Any], Any]
    share: Callable[[Any], Any]
    feed: Callable[[Any], Any]
    fetch: Callable[[Any], Any]


def engine(name: str, devices: list[jax.Device] | None = None) -> Engine:
    """The engine `jit` (default everywhere) or `pmap`, on `devices` (default: all)."""
    engines = {"jit": _jit, "pmap": _pmap}
    choices.require("parallel engine", name, engines)
    return engines[name](_in_order(devices or jax.devices()))


def compile_evaluation(function: Callable) -> Callable:
    """(variables, batch) -> result on every device, for batches that the engine `jit` feeds.

    In single precision, whatever the encoder trains in, as in the released code.
    """
    rows, everywhere = _shardings(_in_order(jax.devices()))
    return jax.jit(
        ops.in_single_precision(function),
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


def gather(value: Any) -> list[Any]:
    """What every process of the run says, a bool or an int32, in their order; waits for all."""
    if jax.process_count() == 1:
        return [value]
    rows, replicate = _gathering()
    own = np.full(jax.local_device_count(), value)
    values = jax.device_get(replicate(_placed(own, rows)))
    return values[:: jax.local_device_count()].tolist()


def of_first(tree: Any) -> Any:
    """Arrays as process 0 has them, where each computes its own and they may differ a little."""
    several = jax.process_count() > 1
    return multihost_utils.broadcast_one_to_all(tree) if several else tree


def wait_for_all() -> None:
    """Returns once every process of the run has come here."""
    gather(True)


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """Process 0 goes through the block before all others do."""
    if jax.process_index() > 0:
        wait_for_all()
    yield
    if jax.process_index() == 0:
        wait_for_all()


def _jit(devices):
    rows, everywhere = _shardings(devices)

    return Engine(
        axis=None,
        compile=lambda step: jax.jit(
            step,
            in_shardings=(everywhere, rows, everywhere),
            out_shardings=everywhere,
            donate_argnums=0,
            compiler_options=cpu.compiler_options(),
        ),
        place=functools.partial(_placed, sharding=everywhere),
        share=lambda variables: variables,
        feed=functools.partial(_placed, sharding=rows),
        fetch=jax.device_get,
    )


def _pmap(devices):
    local = [d for d in devices if d.process_index == jax.process_index()]
    (split, _), (_, everywhere) = _shardings(local), _shardings(devices)

    def feed(batch):
        pieces = jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), batch)
        return jax.device_put(pieces, split)

    def place(state):
        copies = jax.tree.map(lambda x: np.broadcast_to(x, (len(local), *np.shape(x))), state)
        return jax.device_put(copies, split)

    def fetch(tree):  # x[0] would be a program for every array
        first = jax.tree.map(lambda x: x.addressable_shards[0].data, tree)
        return jax.tree.map(lambda x: x[0], jax.device_get(first))

    return Engine(
        axis=AXIS,
        compile=lambda step: jax.pmap(
            step, AXIS, in_axes=(0, 0, None), devices=devices, donate_argnums=0
        ),
        place=place,
        share=lambda variables: _placed(fetch(variables), everywhere),
        feed=feed,
        fetch=fetch,
    )


def _in_order(devices):
    """The devices by process, whose rows of a batch are consecutive; ValueError if uneven."""
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"the processes have {[counts[i] for i in sorted(counts)]} devices; expected as many "
            "for each, since they share every batch equally"
        )
    return sorted(devices, key=lambda device: (device.process_index, device.id))


def _shardings(devices):
    """Rows split over `devices`, in their order, and a copy on each of them."""
    mesh = Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())


def _placed(tree, sharding):
    """Arrays on all devices, from what each process has of them."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)


@functools.cache
def _gathering():
    rows, everywhere = _shardings(_in_order(jax.devices()))
    return rows, jax.jit(lambda x: x, in_shardings=rows, out_shardings=everywhere)
