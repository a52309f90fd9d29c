"""Converting PyTorch checkpoints: names, refusals, and the whole way where PyTorch is there."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest
import safetensors.numpy

SCRIPT = pathlib.Path(__file__).parents[1] / "scripts" / "convert_weights.py"


@pytest.fixture(scope="module")
def convert():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("convert_weights", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WEIGHTS = {"conv1.weight": np.ones((2, 3, 1, 1)), "fc.bias": np.zeros(4)}


@pytest.mark.parametrize(
    "checkpoint",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3},
        {"model": {f"module.{name}": value for name, value in WEIGHTS.items()}},
        {"model_state_dict": {f"_orig_mod.module.{k}": v for k, v in WEIGHTS.items()}},
    ],
    ids=["plain", "container", "data-parallel", "compiled"],
)
def test_tensors_keep_their_own_names(convert, checkpoint):
    assert convert.state_dict(checkpoint) == WEIGHTS


def test_names_inside_are_left_alone(convert):
    assert list(convert.state_dict({"head.module.weight": np.ones(1)})) == ["head.module.weight"]


@pytest.mark.parametrize(("checkpoint", "found"), [({}, "nothing"), ({"epoch": 3}, "'epoch'")])
def test_other_objects_are_refused(convert, checkpoint, found):
    with pytest.raises(ValueError, match=f"expected a state_dict.*found .*{found}"):
        convert.state_dict(checkpoint)


def test_missing_file_is_named(convert, tmp_path, capsys):
    with pytest.raises(SystemExit):
        convert.main([str(tmp_path / "none.pth"), str(tmp_path / "out.safetensors")])
    assert f"no checkpoint {tmp_path / 'none.pth'}" in capsys.readouterr().err


def test_missing_torch_is_explained(convert, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    source = tmp_path / "weights.pth"
    source.touch()
    with pytest.raises(SystemExit):
        convert.main([str(source), str(tmp_path / "out.safetensors")])
    assert "pip install torch" in capsys.readouterr().err


def test_converts_and_refuses_real_files(convert, tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    source, target = tmp_path / "weights.pth", tmp_path / "weights.safetensors"
    weights = {"w": torch.arange(6.0).reshape(2, 3).T.half(), "n": torch.tensor(7)}
    torch.save({"state_dict": weights}, source)
    convert.main([str(source), str(target)])
    tensors = safetensors.numpy.load_file(target)
    np.testing.assert_array_equal(tensors["w"], [[0, 3], [1, 4], [2, 5]])
    assert tensors["w"].dtype == np.float32
    assert tensors["n"] == 7
    torch.save(torch.nn.Linear(2, 2), source)
    with pytest.raises(SystemExit):
        convert.main([str(source), str(target)])
    assert "holds more than tensors" in capsys.readouterr().err
