"""The printed numbers must agree with themselves, apart from the inconsistencies we list."""

import numpy as np
import pytest

from wsol_jax import published

TABLES = {
    table.source: table
    for paper in (published.pixelcam, published.maxmin)
    for table in vars(paper).values()
    if isinstance(table, published.Table)
}


def test_tables_have_names():
    assert published.table("maxmin.TABLE_3") is published.maxmin.TABLE_3
    for unknown in ("pixelcam.TABLE_99", "pixelcam", "cam.TABLE_1", "pixelcam.Table"):
        with pytest.raises(ValueError, match=rf"unknown table '{unknown}'; expected PAPER.TABLE"):
            published.table(unknown)


def test_lookup_joins_scores_rates_and_separability():
    row = published.lookup(data="glas", backbone="resnet50", method="layer_cam", pixelcam=True)
    rates = {"tp": 77.6, "fn": 22.4, "tn": 72.5, "fp": 27.5}
    separability = {"j_benign": 0.14, "j_malignant": 0.12, "j_all": 0.13}
    assert row == {"pxap": 83.6, "accuracy": 100.0, **separability, **rates}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (("glas", "resnet50", "grad_cam_pp"), 76.8),
        (("camelyon16", "resnet50", "layer_cam"), 33.2),
        (("glas", "vgg16", "deep_mil"), 73.3),
        (("camelyon16", "inception_v3", "layer_cam"), 53.7),
        (("glas", "deit_tiny_patch16_224", "sat"), 65.9),
    ],
)
def test_lookup_takes_the_table_of_the_backbone(query, expected):
    names = ("data", "backbone", "method")
    assert published.lookup(**dict(zip(names, query, strict=True)))["pxap"] == expected


def test_lookup_tells_negev_from_pixelcam():
    query = {"data": "glas", "backbone": "resnet50", "method": "deep_mil"}
    found = [published.lookup(**query, **{k: True})["pxap"] for k in ("negev", "pixelcam")]
    assert found == [85.9, 85.5]


def test_lookup_leaves_out_dashes_and_reads_the_max_min_tables():
    assert "accuracy" not in published.lookup(data="glas", backbone="resnet50", method="unet")
    assert published.lookup(data="camelyon16", backbone="resnet18", method="eem") == {
        "error": 6.26,
        "f1_foreground": 67.98,
        "f1_background": 88.80,
    }


@pytest.mark.parametrize(
    "query",
    [
        {"data": "synthetic_glands", "backbone": "resnet50", "method": "layer_cam"},
        {"data": "glas", "backbone": "resnet101", "method": "layer_cam"},
        {"data": "glas", "backbone": "resnet50", "method": "cam"},
        {"data": "glas", "backbone": "resnet50", "method": "sat"},
        {"data": "glas", "backbone": "deit_tiny_patch16_224", "method": "layer_cam"},
        {"data": "", "backbone": "", "method": "", "pixelcam": True},
    ],
)
def test_lookup_finds_nothing_that_was_not_published(query):
    assert published.lookup(**query) is None


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_fill_their_columns(table):
    assert table.source
    assert len(set(table.columns)) == len(table.columns)
    assert {len(row) for row in table.rows.values()} == {len(table.columns)}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_percentages_are_percentages(table):
    for row in table.rows.values():
        for column, number in zip(table.columns, row, strict=True):
            if column.rpartition("/")[2] not in ("t", "parameters") and number is not None:
                assert 0 <= number <= 100


def test_rates_of_a_class_add_up_to_all_its_pixels():
    rates = np.array(list(published.pixelcam.TABLE_6.rows.values())).reshape(-1, 2)
    np.testing.assert_allclose(rates.sum(axis=1), 100, atol=0.11)  # rounded in print


def test_parameters_are_those_of_the_added_heads():
    rows = {name: count for name, (_, count) in published.pixelcam.TABLE_11.rows.items()}
    for baseline in ("deep_mil", "grad_cam_pp", "layer_cam"):
        assert rows[f"{baseline} + pixelcam"] - rows[baseline] == 2 * 2048 + 2
        assert rows[f"{baseline} + negev"] - rows[baseline] == 9_013_218
    assert rows["sat + pixelcam"] - rows["sat"] == 2 * 192  # the bias is missing in print


def test_ablations_repeat_table_1_apart_from_what_the_docstring_lists():
    defaults = {
        "linear": published.pixelcam.TABLES_12_13,
        "b_loc": published.pixelcam.TABLE_14,
        "probability": published.pixelcam.TABLE_15,
        "n=5": published.pixelcam.TABLE_16,
        "lambda=1": published.pixelcam.TABLE_17,
        "same": published.pixelcam.TABLE_18,
    }
    differing = set()
    for setting, table in defaults.items():
        for name, row in table.rows.items():
            method = name.removesuffix(f", {setting}")
            if (
                method in published.pixelcam.TABLE_1.rows
                and row[:4] != published.pixelcam.TABLE_1.rows[method]
            ):
                differing.add((setting, method))
    assert differing == {("linear", "grad_cam_pp"), ("linear", "grad_cam_pp + pixelcam")}


def test_depth_across_data_sets_repeats_table_3():
    for name, row in published.pixelcam.TABLES_12_13.rows.items():
        method = name.removesuffix(", linear")
        if method in published.pixelcam.TABLE_3.rows:
            assert row[4:] == published.pixelcam.TABLE_3.rows[method]


def test_max_min_ablation_ends_at_the_main_table():
    final, main = published.maxmin.TABLE_4.rows, published.maxmin.TABLES_1_2.rows
    assert final["wildcat"] == main["wildcat"][:3]
    for method in ("eem", "sem"):
        row = final[f"foreground + background, {method}, size constraints"]
        assert row == main[method][:3]
