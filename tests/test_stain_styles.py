"""Which references give the styles, and a split that has taken one on."""

import numpy as np
import pytest
from PIL import Image
from tissue import STAINS, tissue, turned

from wsol_jax import stain_styles, stains
from wsol_jax.data import memory

ANGLES = (3, 21, 9, 15, 6, 12, 18)  # of the references, in the order of their names
BLANK = np.full((40, 40, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Image files, one of them blank."""
    folder = tmp_path_factory.mktemp("references")
    for number, angle in enumerate(ANGLES):
        Image.fromarray(tissue(number, turned(angle))).save(folder / f"{number}.png")
    Image.new("RGB", (30, 50), "white").save(folder / "blank.png")
    return sorted(folder.iterdir())


def split_of(*images):
    """A split of images that may differ in shape, with masks of noise."""
    rng = np.random.default_rng(0)
    masks = [rng.integers(0, 2, image.shape[:2], np.uint8) for image in images]
    labels, names = np.arange(len(images), dtype=np.int32) % 2, tuple("abcdefg"[: len(images)])
    return memory.serve(names, labels, zip(images, masks, strict=True), window=len(images))


def test_the_median_is_of_the_images_with_two_stains():
    images = [tissue(0), tissue(1, turned(10)), tissue(2, turned(40))[:30]]
    matrix, estimated = stain_styles.median_stains(split_of(BLANK, *images))
    np.testing.assert_array_equal(estimated, [False, True, True, True])
    each = [stain_styles.ESTIMATE(image[None]).matrix[0] for image in images]
    expected = np.median(each, axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    with pytest.raises(ValueError, match="none of 2 test images can be estimated"):
        stain_styles.median_stains(split_of(BLANK, BLANK))


def test_styles_are_chosen_evenly_from_nearest_to_farthest(references):
    chosen = stain_styles.choose(references, STAINS, count=4, side=40)
    assert [ANGLES[int(path.stem)] for path in chosen] == [3, 9, 15, 21]
    expected = [float(stains.distance(STAINS, turned(angle))) for angle in (3, 9, 15, 21)]
    np.testing.assert_allclose(list(chosen.values()), expected, atol=0.5)
    every = stain_styles.choose(references, STAINS, count=7, side=40)
    assert [ANGLES[int(path.stem)] for path in every] == sorted(ANGLES)
    with pytest.raises(ValueError, match=r"stains of 7 of 8 .* --styles is 8; pass more images"):
        stain_styles.choose(references, STAINS, count=8, side=40)


def test_a_reference_that_is_no_image_is_named(references, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(references[0].read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot decode .*broken\.png"):
        stain_styles.choose([*references, broken], STAINS, count=2, side=40)


@pytest.mark.parametrize("restaining", stain_styles.RESTAINING)
def test_a_split_in_another_style_differs_in_its_images_only(restaining):
    images = [tissue(0), BLANK, tissue(1)[:30], tissue(2)]
    split, reference = split_of(*images), tissue(3, turned(20))[None]
    found = stain_styles.restained(split, reference, restaining)
    for before, after in zip(split.ordered(2), found.ordered(2), strict=True):
        for name in ("mask", "label", "index", "valid"):
            np.testing.assert_array_equal(before[name], after[name])
        for index, valid, old, new in zip(
            *(before["index"], before["valid"], before["image"], after["image"]), strict=True
        ):
            assert np.any(old != new) == (valid and index != 1)
    assert (found.size, found.names) == (split.size, split.names)
