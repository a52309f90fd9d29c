"""Patches of one's own slides become a folder that trains, no slide in two splits."""

import csv
import pathlib
import runpy

import numpy as np
import pytest
import slide_factory

from wsol_jax.data import pictures
from wsol_jax.slides import prepare, shards

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """Of six slides, three of them with an annotation."""
    slides, drawn = tmp_path_factory.mktemp("slides"), slide_factory.picture()
    for name, mpp in zip("abcdef", 3 * (0.25, 0.5), strict=True):
        slide_factory.write(slides / f"{name}.tif", drawn, levels=1, mpp=mpp)
        if name in "bdf":
            slide_factory.write_asap(slides / f"{name}.xml", slide_factory.outlines())
    output = tmp_path_factory.mktemp("patches") / "output"
    options = {"mode": "sample", "normal_patches": 2}
    assert not prepare.prepare(slides, output, annotations=slides, **options)
    return output


def unpack(*arguments):
    return runpy.run_path(str(SCRIPTS / "unpack_patches.py"))["main"]([*map(str, arguments)])


def test_patches_come_back_as_they_were_cut(patches, tmp_path, capsys):
    output = tmp_path / "set"
    assert unpack("--patches", patches, "--output", output) == 0
    told = capsys.readouterr().out
    assert "a patch is 128 to 256 microns wide" in told
    assert "WARNING: these are slides of different scales" in told
    with (patches / "manifest.csv").open(newline="") as stream:
        manifest = list(csv.DictReader(stream))
    with (output / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(manifest) > 4
    for row, cut in zip(rows, manifest, strict=True):
        slide = row["file"].split("/")[0]
        assert (slide, row["label"]) == (cut["slide"], cut["label"])
        found = pictures.read(output / row["file"], output / row["mask"])
        for got, expected in zip(
            found, shards.read(patches / "shards" / cut["shard"], cut), strict=True
        ):
            np.testing.assert_array_equal(got > 0 if got.ndim == 2 else got, expected)
    splits = {(row["file"].split("/")[0], row["label"], row["split"]) for row in rows}
    assert len(splits) == 6  # a slide is in one
    expected = {(label, split) for label in "01" for split in ("train", "valcl", "test")}
    assert {(label, split) for _, label, split in splits} == expected
    assert unpack("--patches", patches, "--output", output) == 2
    assert "labels.csv is there already; name a new folder" in capsys.readouterr().err


def test_slides_called_test_are_the_test(patches, tmp_path):
    renamed = tmp_path / "patches"
    renamed.mkdir()
    (renamed / "shards").symlink_to(patches / "shards")
    text = (patches / "manifest.csv").read_text().splitlines()
    column = text[0].split(",").index("split")
    lines = [text[0]]
    for line in text[1:]:
        cells = line.split(",")
        cells[column] = "test" if cells[0] in "ab" else "train"
        lines.append(",".join(cells))
    (renamed / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert unpack("--patches", renamed, "--output", tmp_path / "set") == 0
    table = (tmp_path / "set" / "labels.csv").read_text().splitlines()[1:]
    splits = {line[0]: (*line.split(",")[1:3],) for line in table}
    assert {splits[name] for name in "ab"} == {("0", "test"), ("1", "test")}
    others = sorted(splits[name] for name in "cdef")  # one of each class is held out
    assert others == [("0", "train"), ("0", "valcl"), ("1", "train"), ("1", "valcl")]


def test_what_is_no_output_of_prepare_is_told(tmp_path, capsys):
    assert unpack("--patches", tmp_path, "--output", tmp_path / "set") == 2
    assert "manifest.csv does not exist; make it by scripts/prepare" in capsys.readouterr().err
    (tmp_path / "manifest.csv").write_text("slide,split\n")
    assert unpack("--patches", tmp_path, "--output", tmp_path / "set") == 2
    assert "tells of no patch" in capsys.readouterr().err
    (tmp_path / "manifest.csv").write_text("slide,label,split\na,0,train\nb,0,train\n")
    assert unpack("--patches", tmp_path, "--output", tmp_path / "set") == 2
    assert "2 slides of class 0, ['a', 'b']: expected 3 or more" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
