"""Arguments that are wrong are named, and those that absl takes are not refused."""

import pytest

from wsol_jax import arguments

CONFIG = "configs/pixelcam_glas.py"
TAKEN = [
    [],
    ["--workdir=runs/a"],
    [f"--config={CONFIG}"],
    [f"--config={CONFIG}:grad_cam_pp", "--config.epochs=3", "--config.baseline.epochs=2"],
    ["--config", CONFIG, "--config.epochs", "3"],
    [f"-config={CONFIG}", "-config.method.pixel_weight=0.1"],
    [f"--config={CONFIG}", "--config.keep_aspect", "--noconfig.augment.turn"],
]
REFUSED = [
    (
        [f"--config={CONFIG}", "--config.epoch=3"],
        r"--config\.epoch=3: config has no 'epoch'; have \['augment', .*'epochs', ",
    ),
    (
        ["--config", CONFIG, "--config.baseline.method.readout=cam"],
        r"config\.baseline\.method has no 'readout'; have \[.*'readouts'\]",
    ),
    (
        ["-config=configs/layercam_glas.py", "-config.baseline.epochs=1"],
        r"-config\.baseline\.epochs=1: config\.baseline is None here, and has no settings",
    ),
    (["--workdir=runs/a", "--config.epochs=3"], "--config.epochs=3 is a setting of a config; pass"),
    (["--config=configs/common.py"], r"configs/common\.py: there is no get_config\(\) in it"),
    (["--config=configs/layercam_glas.py:vgg16"], "has no variants; pass configs/layercam_glas.py"),
    (
        [f"--config={CONFIG}:vgg16"],
        rf"--config={CONFIG}:vgg16: unknown map 'vgg16'; have \['cam', 'deep_mil', ",
    ),
    (
        ["--config=configs/paper/table01.py:glas/cam"],
        r"--config=configs/paper/table01\.py:glas/cam: unknown row 'glas/cam'; have \['glas/",
    ),
    (["--images=~/images"], r"--images=~/images: the shell leaves ~ as it is here; write \$HOME"),
]


@pytest.fixture(autouse=True)
def _root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize("given", TAKEN)
def test_what_absl_takes_is_taken(given):
    arguments.check(given)


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        arguments.check(given)


def test_an_absent_file_is_told_with_the_configs_there_are():
    with pytest.raises(
        FileNotFoundError, match=r"no such file; have \['configs/layercam_glas"
    ) as e:
        arguments.check(["--config=configs/layercam.py"])
    assert "configs/common.py" not in str(e.value)


def test_a_file_of_flags_is_read(tmp_path):
    file = tmp_path / "flags.txt"
    file.write_text(f"--config={CONFIG}\n")
    arguments.check([f"--flagfile={file}", "--config.epochs=3"])
    with pytest.raises(ValueError, match="no 'epoch'"):
        arguments.check([f"--flagfile={file}", "--config.epoch=3"])
