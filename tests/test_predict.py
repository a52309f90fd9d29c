"""Maps of a user's own images, at their own sizes."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from PIL import Image

from wsol_jax import augment, evaluate, experiment, predict, train
from wsol_jax import trained as training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of one phase."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "open_data", small.small_data)
        folder = tmp_path_factory.mktemp("run") / "small"
        train.run(small.small_config("classifier"), folder)
    return folder


@pytest.fixture
def images(tmp_path):
    """Three images of different sizes, formats and modes."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, mode, shape in [
        ("a.png", "RGB", (50, 31)),
        ("b.tif", "L", (32, 32)),
        ("c.bmp", "RGB", (9, 80)),
    ]:
        channels = (3,) if mode == "RGB" else ()
        Image.fromarray(rng.integers(0, 256, (*shape, *channels), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def run(trained, images, output, checkpoint="b_loc"):
    return predict.run(small.small_config("classifier"), trained, images, output, checkpoint)


def read(path):
    """An image file as an array."""
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_image_gets_a_map_of_its_size(trained, images, tmp_path):
    rows = run(trained, images, tmp_path / "out")
    assert [row["image"] for row in rows] == ["a.png", "b.tif", "c.bmp"]
    for row, shape in zip(rows, [(50, 31), (32, 32), (9, 80)], strict=True):
        stem = row["image"].partition(".")[0]
        heat = np.load(tmp_path / "out" / f"{stem}.npy")
        assert heat.shape == shape
        assert 0 <= heat.min() <= heat.max() <= 1
        np.testing.assert_allclose(read(tmp_path / f"out/{stem}.png") / 65535, heat, atol=1e-5)
        assert read(tmp_path / f"out/{stem}_overlay.png").shape == (*shape, 3)
        assert row["foreground"] == pytest.approx(np.mean(heat >= row["threshold"]))
    text = (tmp_path / "out" / "predictions.csv").read_text()
    table = list(csv.DictReader(text.splitlines()))
    assert [float(r["probability"]) for r in table] == [r["probability"] for r in rows]
    assert all(0.5 <= row["probability"] <= 1 for row in rows)


def test_the_threshold_is_the_validations(trained, images, tmp_path):
    numbers = json.loads((trained / "metrics.json").read_text())
    maps = numbers["phases"]["classifier"]["maps"]
    name = next(iter(maps))
    expected = maps[name]["last"]["test"]["at_validation_threshold"]["threshold"]
    assert run(trained, images, tmp_path / "out", "last")[0]["threshold"] == expected


@pytest.mark.parametrize(
    ("numbers", "threshold"),
    [
        ({"valpx": {"pxap": 60.0, "threshold": 0.25}, "test": {"accuracy": 90.0}}, 0.25),
        ({"test": {"accuracy": 90.0}}, 0.5),
        ({"valpx": {"pxap": 60.0}, "test": {"accuracy": 90.0}}, None),
    ],
)
def test_the_threshold_is_there_without_masks_of_test_images(tmp_path, numbers, threshold):
    maps = {"cam": {"last": numbers}}
    (tmp_path / "metrics.json").write_text(json.dumps({"phases": {"classifier": {"maps": maps}}}))
    where = (tmp_path, "classifier", "cam", "last")
    if threshold is not None:
        assert predict._threshold(*where) == threshold
        return
    with pytest.raises(ValueError, match=r"kept no threshold; run: .*--mode=evaluate"):
        predict._threshold(*where)


def test_bad_input_is_told_before_anything_is_written(trained, images, tmp_path):
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken.png: .* expected a whole image file"):
        run(trained, images, tmp_path / "out")
    (images / "broken.png").unlink()
    (images / "a.jpg").write_bytes((images / "a.png").read_bytes())
    message = r"would be mapped to \['a.npy', 'a.png', 'a_overlay.png'\]; rename some"
    with pytest.raises(ValueError, match=message):
        run(trained, images, tmp_path / "out")
    (images / "a.jpg").rename(images / "a_overlay.jpg")
    with pytest.raises(ValueError, match=r"would be mapped to \['a_overlay.png'\]; rename some"):
        run(trained, images, tmp_path / "out")
    (images / "a_overlay.jpg").rename(images / "a.jpg")
    with pytest.raises(ValueError, match=r"is the folder of the images, .* pass another --output"):
        run(trained, images, images / "." / ".." / "images")
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        run(trained, tmp_path / "absent", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images in .*empty"):
        run(trained, tmp_path / "empty", tmp_path / "out")
    (images / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"unknown checkpoint 'best'; have \['last'"):
        run(trained, images, tmp_path / "out", "best")
    assert not (tmp_path / "out").exists()


def test_files_that_no_prediction_wrote_are_not_replaced(trained, images, tmp_path):
    output = tmp_path / "masks"
    output.mkdir()
    (output / "a.png").write_bytes(b"a mask")
    with pytest.raises(FileExistsError, match=r"masks holds \['a.png'\], .* pass another --output"):
        run(trained, images, output)
    assert [path.name for path in output.iterdir()] == ["a.png"]
    (output / "a.png").unlink()
    for _ in range(2):  # its own it replaces
        assert len(run(trained, images, output)) == 3


def test_the_table_holds_what_is_mapped_when_a_command_breaks_off(
    trained, images, tmp_path, monkeypatch
):
    write, written = predict._write, []

    def full(stem, *arrays):
        if len(written) == 2:
            raise OSError("no space left on device")
        written.append(stem.name)
        write(stem, *arrays)

    monkeypatch.setattr(predict, "_write", full)
    with pytest.raises(OSError, match="no space"):
        run(trained, images, tmp_path / "out")
    file = tmp_path / "out" / "predictions.csv"
    assert [row["image"] for row in csv.DictReader(file.read_text().splitlines())] == [
        "a.png",
        "b.tif",
    ]
    monkeypatch.setattr(predict, "_write", write)
    run(trained, images, tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert before[file].count(b"\n") == 4
    monkeypatch.setattr(predict, "_write", full)
    with pytest.raises(OSError, match="no space"):  # again, over what is whole
        run(trained, images, tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before


def test_the_first_map_of_the_config_is_predicted(trained):
    config = small.small_config("classifier")
    assert predict.localizer(config, trained, "last").origin.startswith("cam at step")
    config.method.readouts = ("layer_cam", "cam")
    assert predict.localizer(config, trained, "last").origin.startswith("layer_cam at step")


def test_without_a_run(images, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoints under"):
        run(tmp_path / "nothing", images, tmp_path / "out")


def test_what_is_written_is_what_the_model_makes_of_the_image(trained, images, tmp_path):
    rows = run(trained, images, tmp_path / "out")
    config = small.small_config("classifier")
    phase = training.phase(config, trained, "classifier")
    variables = phase.best.variables(phase.best.step("b_loc", "cam"), phase.like)
    image = np.stack([read(images / "b.tif")] * 3, axis=-1)  # of the size that is evaluated
    view = augment.eval_view({"image": jnp.asarray(image[None])})["image"]
    logits, maps = phase.method.localize(variables, view)
    expected = np.asarray(evaluate.to_size(maps["cam"], image.shape[:2]))[0]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "b.npy"), expected, atol=1e-4)
    assert expected.std() > 0.05
    (row,) = [row for row in rows if row["image"] == "b.tif"]
    assert row["class"] == int(np.argmax(logits))
    assert row["probability"] == pytest.approx(float(jax.nn.softmax(logits).max()), abs=1e-4)
    assert row["foreground"] == pytest.approx(np.mean(expected >= row["threshold"]), abs=0.01)
