"""Folders of maps and masks, from the files to the scores."""

import csv
import json
import logging

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from score_maps import maps as score_maps
from sklearn.metrics import average_precision_score
from test_map_files import write
from test_metrics import dice, pxap

from wsol_jax import evaluate, evaluate_maps, significance

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(significance, "RESAMPLES", 100)


@pytest.fixture
def drawn():
    """Maps of 5 images, quantised to the middle of bins, and their truth."""
    scores, truth, _ = score_maps(0, (5, 9, 8), ignored=0)
    truth[1] = 0
    return scores, truth


@pytest.fixture
def masks(drawn, tmp_path):
    """A folder of masks: 255 or an instance number is foreground."""
    (tmp_path / "masks").mkdir()
    for name, truth, value in zip(NAMES, drawn[1], (255, 1, 255, 7, 1), strict=True):
        ending = ".bmp" if name == "d" else ".png"
        Image.fromarray(truth * np.uint8(value)).save(tmp_path / "masks" / f"{name}{ending}")
    return tmp_path / "masks"


def written(folder, values, ending=".npy"):
    """A folder of maps."""
    folder.mkdir()
    for name, heat in zip(NAMES, values, strict=True):
        write(folder / f"{name}{ending}", heat)
    return folder


def table(folder):
    """The rows of `scores.csv`."""
    return list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))


def test_scores_are_those_of_the_pixels_of_all_images(drawn, masks, tmp_path):
    scores, truth = drawn
    found = evaluate_maps.run(written(tmp_path / "maps", scores), masks, tmp_path / "out")
    expected = 100 * average_precision_score(truth.ravel(), scores.ravel())
    assert found["maps"]["pxap"]["value"] == pytest.approx(expected, abs=1e-9)
    assert found["maps"]["pxap"]["value"] == pxap(scores, truth).compute()
    summary = dice(scores, truth).summary()
    for name in ("f1_foreground", "f1_background"):
        assert found["maps"][name]["value"] == pytest.approx(summary[name], rel=1e-12)
    assert found["constant_map"] == pytest.approx(100 * truth.mean())
    assert (found["images"], found["maps"]["resized"]) == (5, 0)


def test_what_is_written_is_what_is_returned(drawn, masks, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    folder = written(tmp_path / "maps", drawn[0])
    found = evaluate_maps.run(folder, masks, tmp_path / "out", against=folder)
    stored = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert stored.pop("record")["commit"]
    assert stored == found
    rows = table(tmp_path / "out")
    assert [(row["maps"], row["image"]) for row in rows] == [
        (title, name) for title in ("maps", "against") for name in NAMES
    ]
    assert rows[1]["pxap"] == rows[1]["f1_foreground"] == ""  # b has no foreground
    expected = pxap(drawn[0][2:3], drawn[1][2:3]).compute()
    assert float(rows[2]["pxap"]) == pytest.approx(expected)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scores.json", "scores.csv"}
    assert "difference  0.00 [0.00, 0.00] p 1" in caplog.text
    assert f"maps: 5 .npy files of {folder}, 0 of them resized" in caplog.text


@pytest.mark.parametrize(
    ("ending", "top"), [(".png", 65535), (".tif", 65535), (".png", 255), (".tif", None)]
)
def test_pictures_score_as_the_arrays_they_are_of(ending, top, drawn, masks, tmp_path):
    scores = drawn[0]
    kind = {65535: np.uint16, 255: np.uint8, None: np.float32}[top]
    pictures = scores if top is None else np.rint(scores.astype(float) * top).astype(kind)
    found = [
        evaluate_maps.run(folder, masks, folder)["maps"]["pxap"]["value"]
        for folder in (
            written(tmp_path / "arrays", scores),
            written(tmp_path / "pictures", pictures, ending),
        )
    ]
    assert found[1] == pytest.approx(found[0], abs=0.2 if top == 255 else 1e-9)


def test_large_images_are_counted_in_parts(drawn, masks, tmp_path, monkeypatch):
    folder = written(tmp_path / "maps", drawn[0])
    whole = evaluate_maps.run(folder, masks, folder)
    monkeypatch.setattr(evaluate_maps, "CHUNK", 50)
    assert evaluate_maps.run(folder, masks, folder) == whole


def test_maps_of_another_size_are_resized_and_told(drawn, masks, tmp_path):
    scores, truth = drawn
    small = [scores[0, :4, :4], scores[1, :4, :4], *scores[2:]]
    found = evaluate_maps.run(written(tmp_path / "maps", small), masks, tmp_path / "out")
    assert found["maps"]["resized"] == 2
    rows = table(tmp_path / "out")
    assert [row["resized"] for row in rows] == ["1", "1", "0", "0", "0"]
    full = np.concatenate([evaluate.to_size(jnp.asarray(scores[:2, :4, :4]), (9, 8)), scores[2:]])
    assert found["maps"]["pxap"]["value"] == pxap(full, truth).compute()


def test_better_maps_lead(drawn, masks, tmp_path):
    scores, truth = drawn
    better = written(tmp_path / "better", np.where(truth == 1, 1, scores / 2).astype(np.float32))
    worse = written(tmp_path / "worse", scores)
    found = evaluate_maps.run(better, masks, better, against=worse)
    lead = found["difference"]["pxap"]
    values = [found[title]["pxap"]["value"] for title in ("maps", "against")]
    assert lead["value"] == pytest.approx(values[0] - values[1])
    assert lead["low"] > 0 == lead["not_above"]
    reverse = evaluate_maps.run(worse, masks, worse, against=better)["difference"]["pxap"]
    bounds = [-reverse[name] for name in ("value", "high", "low")]
    assert bounds == pytest.approx([lead[name] for name in ("value", "low", "high")])
    assert (reverse["not_above"], reverse["p"]) == (1, lead["p"])


def test_bad_files_are_told_and_nothing_is_written(drawn, masks, tmp_path):
    scores, _ = drawn
    folder = written(tmp_path / "maps", scores)
    scores[4, 0, 0] = np.nan
    broken = written(tmp_path / "broken", scores)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"1 of the 72 values of .*e\.npy are not in \[0, 1\]"):
        evaluate_maps.run(folder, masks, out, against=broken)
    (broken / "e.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 5 masks have no map in .*broken \['e'\]"):
        evaluate_maps.run(folder, masks, out, against=broken)
    for path in masks.iterdir():
        Image.new("L", (8, 9)).save(path)
    with pytest.raises(ValueError, match="none of the 360 pixels of the masks is foreground"):
        evaluate_maps.run(folder, masks, out)
    Image.new("RGB", (8, 9)).save(masks / "a.png")
    with pytest.raises(ValueError, match=r"mask .*a\.png has colour mode RGB"):
        evaluate_maps.run(folder, masks, out)
    assert list(out.iterdir()) == []
