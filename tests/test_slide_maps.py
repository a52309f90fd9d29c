"""Maps of whole slides: joined from tiles, written for viewers, resumed, refused."""

import csv
import json
import shutil
import sys
import types

import filelock
import jax.numpy as jnp
import numpy as np
import pytest
import slide_factory
import tifffile

from wsol_jax import predict, slide_maps
from wsol_jax.slides import exports, mosaic, rasters, reader

openslide = pytest.importorskip("openslide")

SIDE, CELLS = 64, 8  # of a tile: pixels that the model sees, values of its map
MPP = 0.25
FIELD = 64.0  # microns: 256 level-0 pixels a tile, 32 a cell
THRESHOLD = 0.5


def darkness(image):
    """How dark each 8 x 8 block of images is, in [0, 1], and probabilities of two classes."""
    blocks = 1 - jnp.asarray(image, jnp.float32).reshape(-1, CELLS, 8, CELLS, 8, 3) / 255
    maps = blocks.mean((2, 4, 5))
    dark = maps.mean((1, 2))
    return jnp.stack([1 - dark, dark], axis=1), maps


def config(method="pixelcam"):
    named = types.SimpleNamespace(name=method)
    sizes = {"image_size": SIDE, "keep_aspect": False, "evaluation_batch_size": 5}
    return types.SimpleNamespace(name="drawn", method=named, **sizes)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """A folder with a drawn slide, and a mask beside it, as CAMELYON16 has them."""
    folder = tmp_path_factory.mktemp("slides")
    for name in ("tumor_001", "tumor_001_mask"):
        slide_factory.write(folder / f"{name}.tif", slide_factory.picture(), mpp=MPP)
    return folder


@pytest.fixture
def calls(monkeypatch):
    """The batches that the model sees; it is `darkness`."""
    seen = []

    def localize(image):
        if isinstance(image, np.ndarray):
            seen.append(image)
        return darkness(image)

    found = predict.Localizer(localize, THRESHOLD, "pixelcam at step 7 (b_loc)", "0f1e")
    monkeypatch.setattr(predict, "localizer", lambda *arguments: found)
    return seen


def table(path):
    """The lines of a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


def run(slides, output, **options):
    options = {"field": FIELD, **options}
    return slide_maps.run(config(), output, slides, output / "maps", **options)


def direct(file, field):
    """The darkness of every cell, from the whole slide at once."""
    slide = reader.open_slide(file)
    cell = field / MPP / CELLS
    rows, columns = (int(np.ceil(n / cell)) for n in slide.size[::-1])
    whole = reader.region(slide, 0, 0, 8 * columns, 8 * rows, downsample=cell / 8)
    return 1 - whole.reshape(rows, 8, columns, 8, 3).mean((1, 3, 4)) / 255


@pytest.mark.parametrize(("field", "tolerance"), [(FIELD, 0.6), (59.3, 5.0)])
def test_the_map_is_that_of_the_whole_slide(slides, calls, tmp_path, field, tolerance):
    (row,) = run(slides, tmp_path, field=field)
    folder = tmp_path / "maps" / "tumor_001"
    values = tifffile.imread(folder / "map.tif")
    expected = 255 * direct(slides / "tumor_001.tif", field)
    assert values.shape == expected.shape
    known = values > 0
    assert np.abs(values - expected)[known].max() <= tolerance  # of 255
    assert expected[~known].max() < 255 * 0.2  # what is left out is glass, but for ends of tissue
    assert row["tiles"] == len(table(folder / "tiles.csv"))
    assert sum(len(batch) for batch in calls) == 5 * -(-row["tiles"] // 5)


def test_what_is_written_agrees(slides, calls, tmp_path):
    (row,) = run(slides, tmp_path)
    folder = tmp_path / "maps" / "tumor_001"
    values = tifffile.imread(folder / "map.tif")
    square_mm = (32 * MPP / 1000) ** 2
    largest = (values >= 128).sum() * square_mm  # where all of every cell is tissue
    assert 0.95 * largest < row["roi_mm2"] <= largest
    assert row["roi_mm2"] < row["tissue_mm2"]
    assert row["slide"] == "tumor_001.tif"
    slide = openslide.OpenSlide(folder / "map.tif")
    assert slide.dimensions == values.shape[::-1]
    tags = slide.properties
    assert 10_000 / float(tags["tiff.XResolution"]) == pytest.approx(32 * MPP)
    tiles = table(folder / "tiles.csv")
    for tile in tiles:
        x, y, side = (int(tile[key]) // 32 for key in ("x", "y", "side"))
        own = values[y : y + side, x : x + side] >= 128
        assert float(tile["roi"]) == pytest.approx(own.mean(), abs=1e-4)
        total = float(tile["probability_0"]) + float(tile["probability_1"])
        assert total == pytest.approx(1, abs=2e-4)
    known = json.loads((folder / "slide.json").read_text())
    assert (known["field"], known["threshold"], known["cell"]) == (FIELD, THRESHOLD, 32.0)
    assert (folder / "overlay.png").is_file()
    regions = json.loads((folder / "roi.geojson").read_text())["features"]
    # The tumors are the dark parts of the drawing; a pen stroke is darker still.
    inside = np.zeros(values.shape, bool)
    for feature in regions:
        for ring in feature["geometry"]["coordinates"]:
            vertices = np.array(ring[:-1], float)
            inside ^= rasters.interior(vertices, rasters.Window(0, 0, *values.shape[::-1], 32.0))
    np.testing.assert_array_equal(inside, values >= 128)
    assert {f["properties"]["classification"]["name"] for f in regions} == {"ROI"}


def test_finished_slides_are_kept(slides, calls, tmp_path):
    again = tmp_path / "slides"
    again.mkdir()
    file = slide_factory.write(again / "a.tif", slide_factory.picture(), mpp=MPP)
    partial = tmp_path / "maps" / ".a.partial"  # as a killed call leaves it
    partial.mkdir(parents=True)
    (partial / "map.tif").write_bytes(b"half")
    first = run(again, tmp_path)
    assert not partial.exists()
    calls.clear()
    assert run(again, tmp_path) == first
    assert not calls
    with pytest.raises(FileExistsError, match=r"made with \{'field': 64.0\}.*\{'field': 70.0\}"):
        run(again, tmp_path, field=70.0)
    folder = tmp_path / "maps" / "a"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    slide_factory.write(file, 255 - slide_factory.picture(), mpp=MPP)  # of another cohort, say
    with pytest.raises(FileExistsError, match=r"made with \{'fingerprint': .*a\.tif, would be"):
        run(again, tmp_path)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    assert run(again, tmp_path)[0]["roi_mm2"] != first[0]["roi_mm2"]
    (folder / "slide.json").write_bytes(b"")
    with pytest.raises(FileExistsError, match="is not of a slide's map"):
        run(again, tmp_path)


def test_a_finished_slide_that_cannot_be_read_is_told(slides, calls, monkeypatch, tmp_path):
    run(slides, tmp_path)
    before = (tmp_path / "maps" / "tumor_001" / "slide.json").read_bytes()

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reader, "fingerprint", fail)
    with pytest.raises(SystemExit, match="1 of 1 slides failed"):
        run(slides, tmp_path)
    (told,) = table(tmp_path / "maps" / "slides.csv")
    assert "tumor_001.tif: [Errno 5] Input/output error" in told["error"]
    assert (tmp_path / "maps" / "tumor_001" / "slide.json").read_bytes() == before


def test_what_was_not_scanned_is_glass_in_black_as_in_white(calls, tmp_path):
    (tmp_path / "slides").mkdir()
    found = {}
    for name, grey in (("white", 255), ("black", 0)):
        drawn = slide_factory.picture()
        drawn[:, :450] = grey
        slide_factory.write(tmp_path / "slides" / f"{name}.tif", drawn, mpp=MPP)
    for row in run(tmp_path / "slides", tmp_path):
        found[row["slide"]] = row["tissue_mm2"]
    assert found["black.tif"] == pytest.approx(found["white.tif"], rel=0.05)
    assert found["white.tif"] > 0.01


def test_viewers_that_crop_have_outlines_of_their_own(slides, calls, monkeypatch, tmp_path):
    opened = reader.open_slide

    def with_bounds(file, **options):
        return opened(file, **options)._replace(bounds=(96, 40))

    monkeypatch.setattr(reader, "open_slide", with_bounds)
    run(slides, tmp_path)
    folder = tmp_path / "maps" / "tumor_001"
    whole, cropped = (
        json.loads((folder / name).read_text())["features"]
        for name in ("roi.geojson", "roi_cropped.geojson")
    )
    assert len(whole) == len(cropped) > 0
    for one, other in zip(whole, cropped, strict=True):
        assert one["properties"] == other["properties"]
        for ring, moved in zip(*(f["geometry"]["coordinates"] for f in (one, other)), strict=True):
            np.testing.assert_allclose(np.array(ring) - (96, 40), moved, atol=1e-6)
    assert json.loads((folder / "slide.json").read_text())["bounds"] == [96, 40]


def test_one_command_at_a_time(slides, calls, tmp_path):
    (tmp_path / "maps").mkdir()
    with (
        filelock.FileLock(tmp_path / "maps" / ".lock"),
        pytest.raises(BlockingIOError, match="another command is at work in"),
    ):
        run(slides, tmp_path)
    assert not calls


def test_a_slide_that_fails_is_told_and_the_others_are_mapped(slides, calls, tmp_path):
    mixed = tmp_path / "slides"
    mixed.mkdir()
    whole = (slides / "tumor_001.tif").read_bytes()
    cut = len(whole) // 8
    (mixed / "a.tif").write_bytes(whole[:cut])
    (mixed / "b.tif").write_bytes(whole[:cut] + bytes(4 * cut) + whole[5 * cut :])
    slide_factory.write(mixed / "c.tif", slide_factory.picture(), mpp=None)
    (mixed / "d.tif").write_bytes(whole)
    with pytest.raises(SystemExit, match="3 of 4 slides failed, see"):
        run(mixed, tmp_path)
    rows = table(tmp_path / "maps" / "slides.csv")
    assert [row["slide"] for row in rows] == ["a.tif", "b.tif", "c.tif", "d.tif"]
    assert "cannot read the slide" in rows[0]["error"]
    assert "b.tif at x" in rows[1]["error"]  # a tile, long after it was opened
    assert "how many microns a pixel is wide" in rows[2]["error"]
    assert (rows[3]["error"], int(rows[3]["tiles"]) > 0) == ("", True)
    left = {path.name for path in (tmp_path / "maps").iterdir()}
    assert left - {".lock"} == {"d", "slides.csv"}
    for name in ("a.tif", "b.tif"):
        (mixed / name).unlink()
    told = run(mixed, tmp_path, mpp=0.5)  # the one that does not say its scale; the other is kept
    assert [row["slide"] for row in told] == ["c.tif", "d.tif"]
    assert told[1]["tiles"] == int(rows[3]["tiles"])
    assert told[0]["tissue_mm2"] == pytest.approx(4 * told[1]["tissue_mm2"], rel=0.02)
    with pytest.raises(FileExistsError, match=r"'mpp_given': 0\.5"):
        run(mixed, tmp_path, mpp=0.4)


def test_fine_maps_are_averaged_and_images_need_no_class(slides, monkeypatch, tmp_path):
    def localize(image):
        return None, 1 - jnp.asarray(image, jnp.float32).mean(-1) / 255

    found = predict.Localizer(localize, THRESHOLD, "unet", "")
    monkeypatch.setattr(predict, "localizer", lambda *arguments: found)
    monkeypatch.setattr(slide_maps, "CELLS", 10)
    run(slides, tmp_path)
    values = tifffile.imread(tmp_path / "maps" / "tumor_001" / "map.tif")
    expected = 255 * direct(slides / "tumor_001.tif", FIELD)
    assert np.abs(values - expected)[values > 0].max() <= 0.6
    (line, *_) = table(tmp_path / "maps" / "tumor_001" / "tiles.csv")
    assert list(line) == ["x", "y", "side", "tissue", "roi"]


def test_blank_glass_has_an_empty_map(calls, tmp_path):
    (tmp_path / "slides").mkdir()
    glass = np.full((400, 500, 3), slide_factory.GLASS, np.uint8)
    slide_factory.write(tmp_path / "slides" / "glass.tif", glass, mpp=MPP)
    (row,) = run(tmp_path / "slides", tmp_path)
    assert (row["tiles"], row["roi_mm2"], calls) == (0, 0, [])
    folder = tmp_path / "maps" / "glass"
    assert not tifffile.imread(folder / "map.tif").any()
    assert json.loads((folder / "roi.geojson").read_text())["features"] == []


def test_bad_input_is_told_before_any_work(slides, calls, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"'sat' are not known to be comparable.*\['pixelcam'"):
        slide_maps.run(config("sat"), tmp_path, slides, tmp_path / "maps", field=FIELD)
    for field in (-1.0, float("inf")):
        with pytest.raises(ValueError, match="expected microns along a training image"):
            run(slides, tmp_path, field=field)
    with pytest.raises(ValueError, match=r"mpp 0\.0 for .*expected microns per pixel between"):
        run(slides, tmp_path, mpp=0.0)
    with pytest.raises(ValueError, match="where its maps would be taken for slides"):
        slide_maps.run(config(), tmp_path, slides, slides / "maps", field=FIELD)
    with pytest.raises(FileNotFoundError, match=r"absent does not exist"):
        run(tmp_path / "absent", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tumor_001.tif is a file; name the one of the"):
        run(slides / "tumor_001.tif", tmp_path)
    (tmp_path / "masks").mkdir()
    shutil.copy(slides / "tumor_001_mask.tif", tmp_path / "masks")
    with pytest.raises(FileNotFoundError, match="holds masks alone"):
        run(tmp_path / "masks", tmp_path)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r"tifffile .*environment.sh slides"):
        run(slides, tmp_path)
    assert not (tmp_path / "maps").exists()


def test_a_field_in_millimetres_fails_at_once(slides, calls, tmp_path):
    with pytest.raises(SystemExit):
        run(slides, tmp_path, field=0.064)
    (row,) = table(tmp_path / "maps" / "slides.csv")
    assert "0.064 microns are 0.3 of its pixels, which the run sees as 64" in row["error"]


def test_every_cell_is_in_the_middle_of_one_tile():
    cells = mosaic.grid((1000, 700), 224.0, 28)
    assert (cells.cell, cells.margin, cells.step) == (8.0, 3, 22)
    count = np.zeros(cells.shape, int)
    for tile in mosaic.tiles(cells, np.full(cells.shape, 255, np.uint8)):
        count[mosaic.middle(cells, tile)] += 1
    assert cells.shape == (88, 125)
    assert (count == 1).all()


@pytest.mark.parametrize(("fine", "kept"), [(28, 28), (67, 67), (134, 67), (224, 56), (512, 64)])
def test_maps_are_averaged_where_they_divide(fine, kept):
    sizes = {"image_size": fine, "keep_aspect": False, "evaluation_batch_size": 1}
    batched = slide_maps._batched(
        lambda image: (None, jnp.zeros(image.shape[:3])), types.SimpleNamespace(**sizes)
    )
    assert batched.cells == kept
    assert batched.localize(np.zeros(batched.shape, np.uint8))[1].shape == (1, kept, kept)


@pytest.mark.parametrize("side", [1, 2, 3, 8, 14, 28])
def test_every_tile_has_a_middle(side):
    cells = mosaic.grid((1000, 700), 224.0, side)
    assert cells.step > 0
    assert cells.margin > 0 or side < 3


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("largest", "step"), [(exports.OUTLINED, 1), (20, 2)])
def test_outlines_of_a_block(monkeypatch, threshold, largest, step):
    monkeypatch.setattr(exports, "OUTLINED", largest)
    values = np.zeros((30, 40), np.uint8)
    values[8:20, 4:] = 255
    values[12:16, 12:20] = 0
    options = {"cell": 10.0, "size": (395, 300), "mpp": (2.0, 3.0)}
    (feature,) = exports.outlines(values, threshold, **options)["features"]
    outer, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    assert (*outer.min(0), *outer.max(0)) == (40, 80, 395, 200)  # as far as the slide goes
    assert (*hole.min(0), *hole.max(0)) == (120, 120, 200, 160)
    area = feature["properties"]["measurements"]["area_mm2"]
    corners = 8 * (5 * step) ** 2 / 2  # cut off from the block and from its hole
    assert area == pytest.approx(6 * (355 * 120 - 80 * 40) / 1e6, abs=6 * corners / 1e6)


def test_levels_of_the_pyramid(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (700, 1301), np.uint8)
    exports.write_pyramid(tmp_path / "map.tif", values, mpp=(4.0, 4.0))
    slide = openslide.OpenSlide(tmp_path / "map.tif")
    assert slide.level_dimensions == ((1301, 700), (651, 350), (326, 175))
    shown = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("L"))
    np.testing.assert_array_equal(shown, values)
    coarse = np.asarray(slide.read_region((0, 0), 2, (325, 175)).convert("L"), float)
    means = values[:, :1300].reshape(175, 4, 325, 4).mean((1, 3))
    assert np.abs(coarse - means).max() <= 1  # rounded at every level
