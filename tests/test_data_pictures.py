"""Reading and resizing, against recorded outputs of OpenCV and against plain formulas."""

import golden_cases
import numpy as np
import pytest
import tifffile
from PIL import Image

from wsol_jax.data import pictures


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return image, rng.integers(0, 4, (height, width), np.uint8)


@pytest.mark.parametrize("case", golden_cases.cases("08_metrics"), ids=lambda c: c.name)
def test_masks_as_the_released_code_resizes_them(case):
    for i, expected in enumerate(case.arrays["masks_resized_224"]):
        mask = case.arrays[f"in/mask{i}"]
        image = np.zeros((*mask.shape, 3), np.uint8)
        np.testing.assert_array_equal(
            pictures.resize((image, mask), pictures.Sizing(224))[1], expected
        )


def test_same_size_changes_nothing_but_the_numbers():
    image, mask = picture(16, 16)
    resized = pictures.resize((image, mask), pictures.Sizing(16))
    np.testing.assert_array_equal(resized[0], image)
    np.testing.assert_array_equal(resized[1], mask > 0)


def test_image_is_antialiased():
    # Halving with a triangle filter of support 2: weights 1 3 3 1 over 8 inside the image.
    ramp = np.zeros((8, 8, 3), np.uint8)
    ramp[:, 4] = 240
    middle = pictures.resize((ramp, ramp[..., 0]), pictures.Sizing(4))[0][2, :, 0]
    np.testing.assert_allclose(middle, [0, 30, 90, 0], atol=1)


def test_aspect_is_not_kept():
    image, mask = pictures.resize(picture(20, 50), pictures.Sizing(8))
    assert image.shape == (8, 8, 3)
    assert mask.shape == (8, 8)


@pytest.mark.parametrize(
    ("own", "resized"),
    [  # the six sizes of GlaS, one of them on end, and a square
        ((522, 775), (432, 641)),
        ((453, 589), (432, 561)),
        ((442, 581), (432, 567)),
        ((433, 574), (432, 572)),
        ((433, 578), (432, 576)),
        ((430, 567), (432, 569)),
        ((775, 522), (641, 432)),
        ((512, 512), (432, 432)),
    ],
)
def test_short_side_with_the_aspect_kept(own, resized):
    image, mask = picture(*own)
    small, small_mask = pictures.resize((image, mask), pictures.Sizing(432, keep_aspect=True))
    expected = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small, expected)
    assert small_mask.shape == resized
    sizing = pictures.Sizing(432, keep_aspect=True, original_mask=True)
    small, truth = pictures.resize((image, mask), sizing)
    np.testing.assert_array_equal(small, expected)
    np.testing.assert_array_equal(truth, mask > 0)
    assert pictures.shapes(own, own, sizing) == (resized, own)


@pytest.mark.parametrize("suffix", [".bmp", ".png"])
def test_reads_what_was_written(tmp_path, suffix):
    image, mask = picture(9, 13)
    files = tmp_path / f"a{suffix}", tmp_path / f"a_anno{suffix}"
    Image.fromarray(image).save(files[0])
    Image.fromarray(mask).save(files[1])
    for got, expected in zip(pictures.read(*files), (image, mask), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert pictures.size(files[0]) == (13, 9)


def test_palette_masks_hold_numbers(tmp_path):
    image, mask = picture(9, 13)
    palette = Image.fromarray(mask)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    palette.save(tmp_path / "mask.png")
    Image.fromarray(image).save(tmp_path / "image.png")
    got = pictures.read(tmp_path / "image.png", tmp_path / "mask.png")[1]
    np.testing.assert_array_equal(got, mask)


def test_a_palette_that_numbers_the_background_is_refused(tmp_path):
    """Pillow's own reduction of a white square on black to two colours begins with the white."""
    drawn = np.zeros((8, 8, 3), np.uint8)
    drawn[2:5, 2:5] = 255
    Image.fromarray(drawn).quantize(2).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png has a palette in which number 0.*8-bit grey"):
        pictures.read_mask(tmp_path / "mask.png")
    Image.fromarray(255 - drawn).quantize(2).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="number 0"):
        pictures.read_mask(tmp_path / "mask.png")
    for color in ((255, 0, 0), (0, 0, 128), (128, 128, 128), (255, 255, 0)):
        reduced = Image.fromarray(drawn & np.uint8(color)).quantize(256)
        assert np.asarray(reduced)[3, 3] == 0  # the object's number
        reduced.save(tmp_path / "mask.png")
        with pytest.raises(ValueError, match="number 0, for no object, is a colour, and an object"):
            pictures.read_mask(tmp_path / "mask.png")
    palette = Image.fromarray(drawn[..., 0] // 255)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(pictures.read_mask(tmp_path / "mask.png"), drawn[..., 0] // 255)


@pytest.mark.parametrize("values", [np.uint16([[0, 65535]]), np.float32([[0, 1]])])
def test_images_of_more_bits_are_refused(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match=r"deep\.tif has colour mode .*; expected 8 bits a"):
        pictures.read(tmp_path / "deep.tif", None)


def test_colours_of_more_bits_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "deep.tif", np.full((9, 7, 3), 4095, np.uint16), photometric="rgb")
    with pytest.raises(
        ValueError, match=r"deep\.tif has colour mode RGB, numbers of 16 or 32 bits"
    ):
        pictures.read(tmp_path / "deep.tif", None)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_are_turned_as_their_camera_says(tmp_path, suffix, orientation):
    upright = np.zeros((32, 48), np.uint8)
    upright[:16] = 255
    stored = np.rot90(upright, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])
    exif, file = Image.Exif(), tmp_path / f"turned{suffix}"
    exif[274] = orientation
    Image.fromarray(stored).save(file, exif=exif)
    np.testing.assert_allclose(np.asarray(pictures.read_image(file))[..., 0], upright, atol=3)
    assert pictures.size(file) == (48, 32)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {}), ("a.png", {"format": "JPEG"}), ("a.tif", {"compression": "jpeg"})],
)
def test_masks_compressed_with_loss_are_refused(tmp_path, name, options):
    mask = Image.fromarray(255 * (picture(9, 13)[1] > 0).astype(np.uint8))
    mask.save(tmp_path / name, **options)
    with pytest.raises(ValueError, match=f"mask .*{name} is compressed as a .* with loss, whose"):
        pictures.read_mask(tmp_path / name)
    for whole, other in (("b.tif", {"compression": "tiff_lzw"}), ("b.bmp", {}), ("b.png", {})):
        mask.save(tmp_path / whole, **other)
        np.testing.assert_array_equal(pictures.read_mask(tmp_path / whole), np.asarray(mask))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path, mode):
    grey = Image.new("L", (2, 1), 100)
    if mode == "P":
        grey.putpalette([9, 9, 9] * 256)
        grey.putpixel((0, 0), 3)
        grey.save(tmp_path / "clear.png", transparency=3)
        expected = 9
    else:
        clear = grey.convert(mode)
        clear.putalpha(Image.fromarray(np.uint8([[0, 255]])))
        clear.save(tmp_path / "clear.png")
        expected = 100
    got, _ = pictures.read(tmp_path / "clear.png", None)
    np.testing.assert_array_equal(got[0], [[255] * 3, [expected] * 3])


def test_colour_mask_is_refused(tmp_path):
    Image.fromarray(picture(9, 13)[0]).save(tmp_path / "image.png")
    with pytest.raises(ValueError, match=r"image\.png has colour mode RGB; expected one 8-bit"):
        pictures.read(tmp_path / "image.png", tmp_path / "image.png")


@pytest.mark.parametrize("suffix", [".bmp", ".png"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.7, 0.99])
def test_truncated_picture_is_named(tmp_path, suffix, share):
    file = tmp_path / f"cut{suffix}"
    Image.fromarray(picture(60, 70)[0]).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=rf"cannot decode .*cut\{suffix}.*expected a whole"):
        pictures.read(file, file)
