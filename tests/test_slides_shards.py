"""Shards of patches: they give back what was written, byte for byte again, and whole or not."""

import io
import zipfile

import numpy as np
import pytest

from wsol_jax.data import pictures
from wsol_jax.slides import patches, shards

SLIDE = {"slide": "a", "mpp": [0.25, 0.25]}


def drawn(count, seed=0):
    random = np.random.default_rng(seed)
    for i in range(count):
        image = np.full((512, 512, 3), random.integers(256, size=3), np.uint8)
        mask = np.zeros((512, 512), np.uint8)
        mask[: random.integers(512)] = 1
        yield patches.Patch(i, 7, 1, 0.5, float(mask.mean()), "train", image, mask)


def test_patches_come_back(tmp_path):
    file = tmp_path / "a.zip"
    shards.write(file, SLIDE, drawn(3))
    slide = shards.contents(file)
    assert SLIDE.items() <= slide.items()
    for patch, record in zip(drawn(3), slide["patches"], strict=True):
        image, mask = shards.read(file, record)
        np.testing.assert_array_equal(image, patch.image)
        np.testing.assert_array_equal(mask, patch.mask)
        assert [record[name] for name in patch._fields[:6]] == list(patch[:6])


def test_equal_patches_give_equal_bytes(tmp_path):
    for name in ("a.zip", "b.zip"):
        shards.write(tmp_path / name, SLIDE, drawn(2))
    shards.write(tmp_path / "c.zip", SLIDE, drawn(2, seed=1))
    one, two, other = ((tmp_path / f"{name}.zip").read_bytes() for name in "abc")
    assert one == two != other


def test_the_input_sources_read_its_pictures(tmp_path):
    file = tmp_path / "a.zip"
    shards.write(file, SLIDE, drawn(1))
    record = shards.contents(file)["patches"][0]
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        read = (io.BytesIO(archive.read(record[name])) for name in ("image", "mask"))
        image, mask = pictures.read(*read)
    np.testing.assert_array_equal(image, next(drawn(1)).image)
    np.testing.assert_array_equal(mask, next(drawn(1)).mask)


def test_nothing_is_left_of_a_shard_that_fails(tmp_path):
    def broken():
        yield from drawn(2)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        shards.write(tmp_path / "a.zip", SLIDE, broken())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0, 0.3, 0.99])
def test_a_part_of_a_shard_is_none(tmp_path, kept):
    file = tmp_path / "a.zip"
    shards.write(file, SLIDE, drawn(2))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"a\.zip is no whole shard of patches .* cut its slide"):
        shards.contents(file)
