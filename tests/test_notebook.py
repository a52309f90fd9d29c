"""The notebook runs from top to bottom on drawn tissue."""

import json
import pathlib

import nbclient
import nbformat
import processes
import pytest

# TensorFlow, of TensorBoard, is slow to import.
BEFORE = processes.COLLECT_RARELY + "import sys; sys.modules['tensorflow'] = None\n"
BEFORE += processes.DRAW_FEW
ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_runs(path, tmp_path, monkeypatch):
    small = {"epochs": 1, "baseline.epochs": 1, "image_size": 96}
    monkeypatch.setenv("WSOL_NOTEBOOK_CONFIG", json.dumps(small))
    monkeypatch.setenv("WSOL_NOTEBOOK_WORKDIR", str(tmp_path / "run"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(BEFORE))
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    pictures = [
        o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})
    ]
    assert len(pictures) == 2
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "predictions" / "predictions.csv").is_file()
