"""Slides read back through OpenSlide: pixels, scales, and a message for everything that fails."""

import os
import pathlib
import sys

import numpy as np
import pytest
import slide_factory

from wsol_jax.slides import annotations, reader


@pytest.fixture(scope="module")
def canvas():
    return slide_factory.picture()


@pytest.fixture(scope="module")
def file(tmp_path_factory, canvas):
    return slide_factory.write(tmp_path_factory.mktemp("slides") / "slide.tif", canvas)


@pytest.fixture(scope="module")
def slide(file):
    return reader.open_slide(file)


def test_what_an_open_slide_says(slide):
    assert slide.size == slide_factory.SIZE
    assert slide.mpp == pytest.approx((0.25, 0.25), rel=1e-4)
    assert slide.bounds == (0, 0)
    assert slide.downsamples == pytest.approx((1, 4, 16), rel=0.01)


@pytest.mark.parametrize("corner", [(0, 0), (333, 217), (1000, 800), (-70, -30), (-70, 850)])
def test_level_0_pixels_and_white_beyond(slide, canvas, corner):
    x, y = corner
    padded = np.pad(canvas, [(200, 200), (200, 200), (0, 0)], constant_values=255)
    expected = padded[y + 200 : y + 290, x + 200 : x + 350]
    np.testing.assert_array_equal(reader.region(slide, x, y, 150, 90), expected)


@pytest.mark.parametrize("corner", [(5000, 0), (-5000, -5000), (0, 900)])
def test_a_window_off_the_slide_is_white(slide, corner):
    assert np.all(reader.region(slide, *corner, 20, 10) == 255)


def test_a_stored_level_is_read_as_it_is(slide, canvas):
    means = canvas[:896, :1096].reshape(224, 4, 274, 4, 3).mean((1, 3))
    read = reader.region(slide, 0, 0, 274, 224, downsample=4)
    np.testing.assert_allclose(read, means, atol=0.51)


def test_between_levels_pixels_are_means(slide, canvas):
    means = canvas[100:400, 200:500].reshape(100, 3, 100, 3, 3).mean((1, 3))
    read = reader.region(slide, 200, 100, 100, 100, downsample=3)
    np.testing.assert_allclose(read, means, atol=1)  # rounded along rows, then columns


def test_scales_lie_on_one_another(slide):
    fine = reader.region(slide, 240, 176, 512, 512).astype(float)
    for downsample in (2, 5, 8, 20.5):
        side = int(512 / downsample)
        coarse = reader.region(slide, 240, 176, side, side, downsample=downsample)
        places = ((np.arange(side) + 0.5) * downsample).astype(int)
        assert np.abs(coarse - fine[np.ix_(places, places)]).mean() < 12


@pytest.mark.parametrize("downsample", [1, 4, 7])
def test_masks_and_slides_have_the_same_places(slide, downsample):
    frame = (230, 170, 600 // downsample, 490 // downsample)
    rgb = reader.region(slide, *frame, downsample=downsample)
    annotation = slide_factory.outlines()
    mask = annotations.window(annotation, *frame, downsample=downsample, rule="exact")
    tumor = rgb[..., 1] < (slide_factory.TISSUE[1] + slide_factory.TUMOR[1]) / 2
    assert np.mean(tumor == (mask == 1)) > 0.99


def test_overview_holds_the_whole_slide(slide, canvas):
    rgb, downsample = reader.overview(slide, side=275)
    assert rgb.shape == (225, 275, 3)
    assert downsample == 4
    np.testing.assert_allclose(rgb.mean((0, 1)), canvas.mean((0, 1)), atol=0.5)
    assert reader.overview(slide, side=5000)[0].shape == canvas.shape


def test_a_large_slide_is_read_in_windows(tmp_path, canvas):
    file = slide_factory.write(tmp_path / "large.tif", canvas, magnify=16, tile=512, levels=4)
    slide = reader.open_slide(file)
    assert slide.size == (17_600, 14_400)
    x, y = 310 * 16, 200 * 16
    read = reader.region(slide, x, y, 512, 512)
    expected = canvas[200:232, 310:342].repeat(16, axis=0).repeat(16, axis=1)
    np.testing.assert_array_equal(read, expected)
    np.testing.assert_array_equal(
        reader.region(slide, x, y, 32, 32, downsample=16), expected[::16, ::16]
    )


@pytest.mark.parametrize(("downsample", "error"), [(1, 0), (7.28011, 1)])
def test_a_level_is_read_a_few_rows_at_a_time(tmp_path, canvas, monkeypatch, downsample, error):
    """As much of it as is asked for: a slide of one level has 10^10 pixels to make an overview."""
    slide = reader.open_slide(slide_factory.write(tmp_path / "flat.tif", canvas, levels=1))
    window = (-20, 31, int(1100 / downsample), int(880 / downsample))
    whole = reader.region(slide, *window, downsample=downsample)
    read, sizes = reader._read_level, []

    def small(*place, size):
        sizes.append(size[0] * size[1])
        return read(*place, size)

    monkeypatch.setattr(reader, "PIXELS", 2**16)
    monkeypatch.setattr(reader, "_read_level", lambda *given: small(*given[:-1], size=given[-1]))
    got = reader.region(slide, *window, downsample=downsample)
    assert np.abs(got.astype(int) - whole).max() <= error  # of rounding
    assert len(sizes) > 10
    assert max(sizes) <= 2**16 + 1200


@pytest.mark.parametrize(("width", "height", "downsample"), [(0, 5, 1), (5, -1, 1), (5, 5, 0)])
def test_empty_windows_are_refused(slide, width, height, downsample):
    with pytest.raises(ValueError, match=r"expected at least 1 x 1, and a positive downsample"):
        reader.region(slide, 0, 0, width, height, downsample=downsample)


def test_no_mpp_is_one_error_where_it_is_needed(tmp_path, canvas):
    file = slide_factory.write(tmp_path / "bare.tif", canvas, mpp=None, levels=1)
    slide = reader.open_slide(file)
    assert slide.mpp is None
    with pytest.raises(
        ValueError, match=r"bare\.tif does not say .* give it as --mpp, about 0\.25"
    ):
        reader.require_mpp(slide)


@pytest.mark.parametrize("mpp", [0, -0.25, 250, float("nan")])
def test_impossible_mpp(file, mpp):
    with pytest.raises(ValueError, match=r"mpp .* for .*slide\.tif: expected microns per pixel"):
        reader.require_plausible(mpp, file)


@pytest.mark.parametrize(
    ("x", "y", "unit", "expected"),
    [
        ("40000", "20000", "centimeter", (0.25, 0.5)),
        ("101600", "101600", "inch", (0.25, 0.25)),
        ("72", "72", "inch", None),
        ("40000", "40000", None, None),
        ("0", "0", "inch", None),
        ("40000", None, "centimeter", None),
    ],
)
def test_mpp_of_resolution_tags(x, y, unit, expected):
    tags = {"XResolution": x, "YResolution": y, "ResolutionUnit": unit}
    properties = {f"tiff.{tag}": value for tag, value in tags.items() if value}
    assert reader._known_mpp(properties) == (expected and pytest.approx(expected))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ("0.243", "0.244", (0.243, 0.244)),
        ("unknown", "0.5", (0.5, 0.5)),
        ("0.25", None, (0.5, 0.5)),
    ],
)
def test_mpp_of_openslide_goes_before_the_tags(x, y, expected):
    properties = {"tiff.XResolution": "20000", "tiff.YResolution": "20000"}
    properties |= {"tiff.ResolutionUnit": "centimeter", "openslide.mpp-x": x}
    properties |= {"openslide.mpp-y": y} if y else {}
    assert reader._known_mpp(properties) == pytest.approx(expected)
    assert reader._known_mpp({}) is None


def test_a_screen_resolution_is_no_mpp(tmp_path, canvas):
    file = slide_factory.write(tmp_path / "screen.tif", canvas, mpp=25400 / 96, levels=1)
    assert reader.open_slide(file).mpp is None


def test_absent_slide(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"slide .*nowhere\.svs does not exist; name the"):
        reader.open_slide(tmp_path / "nowhere.svs")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        reader.open_slide(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; fetch it again"),
        (b"<html>moved</html>", "it holds text, perhaps the web page of a failed download"),
        (b"PK\3\4...", "it is a ZIP archive; unpack it"),
        (
            b"II*\0\x10\0\0\0",
            "it is a TIFF whose directory is cut off or that is not tiled; compare",
        ),
        (
            b"\x89PNG\r\n",
            "it is of no format that OpenSlide knows .*vips tiffsave wrong.svs wrong.tif",
        ),
    ],
)
def test_files_that_are_no_slide(tmp_path, content, message):
    file = tmp_path / "wrong.svs"
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"cannot read the slide .*wrong\.svs: {message}"
    ) as caught:
        reader.open_slide(file)
    assert caught.value.__suppress_context__  # one message, no stack of the library's


def test_half_of_a_slide_of_two_parts(tmp_path):
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="its pixels are in the folder a, which is not whole"):
        reader.open_slide(tmp_path / "a.mrxs")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_truncated_slide(tmp_path, file, kept):
    content = file.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(content[: int(len(content) * kept)])

    def read():
        slide = reader.open_slide(cut)
        for level in slide.downsamples:
            reader.overview(slide, side=int(max(slide.size) / level))

    with pytest.raises(
        ValueError, match=r"cannot read the slide .*cut\.tif.*; compare its \d+ bytes"
    ):
        read()


def test_a_fault_inside_of_a_slide(tmp_path, file):
    content = bytearray(file.read_bytes())
    place = len(content) // 3
    content[place : place + 50_000] = bytes(50_000)
    (tmp_path / "damaged.tif").write_bytes(content)
    slide = reader.open_slide(tmp_path / "damaged.tif")
    message = r"cannot read the slide .*damaged\.tif at x 0, y 0, level 0: .*; compare its"
    with pytest.raises(ValueError, match=message) as caught:
        reader.region(slide, 0, 0, *slide.size)
    assert caught.value.__suppress_context__


def test_fingerprint_tells_files_apart(tmp_path):
    whole = np.random.default_rng(0).bytes(3 * reader.ENDS)
    edited = whole[:-1] + bytes([whole[-1] ^ 1])
    inside = whole[: 2 * reader.ENDS - 1] + b"?" + whole[2 * reader.ENDS :]
    prints = []
    for content in (whole, whole, edited, whole[:-1], b"", b"a", inside):
        (tmp_path / "slide").write_bytes(content)
        prints.append(reader.fingerprint(tmp_path / "slide"))
    assert prints[0] == prints[1] == prints[6]  # what lies between the ends is not read
    assert len(set(prints)) == 5
    assert all(len(p) == 64 for p in prints)


def test_without_openslide_one_message_names_the_extra(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r"needs OpenSlide .*pip install '.\[slides\]'"):
        reader.open_slide(file)


@pytest.mark.skipif("WSOL_CAMELYON16" not in os.environ, reason="WSOL_CAMELYON16 names no folder")
def test_a_scanned_slide():
    slide = reader.open_slide(pathlib.Path(os.environ["WSOL_CAMELYON16"]) / "small_HE.svs")
    assert 0.2 < reader.require_mpp(slide)[0] < 0.6
    assert reader.region(slide, 0, 0, 64, 64).shape == (64, 64, 3)
