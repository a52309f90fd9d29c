"""Checkpoints: what is saved comes back, what is not to be kept goes, a full disk harms nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import begin, small_method

from wsol_jax import checkpoint


@pytest.fixture
def checkpoints(tmp_path):
    opened = checkpoint.Checkpoints(tmp_path / "checkpoints")
    yield opened
    opened.close()


def state_of(value):
    return {"params": {"w": jnp.full((2, 3), value)}, "opt_state": (jnp.int32(value),)}


def test_state_and_memory_come_back(checkpoints):
    checkpoints.save(3, state_of(1.0), {"history": [{"epoch": 1}], "best": {}}, keep=())
    restored = checkpoints.restore(3, state_of(0.0))
    assert jax.tree.structure(restored) == jax.tree.structure(state_of(0.0))
    np.testing.assert_array_equal(restored["params"]["w"], 1)
    assert checkpoints.memory(3) == {"history": [{"epoch": 1}], "best": {}}


def test_a_training_state_comes_back_bit_for_bit(checkpoints):
    state = begin(small_method("pixelcam"))
    checkpoints.save(0, state, {}, keep=())
    jax.tree.map(
        np.testing.assert_array_equal, checkpoints.restore(0, state), jax.device_get(state)
    )
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    restored = checkpoints.restore_variables(0, variables)
    jax.tree.map(np.testing.assert_array_equal, restored, jax.device_get(variables))


def test_only_the_newest_and_the_kept_stay(checkpoints):
    for step, keep in [(0, {0}), (1, {0}), (2, {0}), (3, {2})]:
        checkpoints.save(step, state_of(step), {}, keep)
    assert checkpoints.latest() == 3
    names = {path.name for path in checkpoints.folder.iterdir() if path.is_dir()}
    assert names == {"2", "3"}  # nothing lies aside either: a long run would fill the disk
    reopened = checkpoint.Checkpoints(checkpoints.folder)
    np.testing.assert_array_equal(reopened.restore(2, state_of(0))["params"]["w"], 2)
    for step in (0, 1):
        with pytest.raises(FileNotFoundError):
            reopened.restore(step, state_of(0))
    reopened.close()


def test_what_is_held_is_written_before_the_next(checkpoints):
    checkpoints.save(0, state_of(0), {"best": 0}, keep={0})
    for step, keep in [(1, {1}), (2, {1, 2}), (3, {2, 3}), (4, {2, 4})]:
        checkpoints.hold(step, state_of(step), {"best": step}, keep)
    assert checkpoints.latest() == 0
    checkpoints.save(5, state_of(5), {"best": 4}, keep={2, 4})
    assert {path.name for path in checkpoints.folder.iterdir() if path.is_dir()} == {"2", "4", "5"}
    for step, best in [(2, 2), (4, 4), (5, 4)]:
        np.testing.assert_array_equal(checkpoints.restore(step, state_of(0))["params"]["w"], step)
        assert checkpoints.memory(step) == {"best": best}


def test_a_kill_between_held_checkpoints_leaves_a_whole_past(checkpoints, monkeypatch):
    """Whatever the newest checkpoint remembers is there."""
    checkpoints.save(0, state_of(0), {"best": [0]}, keep={0})
    checkpoints.hold(1, state_of(1), {"best": [0, 1]}, keep={0, 1})
    checkpoints.hold(2, state_of(2), {"best": [1, 2]}, keep={1, 2})
    write = checkpoints._write

    def killed_at(step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        write(step, *rest)

    monkeypatch.setattr(checkpoints, "_write", killed_at)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(3, state_of(3), {"best": [1, 2]}, keep={1, 2})
    reader = checkpoint.Checkpoints(checkpoints.folder, read_only=True)
    assert reader.latest() == 1
    for step in reader.memory(1)["best"]:
        np.testing.assert_array_equal(reader.restore(step, state_of(9))["params"]["w"], step)
    reader.close()


def test_a_reader_leaves_alone_what_is_being_written(checkpoints):
    checkpoints.save(1, state_of(1), {}, keep=())
    writing = checkpoints.folder / "2.orbax-checkpoint-tmp"
    writing.mkdir()
    reader = checkpoint.Checkpoints(checkpoints.folder, read_only=True)
    np.testing.assert_array_equal(reader.restore(1, state_of(0))["params"]["w"], 1)
    reader.close()
    assert writing.is_dir()
    writer = checkpoint.Checkpoints(checkpoints.folder)  # whoever writes here clears up
    writer.save(3, state_of(3), {}, keep=())
    writer.close()
    assert not writing.exists()


def test_variables_of_another_model_are_refused(checkpoints):
    """Not filled up with whatever the new model began with."""
    checkpoints.save(4, {"params": {"w": np.ones(3), "layer1_0": np.ones(2)}}, {}, keep=())
    renamed = {"params": {"w": np.zeros(3), "layer1.0": np.zeros(2)}}
    with pytest.raises(ValueError, match=r"lacks 1 arrays, the first of them params/layer1.0"):
        checkpoints.restore_variables(4, renamed)
    fewer = checkpoints.restore_variables(4, {"params": {"w": np.zeros(3)}})
    np.testing.assert_array_equal(fewer["params"]["w"], 1)


def test_a_failed_save_names_the_last_good_one(checkpoints, monkeypatch):
    checkpoints.save(1, state_of(1), {}, keep=())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(OSError, match=r"checkpoint 2 .*No space left.*last good checkpoint is 1"):
        checkpoints.save(2, state_of(2), {}, keep=())
    np.testing.assert_array_equal(checkpoints.restore(1, state_of(0))["params"]["w"], 1)
