"""The CAMELYON16 source: the published order, pixels of the shards, and what is missing is told."""

import pathlib
import runpy
import sys

import jax
import numpy as np
import pytest

from wsol_jax.data import builders, camelyon16, pictures, sources
from wsol_jax.slides import patches, prepare, published_patches, shards

SCRIPT = pathlib.Path(__file__).parents[1] / "scripts" / "prepare_records.py"
KEPT = {"train": 5, "valcl": 7, "valpx": 2, "test": 4}  # of every split and class


@pytest.fixture(scope="module")
def few():
    """A few published patches of every split, by split and division."""
    found = {}
    for division in ("slide_disjoint", "patch_fold2"):
        for split in published_patches.SPLITS[division]:
            listed = published_patches.read(split, division=division)
            count = KEPT[split]
            normal, metastatic = ([p for p in listed if p.label == k][:count] for k in (0, 1))
            found[split, division] = (*metastatic, *normal)
    return found


@pytest.fixture(scope="module")
def folder(few, tmp_path_factory):
    """Shards and manifest, as of slides whose patches have a colour and a mask of their own."""
    output = tmp_path_factory.mktemp("camelyon16")
    (output / "shards").mkdir()
    slides = {}
    for patch in {p for listed in few.values() for p in listed}:
        slides.setdefault(patch.slide, []).append(patch)
    rows = []
    for name, listed in sorted(slides.items()):
        drawn = (patches.Patch(*p[1:6], "train", *pixels(p)) for p in listed)
        file = output / "shards" / f"{name}.zip"
        shards.write(file, {"slide": name, "fingerprint": "", "mpp": None}, drawn)
        rows += prepare._rows(shards.contents(file), file.name)
    prepare._write_csv(output / "manifest.csv", prepare.COLUMNS, rows)
    return output


@pytest.fixture(autouse=True)
def only_few(few, monkeypatch):
    def read(split, *, division="slide_disjoint"):
        return few[split, division]

    monkeypatch.setattr(published_patches, "read", read)


def pixels(patch):
    random = np.random.default_rng([patch.x, patch.y])
    image = np.broadcast_to(random.integers(256, size=3, dtype=np.uint8), (512, 512, 3))
    mask = np.zeros((512, 512), np.uint8)
    mask[: random.integers(512)] = patch.label
    return image, mask


@pytest.mark.parametrize("place", [("train", "slide_disjoint"), ("valpx", "patch_fold2")])
def test_examples_are_the_published_patches_in_order(few, folder, place):
    split, division = place
    examples = camelyon16.examples(split, division=division, folder=folder)
    listed = camelyon16.mixed(few[place]) if split == "train" else few[place]
    assert sorted(listed) == sorted(few[place])
    assert [(e.name, e.label) for e in examples] == [(p.name, p.label) for p in listed]
    for example, patch in zip(examples, listed, strict=True):
        for read, expected in zip(example.read(), pixels(patch), strict=True):
            np.testing.assert_array_equal(read, expected)


def test_a_few_test_patches_are_half_of_each_class_in_order(few, folder):
    listed = few["test", "slide_disjoint"]
    drawn = camelyon16.drawn(listed, 4)
    assert sorted(patch.label for patch in drawn) == [0, 0, 1, 1]
    assert [p for p in listed if p in drawn] == list(drawn)
    assert camelyon16.drawn(listed, 4) == drawn
    assert camelyon16.drawn(listed, 8) == listed
    options = {"sizing": pictures.Sizing(32), "folder": folder, "test_patches": 4}
    assert sources.open_split("camelyon16", "test", **options).names == tuple(p.name for p in drawn)
    assert sources.open_split("camelyon16", "train", **options).size == len(
        few["train", "slide_disjoint"]
    )


@pytest.mark.parametrize("count", [0, 3, 10])
def test_test_patches_that_cannot_be_halved_are_refused(few, count):
    message = rf"{count} patches cannot be half .*; expected an even number from 2 to 8"
    with pytest.raises(ValueError, match=message):
        camelyon16.drawn(few["test", "slide_disjoint"], count)


def test_a_few_test_patches_are_served_from_memory_alone(folder):
    options = {"sizing": pictures.Sizing(32), "folder": folder, "test_patches": 4}
    with pytest.raises(ValueError, match=r"test_patches 4: TFDS serves all .* source 'memory'"):
        sources.open_split("camelyon16", "test", source="tfds", **options)


def test_twelve_patches_of_disjoint_slides_are_validated_by_mask(few, folder):
    options = {"sizing": pictures.Sizing(32), "folder": folder}
    ours = sources.open_split("camelyon16", "valpx", **options)
    assert np.bincount(ours.labels).tolist() == [6, 6]
    assert {*ours.names} < {p.name for p in few["valcl", "slide_disjoint"]}
    published = sources.open_split("camelyon16", "valpx", division="patch_fold2", **options)
    assert published.size == len(few["valpx", "patch_fold2"])


def test_folds_that_share_slides_are_told(folder, caplog):
    options = {"sizing": pictures.Sizing(32), "folder": folder}
    sources.open_split("camelyon16", "valcl", **options)
    assert not caplog.records
    sources.open_split("camelyon16", "valcl", division="patch_fold2", **options)
    assert (
        "slides of 'valcl' are in 'train' too: its accuracy, by which B-CL is chosen, is"
        in caplog.text
    )


def test_both_sources_give_equal_batches(few, folder, tmp_path):
    sizing = pictures.Sizing(32)
    options = {"sizing": sizing, "folder": folder}
    memory = sources.open_split("camelyon16", "test", **options)
    stored = sources.open_split("camelyon16", "test", source="tfds", data_dir=tmp_path, **options)
    assert memory.names == stored.names == tuple(p.name for p in few["test", "slide_disjoint"])
    for one, other in zip(memory.ordered(4), stored.ordered(4), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("workers", [1, 4])
def test_beam_makes_the_same_records(few, folder, tmp_path, workers):
    pytest.importorskip("apache_beam")
    flags = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
    built = [
        builders.prepare("camelyon16", folder=folder, data_dir=tmp_path / name, beam_flags=given)
        for name, given in (("one", None), ("beam", flags))
    ]
    for split in camelyon16.SPLITS:
        one, by_beam = (list(b.as_dataset(split=split).as_numpy_iterator()) for b in built)
        assert [row["name"].decode() for row in by_beam] == [
            example.name for example in camelyon16.examples(split, folder=folder)
        ]
        jax.tree.map(np.testing.assert_array_equal, by_beam, one)


def test_without_beam_the_script_names_what_is_missing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam.options", None)
    main = runpy.run_path(str(SCRIPT))["main"]
    assert main([f"--folder={folder}", f"--data_dir={tmp_path}"]) == 2
    assert "need apache-beam" in capsys.readouterr().err
    assert main(["--folder=absent", f"--data_dir={tmp_path}"]) == 2
    assert "the folder absent has no manifest.csv" in capsys.readouterr().err


def test_only_what_beam_can_make_is_asked_of_it():
    with pytest.raises(ValueError, match=r"that Beam makes 'glas'; have \['camelyon16'\]"):
        builders.prepare("glas", beam_flags=[])


def test_what_is_missing_is_told(few, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no manifest\.csv; python scripts/prepare_"):
        camelyon16.examples("train", folder=tmp_path)
    lines = (folder / "manifest.csv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(few["test", "slide_disjoint"][0].slide)]
    (tmp_path / "manifest.csv").write_text("".join(kept))
    message = (
        r"\d of the 8 patches of 'test' are not in .* \['test_001'\] among them; cut them, too"
    )
    with pytest.raises(FileNotFoundError, match=message):
        camelyon16.examples("test", folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        sources.open_split(
            "camelyon16",
            "test",
            source="tfds",
            sizing=pictures.Sizing(32),
            folder=tmp_path,
            data_dir=tmp_path / "tfds",
        )
