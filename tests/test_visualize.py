"""Drawings: limits and borders that follow from the definition, files that decode."""

import io
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import _pylab_helpers, colormaps
from PIL import Image

from wsol_jax import figures, visualize

CURVES = [
    figures.Curve(0, "LayerCAM 75.1", [0.0, 0.5, 1.0], [0.9, 0.8, 0.5]),
    figures.Curve(1, "PixelCAM 83.6", [0.0, 0.5, 1.0], [1.0, 0.9, 0.5]),
]
HISTORY = [{"epoch": e, "accuracy": 50 + 10.0 * e, "maps": 60 + 2.0 * e} for e in range(6)]


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


@pytest.fixture
def mask():
    return np.random.default_rng(1).integers(0, 4, (12, 10)) > 0


def example(image, mask, maps=("LayerCAM", "PixelCAM")):
    heat = np.linspace(0, 1, mask.size, dtype=np.float32).reshape(mask.shape)
    return visualize.Example("one", image, mask.astype(np.uint8), dict.fromkeys(maps, heat))


def texts(svg):
    return {"".join(e.itertext()) for e in ElementTree.fromstring(svg).iter() if "text" in e.tag}


def test_overlay_of_zeros_is_the_image(image):
    np.testing.assert_array_equal(visualize.overlay(image, np.zeros((12, 10))), image)


def test_overlay_is_drawn_in_bands_without_a_seam(image, monkeypatch):
    heat = np.linspace(0, 1, image[..., 0].size, dtype=np.float32).reshape(image.shape[:2])
    whole = visualize.overlay(image, heat)
    monkeypatch.setattr(visualize, "BAND", 3)
    np.testing.assert_array_equal(visualize.overlay(image, heat), whole)


def test_overlay_of_ones_is_the_last_colour_at_full_strength(image):
    last = 255 * np.array(colormaps["viridis"](1.0)[:3])
    expected = (1 - visualize.OPACITY) * image + visualize.OPACITY * last
    drawn = visualize.overlay(image, np.ones((12, 10)))
    np.testing.assert_allclose(drawn, expected, atol=0.51)


def test_overlay_changes_each_pixel_by_its_own_value_only(image):
    heat = np.zeros((12, 10), np.float16)
    heat[3, 4] = 0.5
    changed = np.any(visualize.overlay(image, heat) != image, axis=-1)
    np.testing.assert_array_equal(np.argwhere(changed), [[3, 4]])


def test_contour_is_exactly_the_border_of_the_object(image, mask):
    drawn = visualize.overlay(image, np.zeros((12, 10)), mask)
    border = visualize.border(mask)
    assert np.all(drawn[border] == visualize.CONTOUR)
    np.testing.assert_array_equal(drawn[~border], image[~border])


def test_border_touches_background_by_a_side(mask):
    height, width = mask.shape
    for y, x in np.ndindex(mask.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [p for p in around if 0 <= p[0] < height and 0 <= p[1] < width]
        touches = any(not mask[p] for p in inside)
        assert visualize.border(mask)[y, x] == (mask[y, x] and touches)


def test_border_of_the_whole_image_is_empty():
    assert not visualize.border(np.ones((5, 6), bool)).any()


def test_ignored_pixels_are_no_object(image):
    truth = np.full((12, 10), 255, np.uint8)
    np.testing.assert_array_equal(visualize.overlay(image, np.zeros((12, 10)), truth), image)


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_maps_outside_the_range_are_refused(image, value, tmp_path):
    heat = np.full((12, 10), value)
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        visualize.overlay(image, heat)
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        visualize.save_map_png16(tmp_path / "map.png", heat)


def test_png16_keeps_sixteen_bits(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    visualize.save_map_png16(tmp_path / "map.png", (values / 65535).astype(np.float32))
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), values)


def test_panels_begin_with_the_image_and_the_perfect_map(image, mask):
    drawn = visualize.panels(example(image, mask))
    assert list(drawn) == ["image", "truth", "LayerCAM", "PixelCAM"]
    np.testing.assert_array_equal(drawn["image"], image)
    np.testing.assert_array_equal(drawn["truth"][~mask], image[~mask])
    np.testing.assert_array_equal(drawn["LayerCAM"], drawn["PixelCAM"])


def test_the_truth_of_unannotated_pixels_is_grey(image, mask):
    known = mask.astype(np.uint8)
    known[:, :4] = 255
    heat = {"LayerCAM": np.zeros(known.shape)}
    drawn = visualize.panels(visualize.Example("one", image, known, heat))
    assert np.all(drawn["truth"][:, :4] == visualize.UNKNOWN)
    assert not np.any(np.all(drawn["truth"][:, 4:] == visualize.UNKNOWN, axis=-1))
    assert not np.any(np.all(drawn["LayerCAM"][:, :4] == visualize.UNKNOWN, axis=-1))


def test_legend_runs_from_clear_to_full():
    drawn = visualize.legend()
    assert np.all(drawn[:, 0] == 255)
    last = visualize.overlay(np.full((1, 1, 3), 255, np.uint8), np.ones((1, 1)))
    np.testing.assert_array_equal(drawn[0, -1], last[0, 0])


def test_gallery_has_a_row_for_each_example_and_a_column_for_each_panel(image, mask):
    sizes = [
        Image.open(io.BytesIO(figures.gallery([example(image, mask, maps)] * rows))).size
        for rows, maps in (
            (1, ["CAM"]),
            (2, ["CAM"]),
            (1, ["CAM", "PixelCAM"]),
            (1, ["Grad-CAM++ + PixelCAM, n=20"]),
        )
    ]
    panel = 230
    assert sizes[1] == (sizes[0][0], sizes[0][1] + panel)
    assert sizes[2] == (sizes[0][0] + panel, sizes[0][1])
    assert sizes[3] == (sizes[0][0], sizes[0][1] + 30)  # a second line of the title


def test_gallery_needs_an_example():
    with pytest.raises(ValueError, match="at least one example"):
        figures.gallery([])


def test_precision_recall_figure_names_curves_and_floor():
    found = texts(figures.precision_recall_figure(CURVES, constant_map=51.2))
    assert {"LayerCAM 75.1", "PixelCAM 83.6", "constant map 51.2", "recall", "precision"} <= found
    assert "constant map 51.2" not in texts(figures.precision_recall_figure(CURVES))


def test_figures_wear_the_colours_of_their_theme():
    for theme, other in ((figures.LIGHT, figures.DARK), (figures.DARK, figures.LIGHT)):
        drawn = figures.precision_recall_figure(CURVES, theme=theme).decode()
        assert all(color in drawn for color in theme.maps[:2])
        assert not any(color in drawn for color in other.maps)


def test_selection_figure_marks_the_chosen_epochs():
    chosen = {"B-LOC": 2, "B-CL": 5, "last": 5}
    found = texts(figures.selection_figure(HISTORY, chosen=chosen, place=1))
    assert {"B-LOC", "B-CL, last", "accuracy", "PxAP", "epoch"} <= found


def test_shift_figure_has_a_panel_for_each_quantity_and_names_its_lines():
    lines = [figures.Line(i, name, [60.0, 50.0 + i]) for i, name in enumerate(("CAM", "PixelCAM"))]
    drawn = figures.shift_figure([0.0, 12.5], {"PxAP": lines, "accuracy": lines[:1]})
    names = ["".join(e.itertext()) for e in ElementTree.fromstring(drawn).iter() if "text" in e.tag]
    assert {"PxAP, percent", "accuracy, percent", "distance of stains, degrees"} <= set(names)
    assert (names.count("CAM"), names.count("PixelCAM")) == (2, 1)
    assert all(color in drawn.decode() for color in figures.LIGHT.maps[:2])


@pytest.mark.parametrize("history", [[], HISTORY[:1], [{"epoch": 0, "accuracy": 50.0}]])
def test_selection_figure_of_a_run_that_has_hardly_begun(history):
    assert "epoch" in texts(figures.selection_figure(history, chosen={}))


def test_figures_are_reproducible_and_none_stays_open():
    first, second = (figures.selection_figure(HISTORY, chosen={"last": 5}) for _ in range(2))
    assert first == second
    assert _pylab_helpers.Gcf.get_all_fig_managers() == []


def test_matplotlib_is_imported_only_to_draw():
    code = (
        "import sys; from wsol_jax import figures, visualize; sys.exit('matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
