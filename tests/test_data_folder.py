"""Folders of anyone's labelled images: table, faults, a run without pixel labels, the config."""

import itertools

import numpy as np
import pytest
import small
from PIL import Image

from configs import common, pixelcam_folder, pixelcam_glas
from wsol_jax import experiment, identity, optimizer, predict, report, train
from wsol_jax.data import folder, pictures, sources

OPEN_DATA = experiment.open_data


def write(path, rows, columns="file,label", *, masks=()):
    """Pictures of one colour a class, and their table."""
    path.mkdir(exist_ok=True)
    for row in rows:
        name, label = row.split(",")[:2]
        color = np.random.default_rng(len(name)).integers(0, 90, (44, 52, 3)).astype(np.uint8)
        color[..., int(label)] += 150
        Image.fromarray(color).save(path / name)
    for name in masks:
        Image.fromarray(np.eye(44, 52, dtype=np.uint8)).save(path / name)
    (path / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")
    return path


def many(count):
    return [f"{i:03}.png,{i % 2}" for i in range(count)]


def test_a_table_without_splits_is_divided_by_name(tmp_path):
    found = {
        split: [e.name for e in folder.examples(split, folder=write(tmp_path / "a", many(60)))]
        for split in ("train", "valcl", "test")
    }
    assert sorted(itertools.chain(*found.values())) == [f"{i:03}.png" for i in range(60)]
    for split, share in folder.SHARES.items():
        assert abs(len(found[split]) / 60 - share) < 0.15
    more = write(tmp_path / "b", many(80))
    for split, names in found.items():
        assert {*names} <= {e.name for e in folder.examples(split, folder=more)}
    assert folder.examples("valpx", folder=more) == ()


def test_the_images_of_a_group_are_in_one_split(tmp_path, caplog):
    rows = [f"{i:03}.png,{i % 2},patient{i // 5}" for i in range(100)]
    path, found = write(tmp_path, rows, "file,label,group"), {}
    for split in ("train", "valcl", "test"):
        for example in folder.examples(split, folder=path):
            found.setdefault(int(example.name[:3]) // 5, set()).add(split)
    assert len(found) == 20
    assert all(len(splits) == 1 for splits in found.values())
    assert set.union(*found.values()) == {"train", "valcl", "test"}
    assert not caplog.text
    folder.examples("train", folder=write(tmp_path, rows, "file,label,patient"))
    assert "images of one patient may be in several and scores too good; add" in caplog.text


def test_validation_images_with_masks_are_those_judged_by_pixels(tmp_path):
    rows = ["a.png,0,train,", "b.png,1,valcl,m.png", "c.png,0,valcl,", "d.png,1,test,"]
    path = write(tmp_path, rows, "file,label,split,mask", masks=["m.png"])
    (example,) = folder.examples("valpx", folder=path)
    assert (example.name, example.label) == ("b.png", 1)
    np.testing.assert_array_equal(example.read()[1], np.eye(44, 52))
    assert [e.name for e in folder.examples("valcl", folder=path)] == ["b.png", "c.png"]
    named = write(
        tmp_path / "named", [*rows, "e.png,0,valpx,m.png"], "file,label,split,mask", masks=["m.png"]
    )
    assert [e.name for e in folder.examples("valpx", folder=named)] == ["e.png"]


@pytest.mark.parametrize("original", [False, True])
def test_pixels_without_mask_are_not_annotated(tmp_path, original):
    path = write(tmp_path, ["a.png,0,train", "b.png,1,test"], "file,label,split")
    sizing = pictures.Sizing(32, keep_aspect=original, original_mask=original)
    split = sources.open_split("folder", "test", sizing=sizing, folder=path)
    (batch,) = split.ordered(1)
    assert batch["mask"].shape == ((1, 44, 52) if original else (1, 32, 32))
    assert np.all(batch["mask"] == 255)
    assert sources.open_split("folder", "valpx", sizing=sizing, folder=path) is None


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["a.png,0"], "name,label", r"has the columns \['name', 'label'\]; it lacks \['file'\]"),
        (
            ["a.png,0,train", "b.png,1,", "c.png,1,"],
            "file,label,split",
            r"line 3: split is empty, and on 1 more lines, .* on each line or on none",
        ),
        (["a.png,0,val", "b.png,1,test"], "file,label,split", r"line 2: unknown split 'val'; have"),
        (["a.png,0", "b.png,1", "./a.png,0"], "file,label", r"has \['a.png'\] more than once"),
        (["a.png,0,train", "b.png,1,test"], "file,label,split", r"the split 'valcl', of 2: .*'tes"),
        (["a.png,0,valpx", "b.png,1,test"], "file,label,split", "line 2: .* has no mask"),
        (["a.png,0,train,no.png"], "file,label,split,mask", "line 2: .*no.png does not exist"),
        (
            ["a.png,0,train,m.png"],
            "file,label,split,mask",
            "line 2: the image is .52, 44., its mas",
        ),
        (["a.png,0", "b.png,2"], "file,label", "line 3: label is 2, of 2 images; expected the num"),
        (["a.png,0,train,m.JPG"], "file,label,split,mask", "line 2: the mask m.JPG is a JPEG"),
    ],
)
def test_faults_of_the_table_are_told(tmp_path, rows, columns, message):
    path = write(tmp_path, rows, columns)
    for name in ("m.png", "m.JPG"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        folder.examples("valcl", folder=path)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"labels\.csv does not exist; expected a table"):
        folder.examples("train", folder=tmp_path)
    path = write(tmp_path, ["a.png,0", "b.png,1"])
    (path / "labels.csv").write_text("file,label\na.png,zero\n")
    with pytest.raises(ValueError, match="line 2: label is 'zero', expected the number"):
        folder.examples("train", folder=tmp_path)
    (path / "labels.csv").write_text("file,label\n,0\n")
    with pytest.raises(ValueError, match="line 2: file is empty, expected the name of an image"):
        folder.examples("train", folder=path)
    with pytest.raises(ValueError, match=r"unknown source 'tfds'; have \['memory'\]"):
        sources.open_split(
            "folder", "train", sizing=pictures.Sizing(32), source="tfds", folder=path
        )


def test_a_table_ordered_by_class_is_shuffled_as_a_whole(tmp_path):
    rows = [f"{i:02}.png,{i // 8},train" for i in range(16)]
    path = write(tmp_path, rows, "file,label,split")
    split = sources.open_split("folder", "train", sizing=pictures.Sizing(8), window=4, folder=path)
    batches = itertools.islice(split.shuffled(4, seed=0), 8)
    assert {len({*batch["label"].tolist()}) for batch in batches} != {1}


def test_spaces_and_encodings_of_the_table(tmp_path):
    path = write(tmp_path, ["a.png,0,train", "b.png,1,test"], "file,label,split")
    (path / "labels.csv").write_text("file , label,split\n a.png, 0,train \nb.png ,1,test\n")
    (example,) = folder.examples("train", folder=path)
    assert (example.name, example.label) == ("a.png", 0)
    (path / "labels.csv").write_bytes("file,label\nü.png,0\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"labels\.csv is not UTF-8 .*'CSV UTF-8'"):
        folder.examples("train", folder=path)


def test_other_images_under_the_same_names_are_another_set(tmp_path):
    rows = ["a.png,0,train,m.png", "b.png,1,train,"]
    path = write(tmp_path, rows, "file,label,split,mask", masks=["m.png"])
    sizing = pictures.Sizing(32)

    def fingerprint():
        opened = sources.open_split("folder", "train", sizing=sizing, folder=path)
        listed = sources.list_split("folder", "train", folder=path)
        assert identity.fingerprint({"train": listed}) == identity.fingerprint({"train": opened})
        return identity.fingerprint({"train": opened})

    known = fingerprint()
    Image.fromarray(np.zeros((44, 52), np.uint8)).save(path / "m.png")  # a mask that was mended
    assert fingerprint() == known
    pixels = np.asarray(Image.open(path / "b.png"))
    for image in (pixels, 255 - pixels):  # files of one size
        Image.fromarray(image).save(path / "b.png", format="bmp")
        assert fingerprint() != known
        known = fingerprint()


@pytest.mark.parametrize(
    ("rows", "masks", "message"),
    [
        (["train,1,", "valcl,0,", "test,1,"], [], r"no training image is of class 0: .*\[0, 1\]"),
        (["train,0,", "valcl,1,", "test,1,"], [], r"no training image is of class 1: .*\[1, 0\]"),
        (
            ["train,0,", "train,1,", "valcl,1,none.png", "test,1,m.png"],
            ["m.png"],
            "masks of the 1 images of 'valpx' show no object; expected one in some, or no masks",
        ),
        (
            ["train,0,", "train,1,", "valcl,1,m.png", "test,1,none.png"],
            ["m.png"],
            "masks of the 1 images of 'test' show no object",
        ),
    ],
)
def test_faults_of_the_splits_are_told_before_any_work(tmp_path, rows, masks, message):
    parts = [row.split(",") for row in rows]
    lines = [f"{i}.png,{label},{split},{mask}" for i, (split, label, mask) in enumerate(parts)]
    path = write(tmp_path, lines, "file,label,split,mask", masks=masks)
    Image.fromarray(np.zeros((44, 52), np.uint8)).save(path / "none.png")
    config = small.small_config("classifier")
    config.metric, config.data = "pxap", {"name": "folder", "folder": str(path)}
    with pytest.raises(ValueError, match=message):
        OPEN_DATA(config)


def test_full_masks_are_asked_for_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "open_data", OPEN_DATA)
    config = small.small_config("unet")
    config.data = {"name": "folder", "folder": str(write(tmp_path / "images", many(30)))}
    with pytest.raises(ValueError, match="'unet' learns from full masks, and no training image of"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_test_images_with_masks_are_scored_without_any_in_validation(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "open_data", OPEN_DATA)
    splits = ("train", "train", "train", "train", "valcl", "valcl", "test", "test")
    rows = [f"{i}.png,{i % 2},{s},{'m.png' * (s == 'test')}" for i, s in enumerate(splits)]
    images = write(tmp_path / "images", rows, "file,label,split,mask", masks=["m.png"])
    config = small.tiny_phases()
    config.metric, config.data = "pxap", {"name": "folder", "folder": str(images)}
    config.baseline.cam_checkpoint = "b_cl"
    numbers = train.run(config, tmp_path / "run")
    last = numbers["phases"]["pixelcam"]["maps"]["pixelcam"]["last"]["test"]
    assert 0 <= last["pxap"] <= 100
    assert "at_best_test_threshold" in last
    assert "at_validation_threshold" not in last
    assert "the last epoch: no validation image" in report.write(tmp_path / "run").read_text()


def test_a_run_without_pixel_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "open_data", OPEN_DATA)
    config = small.tiny_phases()
    config.metric = "pxap"
    config.data = {"name": "folder", "folder": str(write(tmp_path / "images", many(30)))}
    with pytest.raises(ValueError, match=r"folder has no pixel-labelled .*=b_cl"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.baseline.cam_checkpoint = "b_cl"
    numbers = train.run(config, tmp_path / "run")
    assert numbers["floors"] == {}
    for phase, name in (("baseline", "cam"), ("pixelcam", "pixelcam")):
        found = numbers["phases"][phase]["maps"][name]
        assert set(found) == {"last", "b_cl"}
        assert set(found["b_cl"]["test"]) == {"accuracy"}
        assert set(found["b_cl"]) == {"epoch", "step", "valcl", "test"}
    page = report.write(tmp_path / "run").read_text()
    assert "PixelCAM classifies" in page
    assert "No test image has pixel labels" in page
    assert "truth" not in page
    with np.load(tmp_path / "run" / "gallery.npz") as gallery:
        assert np.all(gallery["mask"] == 255)
    rows = predict.run(config, tmp_path / "run", tmp_path / "images", tmp_path / "maps", "")
    assert len(rows) == 30
    assert {row["threshold"] for row in rows} == {0.5}


@pytest.mark.parametrize(
    ("variant", "encoder", "head"),
    [
        ("grad_cam_pp", "resnet50", "wgap"),
        ("deep_mil", "resnet50", "deep_mil"),
        ("sat", "deit_tiny_patch16_224", "conv_gap"),
        ("vgg16/deep_mil", "vgg16", "deep_mil"),
        ("inception_v3/layer_cam", "inception_v3", "wgap"),
        ("resnet18/layer_cam", "resnet18", "wgap"),
        ("cam", "resnet50", "wgap"),
        ("vgg16/grad_cam", "vgg16", "wgap"),
        ("lse", "resnet50", "lse"),
        ("max", "resnet50", "max"),
        ("vgg16/wildcat", "vgg16", "wildcat"),
    ],
)
def test_own_images_may_have_any_map_and_encoder(variant, encoder, head):
    config = pixelcam_folder.get_config(variant)
    assert (config.backbone.name, config.head.name) == (encoder, head)
    assert config.weights.source == common.ENCODERS[encoder].weights
    assert config.baseline.cam in experiment.map_names(config.baseline.method)
    for section in experiment.sections(config).values():
        params = small.shapes(experiment.build(config, section.method), 64)["params"]
        optimizer.groups(params, config.optimizer.fast)


@pytest.mark.parametrize(
    ("module", "variant", "message"),
    [
        (pixelcam_folder, "unet", r"unknown map 'unet'; have \['cam', 'deep_mil', .*'sat'\]"),
        (pixelcam_folder, "vgg16/sat", r"unknown encoder of sat 'vgg16'; have \['deit_tiny"),
        (
            pixelcam_folder,
            "vgg/layer_cam",
            r"unknown encoder of layer_cam 'vgg'; have \['resnet50",
        ),
        (
            pixelcam_glas,
            "sat",
            r"unknown map 'sat'; have \['cam', 'deep_mil', .*'wildcat'\]",
        ),
    ],
)
def test_unknown_maps_and_encoders_are_told(module, variant, message):
    with pytest.raises(ValueError, match=message):
        module.get_config(variant)
