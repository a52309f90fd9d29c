"""Checkpoints of one training phase; the only file that knows Orbax.

A checkpoint holds the state and, beside it, everything else that training must remember (history
and selection) as JSON, written as one: either all of it is there, or none.
"""

import pathlib
import shutil
import time
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

TO_DELETE = "to_delete"  # where Orbax moves a checkpoint first, so that none is left half-deleted


class Checkpoints:
    """The checkpoints under `folder`, by training step.

    Args:
      read_only: leave alone what another command is writing there.
    """

    def __init__(self, folder: pathlib.Path, *, read_only: bool = False):
        options = ocp.CheckpointManagerOptions(
            todelete_subdir=TO_DELETE, cleanup_tmp_directories=not read_only
        )
        self.folder = folder
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._held = {}  # step -> state and memory

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def steps(self) -> set[int]:
        """Steps of all complete checkpoints."""
        return set(self._manager.all_steps())

    def hold(self, step: int, state: Any, memory: dict[str, Any], keep: Collection[int]) -> None:
        """Keeps one checkpoint in memory until the next `save`, and forgets those not in `keep`.

        A file per epoch would take longer than a short epoch on an accelerator.
        """
        held = {**self._held, step: (state, memory)}
        self._held = {step: held[step] for step in held if step in keep}

    def save(self, step: int, state: Any, memory: dict[str, Any], keep: Collection[int]) -> float:
        """Writes one checkpoint whole or not at all, then deletes those not in `keep`.

        What is held of `keep` is written first. Where the process is killed among these, the newest
        may remember an older one that later ones had replaced, and that is not there.

        Returns:
          The seconds that it took.

        Raises:
          OSError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        began = time.monotonic()
        self.hold(step, state, memory, {step, *keep})
        self.write_held()
        for old in self.steps() - {step, *keep}:
            self._manager.delete(old)
        if jax.process_index() == 0:  # Orbax only moves them there; what is left goes next time
            shutil.rmtree(self.folder / TO_DELETE, ignore_errors=True)
        return time.monotonic() - began

    def write_held(self) -> None:
        """Writes what is held, oldest first; OSError as in `save`."""
        for step in sorted(self._held):
            self._write(step, *self._held[step])
            del self._held[step]

    def _write(self, step, state, memory):
        arrays = jax.tree.map(np.asarray, state)
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(arrays), memory=ocp.args.JsonSave(memory)
        )
        try:
            self._manager.save(step, args=items)
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise OSError(
                f"could not write checkpoint {step} under {self.folder} ({error}); make room, or "
                "pass a --workdir on a disk that can rename folders. The last good checkpoint is "
                f"{self.latest()}"
            ) from error

    def restore(self, step: int, like: Any) -> Any:
        """The state of `step`, as NumPy arrays in the structure of `like`."""
        return self._restore(step, like, partial_restore=False)

    def restore_variables(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """The model's variables of `step`, in the structure of `like`, without the optimizer's.

        Raises:
          ValueError: the checkpoint is one of another model, and lacks some of them.
        """
        absent = sorted(_names(like) - _names(self._saved(step)))
        if absent:  # Orbax would leave the values of `like` there, and say nothing
            raise ValueError(
                f"checkpoint {step} under {self.folder} is not of this model: it lacks "
                f"{len(absent)} arrays, the first of them {absent[0]}. Train again, or use the "
                "commit in the run's record.json"
            )
        return self._restore(step, like, partial_restore=True)

    def _restore(self, step, like, **options):
        target = ocp.args.PyTreeRestore(item=jax.tree.map(np.asarray, like), **options)
        return self._manager.restore(step, args=ocp.args.Composite(state=target)).state

    def _saved(self, step):
        """The tree of what was saved, without the arrays."""
        path = (self.folder / str(step) / "state").absolute()
        return ocp.PyTreeCheckpointHandler().metadata(path).tree

    def memory(self, step: int) -> dict[str, Any]:
        """The JSON saved with `step`."""
        items = ocp.args.Composite(memory=ocp.args.JsonRestore())
        return self._manager.restore(step, args=items).memory

    def close(self) -> None:
        """Frees what Orbax holds."""
        self._manager.close()


def _names(tree):
    """The paths of a tree's leaves."""
    paths, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths}
