"""Files are written whole or not at all."""

import errno
import json

import pytest

from wsol_jax import files


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "metrics.json"
    files.write_json(path, {"a": 1.5, "b": [float("nan"), (1, float("inf"))]})
    assert json.loads(path.read_text()) == {"a": 1.5, "b": [None, [1, None]]}
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert json.loads(path.read_text())["a"] == 1.5
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "gallery.npz"
    path.write_bytes(b"old")

    def write():
        with files.replacing(path) as scratch:
            scratch.write_bytes(b"half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["gallery.npz"]


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*metrics.json'"),
        files.replacing(tmp_path / "metrics.json"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_entries_that_a_row_lacks_are_empty(tmp_path):
    files.write_csv(tmp_path / "a.csv", ("x", "y"), [{"x": 1, "y": "a,b"}, {"y": 2.5}])
    assert (tmp_path / "a.csv").read_text() == 'x,y\n1,"a,b"\n,2.5\n'
