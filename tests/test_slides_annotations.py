"""Outlined regions: both formats, their order, both rules, and the published patches' shares."""

import collections
import os
import pathlib

import numpy as np
import pytest
import slide_factory

from wsol_jax.slides import annotations, published_patches

OFFICIAL = pathlib.Path(os.environ.get("WSOL_CAMELYON16", "."))
with_camelyon16 = pytest.mark.skipif(
    "WSOL_CAMELYON16" not in os.environ, reason="WSOL_CAMELYON16 names no folder"
)
ASAP = "ASAP_Annotations"


def require_equal(found, expected, *, names=True):
    if names:
        assert [r.name for r in found] == [r.name for r in expected]
    assert [r.tumor for r in found] == [r.tumor for r in expected]
    for region, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(region.vertices, other.vertices)


@pytest.fixture(scope="module")
def annotation():
    return slide_factory.outlines()


@pytest.mark.parametrize("write", [slide_factory.write_asap, slide_factory.write_json])
def test_files_give_their_polygons_exactly(tmp_path, annotation, write):
    suffix = {"write_asap": "XML", "write_json": "json"}[write.__name__]
    require_equal(annotations.read(write(tmp_path / f"a.{suffix}", annotation)), annotation)


def test_asap_coordinates_out_of_order_and_with_commas(tmp_path, annotation):
    file = slide_factory.write_asap(tmp_path / "a.xml", annotation)
    lines = file.read_text().splitlines()
    points = [i for i, line in enumerate(lines) if line.startswith("<Coordinate ")]
    first = points[: len(annotation[0].vertices)]
    for i, line in zip(first, [lines[i] for i in reversed(first)], strict=True):
        lines[i] = line.replace(".", ",")
    file.write_text("\n".join(lines))
    require_equal(annotations.read(file), annotation)


def test_what_has_no_area_is_left_out(tmp_path, annotation):
    line = annotations.Region("line", "_0", True, np.array([(0.0, 0), (5, 5)]))
    file = slide_factory.write_asap(tmp_path / "a.xml", [*annotation, line])
    dot = '<Annotations><Annotation Name="d" Type="Dot" PartOfGroup="None"></Annotation>'
    file.write_text(file.read_text().replace("<Annotations>", dot, 1))
    require_equal(annotations.read(file), annotation)


def test_groups_of_other_data_sets(tmp_path, annotation):
    renamed = [r._replace(group="metastases" if r.tumor else "normal") for r in annotation]
    file = slide_factory.write_asap(tmp_path / "a.xml", renamed)
    require_equal(annotations.read(file), annotation)  # CAMELYON17's
    renamed = [r._replace(group="ROI") for r in annotation]
    file = slide_factory.write_asap(tmp_path / "b.xml", renamed)
    message = r"b\.xml: 'Annotation 1' is in the group 'ROI', which may .* groups \['Tumor', '_0'"
    with pytest.raises(ValueError, match=message):
        annotations.read(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", "<ASAP_Annotations><Annot", "cannot read the annotation .*expected an ASAP file"),
        (
            "a.xml",
            "<Annotations><Annotation/></Annotations>",
            "first element is 'Annotations', not",
        ),
        ("a.xml", f"<{ASAP}><Annotations><Annotation/></Annotations></{ASAP}>", "no 'Type'"),
        ("a.json", "{}", "no 'positive'; expected an ASAP"),
        ("a.json", "[1]", "cannot read the annotation"),
        ("a.json", '{"positive": [{"name": "x", "vertices": [1, 2, 3]}]}', "reshape"),
        ("a.geojson", "{}", "unknown suffix; expected an ASAP file"),
    ],
)
def test_unreadable_annotations(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        annotations.read(tmp_path / name)


def test_absent_annotation(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotation .*b\.xml does not exist; name"):
        annotations.read(tmp_path / "b.xml")


def test_nested_regions_are_painted_from_the_outside_in(annotation):
    names = [region.name for region in annotation]
    assert names == ["Annotation 1", "Annotation 3", "Annotation 0", "Annotation 2"]


def test_an_exclusion_covers_what_it_overlaps():
    tumor = np.array([(0, 0), (10, 0), (10, 10), (0, 10)], float)
    regions = [
        annotations.Region("e", "_2", False, tumor + np.array((6, 0))),
        annotations.Region("t", "_0", True, tumor),
    ]
    for given in (regions, regions[::-1]):
        mask = annotations.window(annotations.painting_order(given), 0, 0, 20, 10, rule="exact")
        np.testing.assert_array_equal(mask.sum(axis=0), [10] * 6 + [0] * 14)


def test_rules_differ_by_holes(annotation):
    published = annotations.window(annotation, 390, 290, 180, 200)
    exact = annotations.window(annotation, 390, 290, 180, 200, rule="exact")
    assert published.dtype == exact.dtype == np.uint8
    assert published.all()
    assert exact[0, 0] == 1  # tumor
    assert exact[20, 20] == 0  # its hole
    assert exact[90, 80] == 1  # the island in the hole


@pytest.mark.parametrize("rule", annotations.RULES)
def test_masks_lie_where_the_pixels_are(annotation, rule):
    if rule == "published":
        annotation = [region for region in annotation if region.tumor]
    colours = np.full((*slide_factory.SIZE[::-1], 3), slide_factory.GLASS, np.uint8)
    mask = annotations.window(annotation, 0, 0, *slide_factory.SIZE, rule=rule)
    colours[mask == 1] = slide_factory.TUMOR
    tumor = np.abs(slide_factory.picture().astype(int) - slide_factory.TUMOR).sum(-1) < 75
    if rule == "exact":
        assert np.mean(tumor != (mask == 1)) < 0.004  # but for the outlines, which were drawn
    else:
        assert not np.any(tumor & (mask == 0))


@pytest.mark.parametrize("rule", annotations.RULES)
def test_coarse_masks_agree_with_fine_ones(annotation, rule):
    fine = annotations.window(annotation, 200, 100, 640, 640, rule=rule)
    for downsample in (2, 8, 12.8):
        side = int(640 / downsample)
        coarse = annotations.window(
            annotation, 200, 100, side, side, downsample=downsample, rule=rule
        )
        places = ((np.arange(side) + 0.5) * downsample).astype(int)
        differ = coarse != fine[np.ix_(places, places)]
        assert differ.mean() < (0.004 if rule == "exact" else 0.02 * downsample)
        assert coarse.mean() == pytest.approx(fine.mean(), abs=0.004 * downsample)


@pytest.mark.parametrize(("width", "height", "downsample"), [(0, 5, 1), (5, -1, 1), (5, 5, 0)])
def test_empty_windows_are_refused(annotation, width, height, downsample):
    with pytest.raises(ValueError, match=r"expected at least 1 x 1, and a positive downsample"):
        annotations.window(annotation, 0, 0, width, height, downsample=downsample)


def test_far_away_is_empty(annotation):
    for rule in annotations.RULES:
        assert not annotations.window(annotation, 100_000, 0, 64, 32, rule=rule).any()
        assert annotations.window((), 0, 0, 64, 32, rule=rule).shape == (32, 64)


def test_unknown_rule(annotation):
    with pytest.raises(ValueError, match=r"unknown rule 'official'; have \['published', 'exact'\]"):
        annotations.window(annotation, 0, 0, 8, 8, rule="official")


@with_camelyon16
@pytest.mark.parametrize("name", ["tumor_001", "tumor_002", "tumor_003"])
def test_both_files_of_a_slide_give_the_same_polygons(name):
    asap = annotations.read(OFFICIAL / "xml" / f"{name}.RECONSTRUCTED.xml")
    told = annotations.read(OFFICIAL / "annotations" / f"{name}.json")
    require_equal(asap, told, names=False)


@with_camelyon16
def test_shares_of_tumor_are_those_in_the_published_names():
    files = {file.stem: file for file in (OFFICIAL / "annotations").glob("*.json")}
    patches = [
        patch
        for split in ("train", "valcl", "test")
        for patch in published_patches.read(split)
        if patch.slide in files
    ]
    equal = collections.Counter()
    for slide, file in files.items():
        annotation = annotations.read(file)
        for patch in (patch for patch in patches if patch.slide == slide):
            mask = annotations.window(annotation, patch.x, patch.y, 512, 512)
            equal[abs(mask.mean() - patch.tumor) < 1e-6] += 1
    assert equal == {True: 808}
