"""The command line: what it starts, and what it says to a wrong call."""

import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import numpy as np
import processes
import pytest
import slide_factory
from absl import app, flags
from absl.testing import flagsaver
from PIL import Image

from wsol_jax import arguments as command_line
from wsol_jax import cpu, main, report, train
from wsol_jax.data import synthetic_glands

ROOT = pathlib.Path(__file__).parents[1]
SHORT = ["--config.epochs=1", "--config.baseline.epochs=1", "--config.image_size=96"]


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    for split, count in processes.FEW.items():
        monkeypatch.setitem(synthetic_glands.SPLITS, split, count)


@flagsaver.flagsaver
def call(*arguments):
    """Runs the command in this process."""
    command = ["wsol_jax.main", *arguments]
    with (
        mock.patch.object(sys, "argv", command),  # where config flags look for overrides
        mock.patch.object(cpu, "keep_memory"),  # which would outlive the test
    ):
        command_line.check(arguments)
        main.main(flags.FLAGS(command))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The quickstart cut to one epoch of few images, without TensorFlow and clu."""
    folder = tmp_path_factory.mktemp("main") / "run"
    hidden = ["tensorflow", "tensorflow_datasets", "clu", "tensorboard"]
    program = (
        processes.COLLECT_RARELY
        + f"import sys; sys.modules.update(dict.fromkeys({hidden})); import runpy\n"
    )
    program += processes.DRAW_FEW
    program += "runpy.run_module('wsol_jax.main', run_name='__main__', alter_sys=True)"
    arguments = ["--config=configs/quickstart.py", f"--workdir={folder}", *SHORT]
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, check=True)
    return folder


def test_trains_evaluates_and_reports_without_tensorflow(trained):
    present = {path.name for path in trained.iterdir()}
    assert present >= {
        *("config.json", "record.json", "metrics.json", "report.html", "gallery.npz", "cams.npy"),
        *("baseline", "pixelcam"),
    }


def test_a_run_knows_its_config(trained, tmp_path):
    before = json.loads((trained / "metrics.json").read_text())
    call("--mode=evaluate", f"--workdir={trained}")
    assert json.loads((trained / "metrics.json").read_text()) == before
    call("--mode=transfer", f"--workdir={trained}", "--config=configs/quickstart.py")
    there = json.loads((trained / "on_synthetic_glands.json").read_text())["phases"]
    for phase, results in before["phases"].items():
        for name, at in results["maps"].items():
            own, moved = (found["b_loc"]["test"] for found in (at, there[phase]["maps"][name]))
            assert moved == {key: value for key, value in own.items() if key in moved}
            assert moved["pxap"] > 0
    (trained / "report.html").unlink()
    call("--mode=report", f"--workdir={trained}")
    assert (trained / "report.html").is_file()
    with np.load(trained / "gallery.npz") as gallery:
        Image.fromarray(gallery["image"][0]).resize((90, 70)).save(tmp_path / "mine.png")
        tissue = np.asarray(Image.fromarray(gallery["image"][0]).resize((128, 128)))
        (tmp_path / "masks").mkdir()
        Image.fromarray(gallery["mask"][0]).resize((90, 70)).save(tmp_path / "masks" / "mine.png")
    call("--mode=predict", f"--workdir={trained}", f"--images={tmp_path}")
    assert np.load(trained / "predictions" / "mine.npy").shape == (70, 90)
    maps = trained / "predictions"
    call("--mode=evaluate_maps", f"--maps={maps}", f"--masks={tmp_path / 'masks'}")
    scores = json.loads((maps / "scores.json").read_text())["maps"]
    assert (scores["kinds"], scores["resized"]) == ([".npy"], 0)
    assert 0 < scores["pxap"]["value"] <= 100
    (slides := trained.with_name("slides")).mkdir()
    slide_factory.write(slides / "tissue.tif", tissue.repeat(2, 0), mpp=0.5)
    call("--mode=predict_slides", f"--workdir={trained}", f"--images={slides}", "--field=48")
    with Image.open(trained / "slides" / "tissue" / "map.tif") as heat:
        assert heat.size == (16, 32)  # cells of 12 along a tile of 96 pixels
        assert np.any(heat)
    call("--mode=stain_shift", f"--workdir={trained}", f"--images={tmp_path}", "--styles=1")
    shift = json.loads((trained / "stain_shift.json").read_text())
    assert [row["reference"] for row in shift["styles"]] == ["", "mine.png"]
    for phase, maps in shift["styles"][0]["scores"].items():
        for name, scores in maps.items():
            reported = before["phases"][phase]["maps"][name]["b_loc"]["test"]
            assert scores == {key: reported[key] for key in ("pxap", "accuracy")}
    call("--mode=embed", f"--workdir={trained}")
    assert "epoch 1" in (trained / "embedding.svg").read_text()
    page = (trained / "report.html").read_text()
    assert all(f">{title}<" in page for title in report.DRAWINGS.values())


def test_a_table_plans_its_runs(tmp_path, capsys):
    settings = ["--config.dry_run", f"--config.runs={tmp_path}", "--config.folders.glas=/nowhere"]
    with mock.patch.object(train, "run"):
        call("--mode=report", "--config=configs/paper/table16.py:short", *settings)
    told = capsys.readouterr().err
    assert "cannot be run: 5 of 10: the GlaS folder /nowhere does not exist" in told
    assert "0 of 10 finished; 0 to train" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass --config=configs/NAME.py, or --workdir=FOLDER"),
        (["--workdir=/nonexistent"], "/nonexistent is not a run"),
        (["--mode=predict", "--config=configs/quickstart.py"], "needs --images=FOLDER"),
        (["--mode=stain_shift", "--config=configs/quickstart.py"], "needs --images=FOLDER"),
        (["--mode=predict_slides", "--workdir=a"], "needs --images=FOLDER and --field=MICRONS"),
        (["--mode=embed", "--config=configs/quickstart.py", "--processes=2"], "by one process"),
        (["--workdir=~/run"], "--workdir=~/run: the shell leaves ~ as it is here; write $HOME"),
        (
            ["--mode=stain_shift", "--workdir=a", "--images=b", "--output=c"],
            "--output does nothing in --mode=stain_shift; it is of predict, predict_slides, eval",
        ),
        (
            ["--checkpoint=last", "--workdir=a"],
            "--checkpoint does nothing in --mode=train; it is of",
        ),
        (["--mode=evaluate", "--config=configs/quickstart.py"], "no checkpoints under"),
        (
            ["--config=configs/quickstart.py", "--config.baseline.optimizer.learning_rate=-1"],
            "learning_rate is -1.0; expected a number above 0",
        ),
        (
            ["--config=configs/quickstart.py", "--config.weights.mean=123.7,116.3,103.5"],
            "weights.mean (of values in [0, 1]) is 123.7; expected a number at least 0 and at m",
        ),
        (
            ["--config=configs/pixelcam_glas.py", "--config.optimizer.fast=head,decoder"],
            "expected several: --config.optimizer.fast=\"('head', 'decoder')\"",
        ),
        (["--mode=transfer", "--workdir=runs/a"], "needs --workdir=FOLDER and --config=FILE"),
        (
            ["--mode=transfer", "--config=configs/paper/table01.py"],
            "configs/paper/table01.py is a whole table",
        ),
        (
            ["--mode=transfer", "--config=configs/quickstart.py", "--workdir=gs://bucket/run"],
            "--workdir=gs://bucket/run is an address; expected a folder",
        ),
        (["--mode=embed", "--config=configs/quickstart.py"], "no checkpoints under"),
        (["--config=configs/quickstart.py", "--process=1"], "missing: --coordinator, --processes"),
        (["--mode=evaluate_maps", "--maps=MAPS"], "needs --maps=FOLDER and --masks=FOLDER"),
        (["--mode=evaluate_maps", "--maps=/maps", "--masks=/absent"], "no folder /absent"),
        (["--mode=tune", "--config=configs/quickstart.py"], "train|evaluate|report|predict"),
        (
            ["--config=configs/quickstart.py", "--config.epoch=3"],
            "--config.epoch=3: config has no 'epoch'; have ['augment', ",
        ),
        (["--config=configs/quickstart.py", "extra"], "unexpected arguments"),
        (
            ["--config=configs/paper/table17.py"],
            "is a whole table: pass --mode=report, or one of its rows, such as "
            "--config=configs/paper/table17.py:glas/layer_cam+pixelcam,lambda=1",
        ),
        (
            ["--config=configs/miniature.py"],
            "configs/miniature.py is a whole table: pass --mode=report",
        ),
        (["--config=configs/paper/table01.py:glas/cam"], "unknown row 'glas/cam'; have ['glas/"),
        (
            ["--config=configs/pixelcam_glas.py", "--config.data.folder=/nonexistent"],
            "the GlaS folder /nonexistent does not exist",
        ),
        (["--config=configs/pixelcam_glas.py", "--config.data.fold=9"], "fold 9"),
        (["--config=configs/quickstart.py", "--config.parallel=dask"], "['jit', 'pmap']"),
        (["--config=configs/quickstart.py", "--config.method.name=pixlcam"], "'pixlcam'; have"),
        (["--config=configs/quickstart.py", "--config.backbone.name=alexnet"], "'alexnet'; have"),
        (["--config=configs/quickstart.py", "--config.weights.source=no.npz"], "no weights at"),
    ],
)
def test_wrong_calls_are_told(arguments, message, tmp_path):
    own = not arguments or any(a.startswith("--workdir=") for a in arguments)
    workdir = [] if own else [f"--workdir={tmp_path}"]
    with pytest.raises((app.UsageError, flags.Error, ValueError, OSError)) as error:
        call(*arguments, *workdir)
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_of_an_error_of_ones_own_the_message_alone_is_shown(tmp_path):
    command = [sys.executable, "-m", "wsol_jax.main", "--config=configs/pixelcam_glas.py"]
    command += ["--config.data.folder=/nonexistent", f"--workdir={tmp_path}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 1
    assert "wsol_jax: the GlaS folder /nonexistent does not exist" in told.stderr
    assert "Traceback" not in told.stderr
