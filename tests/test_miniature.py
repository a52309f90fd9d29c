"""A paper in miniature by the command: two methods, two seeds, killed once, then gone on with."""

import pathlib
import signal
import subprocess

import processes
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = f"""
import runpy, sys
sys.modules["tensorflow"] = None  # of TensorBoard, slow to import
{processes.DRAW_FEW}
runpy.run_module("wsol_jax.main", run_name="__main__", alter_sys=True)
"""


def start(folder):
    """The command, which makes the table of the config in `folder`."""
    table, runs = f"--workdir={folder}/table", f"--config.runs={folder}/runs"
    config = f"--config={ROOT}/configs/miniature.py:short"
    return processes.start(PROGRAM, "--mode=report", config, table, runs, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a table whose third run was killed, and what the command said afterwards."""
    folder = tmp_path_factory.mktemp("paper")
    killed = start(folder)
    for line in killed.stderr:  # a method after the other, each with all its seeds
        if "pixelcam  epoch 1/2" in line:
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "table").exists()
    process = start(folder)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return folder, said


def test_the_killed_run_goes_on_and_the_others_are_trained(made):
    folder, said = made
    assert "2 of 4 finished; 2 to train" in said
    assert "goes on: " in said
    assert "pixelcam: going on from step " in said
    assert len(list(folder.glob("runs/*/metrics.json"))) == 4


def test_the_table_is_of_both_seeds_and_says_what_was_reduced(made):
    lines = (made[0] / "table" / "table.md").read_text().splitlines()
    header, _, *rows = (line for line in lines if line.startswith("|"))
    assert header == "|  | Synthetic glands PxAP | Synthetic glands CL |"
    assert [row.split(" | ")[0] for row in rows] == ["| LayerCAM", "| LayerCAM + PixelCAM"]
    assert all(row.count("(n=2) [a]") == 2 for row in rows)
    assert "- a: schedule: 2 epochs a phase at 64 pixels" in lines
    assert lines[2].startswith("4 runs, ")


def test_the_figure_has_a_map_of_each_method(made):
    with Image.open(made[0] / "table" / "gallery_synthetic_glands.png") as picture:
        assert picture.width == pytest.approx(230 * 4, abs=2)  # image, truth, two maps
