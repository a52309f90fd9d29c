"""The record of a run says which code it was; numbers and times are told plainly."""

import logging
import subprocess

import numpy as np
import pytest

from wsol_jax import files, logbook


def test_commit_is_of_the_code_that_is_run(tmp_path):
    """Not of a repository that it is merely installed in, nor of what is committed later."""

    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
        command = ["git", *name, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    folders = [tmp_path / name for name in ("installed", "clean", "added")]
    git("init")
    for folder in folders:
        folder.mkdir()
        (folder / "logbook.py").write_text("")
    (tmp_path / ".gitignore").write_text("installed\n")
    git("add", ".")
    git("commit", "-m", "first")
    first = git("rev-parse", "HEAD").stdout.strip()
    (folders[2] / "method.py").write_text("")
    expected = ["unknown", first, f"{first}-dirty"]
    assert [logbook.commit(folder) for folder in folders] == expected
    git("commit", "--allow-empty", "-m", "second")
    assert [logbook.commit(folder) for folder in folders] == expected
    assert logbook.commit(tmp_path / "absent") == "unknown"


def test_record_says_how_a_run_was_made():
    record = logbook.record(seed=3)
    assert record["seed"] == 3
    assert record["versions"]["jax"]
    assert record["device"].startswith("1 x ")
    assert record["command"].startswith("python -m wsol_jax.main")


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "5s"), (184.0, "3m04s"), (3720.0, "1h02m")])
def test_durations(seconds, text):
    assert logbook.duration(seconds) == text


def test_progress_tells_rate_and_time_left(caplog, monkeypatch):
    clock = iter([0.0, 5.0, 20.0])
    monkeypatch.setattr(logbook.time, "monotonic", lambda: next(clock))
    progress = logbook.Progress("pixelcam", 10, 50, batch_size=8)
    with caplog.at_level(logging.INFO):
        progress.show(15, {"total": 0.5})  # too early for a line
        progress.show(30, {"total": 0.25, "pixel": 0.125})
    (line,) = caplog.messages
    assert line == ("pixelcam  step 30/50  total 0.2500  pixel 0.1250  8.0 images/s  20s left")


def test_tensorboard_files_where_tensorflow_is(tmp_path):
    board = logbook.Board(tmp_path)
    board.scalars(1, {"loss": 0.5})
    board.images(1, {"maps": np.zeros((1, 4, 4, 3), np.uint8)})
    board.close()
    assert any(p.name.startswith("events") for p in tmp_path.iterdir())


def test_without_tensorflow_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(logbook.importlib.util, "find_spec", lambda name: None)
    board = logbook.Board(tmp_path)
    board.scalars(1, {"loss": 0.5})
    board.close()
    assert list(tmp_path.iterdir()) == []


def test_what_ends_a_command_is_not_hidden_by_a_full_disk(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    def command():
        with logbook.recorded(tmp_path / "record.json", 0.0):
            monkeypatch.setattr(files, "write_json", full)
            raise SystemExit(0)

    with pytest.raises(SystemExit):
        command()
    assert "are not recorded: [Errno 28] No space left on device" in caplog.text
    assert "seconds" not in (tmp_path / "record.json").read_text()
