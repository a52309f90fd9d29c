"""The scores of a run under other stains, from a run that has not been trained."""

import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
import small
from PIL import Image
from tissue import tissue, turned

from wsol_jax import (
    checkpoint,
    evaluate,
    experiment,
    pixel_labels,
    selection,
    stain_shift,
    stain_styles,
)
from wsol_jax.data import memory

ANGLES = {"other/a.png": 5, "b.png": 10, "other/c.png": 15, "d.png": 20}


def config_of():
    """Two phases that are cheap to compile."""
    config = small.tiny_phases()
    config.metric, config.epochs, config.baseline.epochs = "pxap", 0, 0
    return config


def stained(*, annotated=True):
    """Five stained test images with the squares of masks, the third one blank."""
    images = [tissue(seed, side=small.SIZE) for seed in range(5)]
    images[2][:] = 255
    masks = small.squares(5, 0)["mask"][:, : small.SIZE, : small.SIZE]
    masks = masks if annotated else np.full_like(masks, pixel_labels.UNANNOTATED)
    labels, names = np.arange(5, dtype=np.int32) % 2, tuple("vwxyz")
    return memory.serve(names, labels, zip(images, masks, strict=True), window=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run whose phases have one checkpoint each, of fresh weights."""
    folder, config = tmp_path_factory.mktemp("run"), config_of()
    phases = {"baseline": (config.baseline, "cam"), "pixelcam": (config, "pixelcam")}
    for phase, (section, name) in phases.items():
        state = small.begin(experiment.build(config, section.method))
        chosen = {key: {"epoch": 0, "step": 0, "value": 50.0} for key in ("b_cl", f"b_loc/{name}")}
        kept = selection.Memory([{"epoch": 0, "step": 0}], chosen, maps=[name])
        checkpoints = checkpoint.Checkpoints(folder / phase / "checkpoints")
        checkpoints.save(0, state, kept.to_dict(), {0})
        checkpoints.close()
    (folder / "config.json").write_text(config.to_json())
    maps = {phase: {"maps": {name: {}}} for phase, (_, name) in phases.items()}
    (folder / "metrics.json").write_text(json.dumps({"phases": maps}))
    return folder


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Reference images in a folder and in one inside it, beside a file that is none."""
    folder = tmp_path_factory.mktemp("references")
    (folder / "other").mkdir()
    for name, angle in ANGLES.items():
        Image.fromarray(tissue(9, turned(angle))).save(folder / name)
    (folder / "labels.csv").write_text("file,label\n")
    return folder


@pytest.fixture(autouse=True)
def _stained_data(monkeypatch):
    monkeypatch.setattr(experiment, "open_split", lambda config, name: stained())


def scores_of(run, config, split):
    """Of both phases on a split, by the evaluator itself."""
    found = {}
    for phase, section in {"baseline": config.baseline, "pixelcam": config}.items():
        method = experiment.build(config, section.method)
        evaluator = evaluate.Evaluator(method, config.evaluation_batch_size)
        like = experiment.zeros(config, method)
        variables = selection.Best(run / phase).variables(0, like)
        scores = evaluator.scores(evaluator.place(variables), split)
        found[phase] = {
            name: {"pxap": judged.compute(), "accuracy": evaluate.accuracy(scores)}
            for name, judged in scores.maps.items()
        }
    return found


def texts(run):
    """What is written in the figure."""
    svg = ElementTree.parse(run / "stain_shift.svg")
    return {"".join(element.itertext()) for element in svg.iter() if "text" in element.tag}


def test_scores_are_those_of_the_restained_images(run, references):
    config = config_of()
    found = stain_shift.run(config, run, references, 2, "macenko")
    assert json.loads((run / "stain_shift.json").read_text()) == found
    assert [row["reference"] for row in found["styles"]] == ["", "other/a.png", "d.png"]
    distances = [row["distance"] for row in found["styles"]]
    assert 0 == distances[0] < distances[1] < distances[2]
    assert found["unchanged"] == ["x"]
    assert found["checkpoints"] == {"baseline": "b_loc", "pixelcam": "b_loc"}
    test = stained()
    assert found["styles"][0]["scores"] == scores_of(run, config, test)
    reference = stain_styles.square(references / "d.png", small.SIZE)
    expected = scores_of(run, config, stain_styles.restained(test, reference, "macenko"))
    assert found["styles"][2]["scores"] == expected
    assert expected != found["styles"][0]["scores"]
    assert texts(run) >= {"CAM", "PixelCAM", "PxAP, percent", "accuracy, percent"}


def test_methods_that_do_not_classify_have_no_accuracy(run, references, monkeypatch):
    monkeypatch.setattr(evaluate, "accuracy", lambda scores: None)
    found = stain_shift.run(config_of(), run, references, 1, "reinhard")
    assert [row["reference"] for row in found["styles"]] == ["", "other/a.png"]
    assert found["styles"][1]["scores"]["baseline"]["cam"]["accuracy"] is None
    assert "PxAP, percent" in texts(run)
    assert "accuracy, percent" not in texts(run)


def test_bad_input_is_told_before_anything_is_scored(run, references, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.Evaluator, "scores", None)
    config, trained = config_of(), tmp_path / "trained"
    shutil.copytree(run, trained)
    (trained / "metrics.json").unlink()
    for arguments, error, message in (
        ((run, references, 2, "vahadane"), ValueError, r"'vahadane'; have \['macenko', 'reinh"),
        ((run, tmp_path / "absent", 2, "macenko"), FileNotFoundError, "no images under .*absent"),
        ((run, references, 5, "macenko"), ValueError, "stains of 4 of 4 .* --styles is 5"),
        ((tmp_path / "run", references, 2, "macenko"), FileNotFoundError, "no checkpoints under"),
        ((trained, references, 2, "macenko"), FileNotFoundError, "not evaluated; run: .*evaluate"),
    ):
        with pytest.raises(error, match=message):
            stain_shift.run(config, *arguments)
    (tmp_path / "manifest.csv").touch()
    with pytest.raises(ValueError, match=r"are in archives, .* then pass --images=STYLES"):
        stain_shift.run(config, run, tmp_path, 2, "macenko")
    unknown = stained(annotated=False)
    monkeypatch.setattr(experiment, "open_split", lambda config, name: unknown)
    with pytest.raises(ValueError, match="images of squares have no pixel labels"):
        stain_shift.run(config, run, references, 2, "macenko")
