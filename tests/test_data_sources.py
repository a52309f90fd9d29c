"""Both input sources: equal batches, exact resuming, shares of hosts, faults said once."""

import itertools
import subprocess
import sys

import glas_folder
import numpy as np
import pytest

from wsol_jax.data import glas, pictures, sources, splits, synthetic_glands

SIZE = 16
SIZING, TINY = pictures.Sizing(SIZE), pictures.Sizing(8)
SHAPES = {
    "image": (np.uint8, (SIZE, SIZE, 3)),
    "mask": (np.uint8, (SIZE, SIZE)),
    "label": (np.int32, ()),
    "index": (np.int32, ()),
    "valid": (np.bool_, ()),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return glas_folder.write(tmp_path_factory.mktemp("glas"))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def memory(folder):
    return sources.open_split("glas", "train", sizing=SIZING, folder=folder, window=40)


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory):
    return glas_folder.write(tmp_path_factory.mktemp("mixed"), sizes=((31, 22), (24, 37), (40, 28)))


@pytest.fixture(scope="module", params=sources.SOURCES)
def mixed(request, mixed_folder, tmp_path_factory):
    """A function that opens the training images, which differ in shape."""
    options = {"source": request.param, "folder": mixed_folder}
    if request.param == "tfds":
        options["data_dir"] = tmp_path_factory.mktemp("tfds_mixed")
    return lambda sizing: sources.open_split("glas", "train", sizing=sizing, window=40, **options)


@pytest.fixture(scope="module", params=["kept", "streamed"])
def tfds(request, folder, data_dir):
    from wsol_jax.data import pipeline

    options = {"folder": folder, "data_dir": data_dir, "window": 40}
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "streamed":
            patch.setattr(pipeline, "MEMORY", 0)
        return sources.open_split("glas", "train", sizing=SIZING, source="tfds", **options)


def assert_equal(batch, other):
    assert batch.keys() == other.keys() == SHAPES.keys()
    for name, (dtype, shape) in SHAPES.items():
        for array in (batch[name], other[name]):
            assert array.dtype == dtype
            assert array.shape[1:] == shape
        np.testing.assert_array_equal(batch[name], other[name])


def take(split, steps, *, batch_size=32, **options):
    return list(itertools.islice(split.shuffled(batch_size, seed=5, **options), steps))


def test_sources_list_the_same(memory, tfds):
    assert memory.size == tfds.size == 67
    assert memory.names == tfds.names == tuple(name for name, _ in glas.published("train"))
    np.testing.assert_array_equal(memory.labels, tfds.labels)


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("source", sources.SOURCES)
def test_a_listing_is_of_what_would_be_opened(tfds, folder, data_dir, tmp_path, source, at_hand):
    options = {"folder": folder if at_hand else tmp_path / "gone", "source": source}
    if source == "tfds":
        options["data_dir"] = data_dir
    elif not at_hand:
        with pytest.raises(FileNotFoundError, match="gone does not exist"):
            sources.list_split("glas", "train", **options)
        return
    listing = sources.list_split("glas", "train", **options)
    assert listing.names == tfds.names
    np.testing.assert_array_equal(listing.labels, tfds.labels)


def test_a_listing_reads_no_picture(tmp_path):
    folder = glas_folder.write(tmp_path)
    file = folder / "testB_3.bmp"
    file.write_bytes(file.read_bytes()[:-300])
    assert len(sources.list_split("glas", "test", folder=folder).names) == 80
    with pytest.raises(ValueError, match="cannot decode"):
        sources.open_split("glas", "test", sizing=TINY, folder=folder)


@pytest.mark.parametrize("start", [0, 2, 4])
@pytest.mark.parametrize("hosts", [(0, 1), (1, 2)])
def test_sources_shuffle_alike(memory, tfds, start, hosts):
    ours, theirs = (take(split, 5, start=start, hosts=hosts) for split in (memory, tfds))
    for batch, other in zip(ours, theirs, strict=True):
        assert_equal(batch, other)


@pytest.mark.parametrize("hosts", [(0, 1), (1, 2)])
def test_sources_order_alike(memory, tfds, hosts):
    for batch, other in zip(
        memory.ordered(20, hosts=hosts), tfds.ordered(20, hosts=hosts), strict=True
    ):
        assert_equal(batch, other)


def test_resuming_goes_on_exactly(memory, tfds):
    for split in (memory, tfds):
        for batch, other in zip(take(split, 7)[4:], take(split, 3, start=4), strict=True):
            assert_equal(batch, other)


def test_hosts_together_have_the_batch(memory):
    whole = take(memory, 4)
    shares = [take(memory, 4, hosts=(host, 4)) for host in range(4)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert_equal({k: np.concatenate([p[k] for p in parts]) for k in batch}, batch)


def test_ordered_gives_every_example_once(memory, folder):
    batches = list(memory.ordered(20))
    rows = {k: np.concatenate([batch[k] for batch in batches]) for k in SHAPES}
    np.testing.assert_array_equal(rows["valid"], np.arange(80) < 67)
    np.testing.assert_array_equal(rows["index"][:67], np.arange(67))
    assert not any(np.any(rows[k][67:]) for k in SHAPES)
    for i, example in enumerate(glas.examples("train", folder=folder)):
        image, mask = pictures.resize(example.read(), SIZING)
        np.testing.assert_array_equal(rows["image"][i], image)
        np.testing.assert_array_equal(rows["mask"][i], mask)
        assert rows["label"][i] == example.label == memory.labels[i]


def test_index_and_name_go_with_the_picture(memory):
    expected = {k: np.concatenate([b[k] for b in memory.ordered(67)]) for k in SHAPES}
    for batch in take(memory, 3):
        assert_equal(batch, {k: v[batch["index"]] for k, v in expected.items()})


@pytest.mark.parametrize("original_mask", [False, True])
def test_ordered_batches_hold_images_of_one_shape(mixed, mixed_folder, original_mask):
    sizing = pictures.Sizing(SIZE, keep_aspect=True, original_mask=original_mask)
    alone = [pictures.resize(e.read(), sizing) for e in glas.examples("train", folder=mixed_folder)]
    seen = []
    for batch in mixed(sizing).ordered(8):
        assert batch.keys() == SHAPES.keys()
        for i in np.flatnonzero(batch["valid"]):
            index = batch["index"][i]
            np.testing.assert_array_equal(batch["image"][i], alone[index][0])
            np.testing.assert_array_equal(batch["mask"][i], alone[index][1])
            seen.append(index)
        assert not any(np.any(values[~batch["valid"]]) for values in batch.values())
    assert sorted(seen) == list(range(67))
    shapes = [(alone[index][0].shape, alone[index][1].shape) for index in seen]
    assert [key for key, _ in itertools.groupby(shapes)] == list(dict.fromkeys(shapes))
    assert len(set(shapes)) == (3 if original_mask else 2)


def test_shuffled_batches_pad_images_and_say_their_size(mixed, mixed_folder):
    sizing = pictures.Sizing(SIZE, keep_aspect=True)
    alone = [pictures.resize(e.read(), sizing) for e in glas.examples("train", folder=mixed_folder)]
    order = splits.shuffled_rows(67, 32, seed=5, start=0, window=40)
    for batch, rows in zip(take(mixed(sizing), 4), order, strict=False):
        assert batch["image"].shape == (32, 24, 22, 3)  # of 16x22 and 24x16
        assert batch["size"].dtype == np.int32
        np.testing.assert_array_equal(batch["index"], rows)
        for image, mask, size, row in zip(
            batch["image"], batch["mask"], batch["size"], rows, strict=True
        ):
            for padded, own in zip((image, mask), alone[row], strict=True):
                np.testing.assert_array_equal(padded[: size[0], : size[1]], own)
                assert padded.sum() == own.sum()


def test_hosts_together_have_batches_of_several_shapes(mixed):
    split = mixed(pictures.Sizing(SIZE, keep_aspect=True))
    for draw in (
        lambda **hosts: split.ordered(8, **hosts),
        lambda **hosts: take(split, 3, **hosts),
    ):
        shares = [draw(hosts=(host, 4)) for host in range(4)]
        for batch, *parts in zip(draw(), *shares, strict=True):
            for name, values in batch.items():
                np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), values)


def test_one_shape_streams_with_its_aspect(tfds, folder, data_dir, monkeypatch):
    from wsol_jax.data import pipeline

    sizing, options = pictures.Sizing(SIZE, True, True), {"folder": folder, "window": 40}
    memory = sources.open_split("glas", "train", sizing=sizing, **options)
    monkeypatch.setattr(pipeline, "MEMORY", 0)
    streamed = sources.open_split(
        "glas", "train", sizing=sizing, source="tfds", data_dir=data_dir, **options
    )
    for batch, other in zip(memory.ordered(20), streamed.ordered(20), strict=True):
        assert batch["image"].shape == (20, 16, 22, 3)
        assert batch["mask"].shape == (20, 22, 31)
        for name, values in batch.items():
            np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("mixed", ["tfds"], indirect=True)
def test_several_shapes_are_not_streamed(mixed, monkeypatch):
    from wsol_jax.data import pipeline

    monkeypatch.setattr(pipeline, "MEMORY", 1000)
    with pytest.raises(ValueError, match=r"'train' have 2 shapes.* 1000 that .* 'memory', or"):
        mixed(pictures.Sizing(SIZE, keep_aspect=True))
    assert mixed(SIZING).size == 67


def test_synthetic_glands_through_tfds(data_dir, monkeypatch):
    monkeypatch.setattr(synthetic_glands, "SPLITS", {"train": 2, "valcl": 4, "valpx": 2, "test": 2})
    options = {"sizing": SIZING}
    memory = sources.open_split("synthetic_glands", "valcl", **options)
    tfds = sources.open_split(
        "synthetic_glands", "valcl", source="tfds", data_dir=data_dir, **options
    )
    assert memory.names == tfds.names
    for batch, other in zip(memory.ordered(3), tfds.ordered(3), strict=True):
        assert_equal(batch, other)


def test_prepared_data_need_no_folder(tfds, data_dir, tmp_path):
    again = sources.open_split(
        "glas", "valcl", sizing=TINY, source="tfds", folder=tmp_path / "gone", data_dir=data_dir
    )
    assert again.size == 18


def test_records_of_other_files_are_refused(tfds, data_dir, tmp_path):
    changed = glas_folder.write(tmp_path)
    options = {"sizing": TINY, "source": "tfds", "data_dir": data_dir}
    assert sources.open_split("glas", "valcl", folder=changed, **options).size == 18
    file = changed / "testB_3_anno.bmp"
    file.write_bytes(file.read_bytes() + b"mended")
    with pytest.raises(ValueError, match=r"records .*fold0.* were made of other files than those"):
        sources.open_split("glas", "valcl", folder=changed, **options)


def test_tfds_says_what_is_wrong_with_the_files(tmp_path, data_dir):
    broken = glas_folder.write(tmp_path)
    (broken / "testB_3_anno.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"testB_3_anno\.bmp \(or \.png\) is missing"):
        sources.open_split(
            "glas", "train", sizing=TINY, source="tfds", fold=3, folder=broken, data_dir=data_dir
        )


def test_tfds_names_a_truncated_image(tmp_path, data_dir):
    broken = glas_folder.write(tmp_path)
    file = broken / "testB_3.bmp"
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"cannot decode .*testB_3\.bmp"):
        sources.open_split(
            "glas", "train", sizing=TINY, source="tfds", fold=3, folder=broken, data_dir=data_dir
        )


def test_absent_folder_means_download(tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(glas, "ARCHIVE", (tmp_path / "no.zip").as_uri())
    with pytest.raises(ConnectionError, match=r"cannot fetch GlaS.*no\.zip.*name the folder"):
        sources.open_split(
            "glas", "train", sizing=TINY, source="tfds", fold=4, folder=tmp_path / "gone",
            data_dir=data_dir,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "split", "source", "message"),
    [
        (
            "glass",
            "train",
            "memory",
            r"unknown data set 'glass'; have \['camelyon16', 'folder', 'glas', 'synth",
        ),
        (
            "glas",
            "val",
            "memory",
            r"unknown split 'val'; have \['train', 'valcl', 'valpx', 'test'\]",
        ),
        ("glas", "train", "disk", r"unknown source 'disk'; have \['memory', 'tfds'\]"),
    ],
)
def test_unknown_names(name, split, source, message):
    with pytest.raises(ValueError, match=message):
        sources.open_split(name, split, sizing=TINY, source=source)


@pytest.mark.parametrize("source", sources.SOURCES)
def test_unknown_fold(source):
    with pytest.raises(ValueError, match=r"unknown fold 9; have \[0, 1, 2, 3, 4\]"):
        sources.open_split("glas", "train", sizing=TINY, source=source, fold=9)


def test_misspelt_option():
    with pytest.raises(TypeError, match="flod"):
        sources.open_split("glas", "train", sizing=TINY, flod=1)


def test_memory_works_without_tensorflow(folder):
    script = f"""
import sys
sys.modules.update(tensorflow=None, tensorflow_datasets=None)  # importing them fails
from wsol_jax.data import pictures, sources
TINY = pictures.Sizing(8)
split = sources.open_split("glas", "valpx", sizing=TINY, folder={str(folder)!r})
assert next(split.shuffled(4, seed=0))["image"].shape == (4, 8, 8, 3)
try:
    sources.open_split("glas", "valpx", sizing=TINY, source="tfds")
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "source 'tfds' needs tensorflow-datasets" in done.stdout
    assert splits.WINDOW > 0
