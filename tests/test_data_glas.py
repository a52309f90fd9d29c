"""GlaS: the published lists, every kind of folder, every kind of fault, and the real set."""

import csv
import os
import pathlib
import zipfile

import glas_folder
import numpy as np
import pytest
from PIL import Image

from wsol_jax.data import glas, pictures, sources

COMMON = {"valpx": (6, 3), "test": (80, 37)}  # images and, of them, benign ones
COUNTS = {
    **{fold: {"train": (67, 29), "valcl": (18, 8), **COMMON} for fold in range(4)},
    4: {"train": (72, 32), "valcl": (13, 5), **COMMON},
}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return glas_folder.write(tmp_path_factory.mktemp("glas"))


@pytest.fixture
def copy(official, tmp_path):
    """A folder of links to the official one, whose files a test may replace."""
    for file in official.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def replace(file: pathlib.Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize("fold", glas.FOLDS)
def test_published_counts(fold):
    for split, expected in COUNTS[fold].items():
        grades = [grade for _, grade in glas.published(split, fold=fold)]
        assert (len(grades), grades.count("benign")) == expected


def test_folds_part_the_official_training_images():
    everything = {f"train_{i}" for i in range(1, 86)}
    held_out = []
    for fold in glas.FOLDS:
        train, valcl, valpx = (
            {name for name, _ in glas.published(s, fold=fold)} for s in ("train", "valcl", "valpx")
        )
        assert train | valcl == everything
        assert not train & valcl
        assert valpx <= valcl
        held_out += sorted(valcl)
    assert sorted(held_out) == sorted(everything)


def test_pixel_labelled_images_of_fold_0():
    names = {int(name.removeprefix("train_")) for name, _ in glas.published("valpx")}
    assert names == {68, 26, 18, 51, 63, 38}


@pytest.mark.parametrize("name", [".", glas.UNPACKED, glas.UNPACKED.replace(" ", "_")])
@pytest.mark.parametrize("suffix", [".bmp", ".png"])
def test_folder_names_and_suffixes(tmp_path, name, suffix):
    glas_folder.write(tmp_path / name, suffix=suffix)
    examples = glas.examples("valcl", fold=1, folder=tmp_path)
    listed = glas.published("valcl", fold=1)
    assert [(e.name, glas.CLASSES[e.label]) for e in examples] == list(listed)
    image, mask = examples[0].read()
    assert image.shape == (22, 31, 3)
    assert set(np.unique(mask)) == {0, 1, 2}


@pytest.mark.parametrize("name", ["train_71.bmp", "train_71_anno.bmp"])
def test_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} \(or \.png\) is missing.*glas\.download"):
        glas.examples("train", folder=copy)


def test_absent_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist.*https://warwick"):
        glas.examples("train", folder=tmp_path / "nowhere")


def test_folder_of_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no Grade\.csv.*https://warwick"):
        glas.examples("train", folder=tmp_path)


def test_mask_of_another_size(copy):
    (copy / "train_71_anno.bmp").unlink()
    Image.new("L", (30, 22)).save(copy / "train_71_anno.bmp")
    with pytest.raises(ValueError, match=r"train_71_anno\.bmp is 30 x 22, .* 31 x 22; expected eq"):
        glas.examples("train", folder=copy)


def test_truncated_image(copy):
    file = copy / "train_71.bmp"
    replace(file, file.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"cannot decode .*train_71\.bmp.*fetch it again"):
        sources.open_split("glas", "train", sizing=pictures.Sizing(8), folder=copy)


def test_no_header(copy):
    replace(copy / "train_71.bmp", b"")
    with pytest.raises(ValueError, match=r"cannot decode .*train_71\.bmp"):
        glas.examples("train", folder=copy)


@pytest.mark.parametrize("grade", ["benign", None])
def test_grade_that_contradicts_the_list(copy, grade):
    (copy / "Grade.csv").unlink()
    grades = dict(glas.published("train"))
    grades["train_71"] = grade
    glas_folder.write_grades(copy, {k: v for k, v in grades.items() if v})
    message = rf"Grade\.csv has train_71 as {grade}, the published list as malignant"
    with pytest.raises(ValueError, match=message):
        glas.examples("train", folder=copy)


def test_unknown_fold_and_split(copy):
    with pytest.raises(ValueError, match=r"unknown fold 5; have \[0, 1, 2, 3, 4\]"):
        glas.examples("train", fold=5, folder=copy)
    with pytest.raises(ValueError, match=r"unknown split 'val'; have \['train', "):
        glas.examples("val", folder=copy)


def test_download_unpacks_the_archive(official, tmp_path, monkeypatch):
    archive = tmp_path / "official.zip"
    with zipfile.ZipFile(archive, "w") as members:
        for file in official.iterdir():
            members.write(file, f"{glas.UNPACKED}/{file.name}")
    monkeypatch.setattr(glas, "ARCHIVE", archive.as_uri())
    folder = glas.download(tmp_path / "data")
    assert len(glas.examples("test", folder=folder)) == 80
    archive.unlink()
    glas.download(folder)  # kept, not fetched again


@pytest.mark.parametrize("content", [None, b"<html>moved</html>"])
def test_download_that_fails(tmp_path, monkeypatch, content):
    archive = tmp_path / "official.zip"
    if content:
        archive.write_bytes(content)
    monkeypatch.setattr(glas, "ARCHIVE", archive.as_uri())
    with pytest.raises(ConnectionError, match=r"Download file:.*by other means"):
        glas.download(tmp_path / "data")
    assert not list((tmp_path / "data").glob("*.zip"))


@pytest.mark.skipif("WSOL_GLAS" not in os.environ, reason="WSOL_GLAS names no GlaS folder")
def test_real_set():
    folder = pathlib.Path(os.environ["WSOL_GLAS"])
    with (folder / "manifest.csv").open() as file:
        manifest = {row["stem"]: row for row in csv.DictReader(file)}
    seen = {e.name: e for s in ("train", "valcl", "test") for e in glas.examples(s, folder=folder)}
    assert seen.keys() == manifest.keys()
    for example in list(seen.values())[::8]:
        image, mask = example.read()
        row = manifest[example.name]
        assert image.shape == (int(row["height"]), int(row["width"]), 3)
        assert len(np.unique(mask)) - 1 == int(row["n_instances"])
        assert np.mean(mask > 0) == pytest.approx(float(row["fg_fraction"]), abs=1e-4)
        assert image.mean() == pytest.approx(float(row["mean"]), abs=0.1)
