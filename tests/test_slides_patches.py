"""Patches of drawn slides: the published ones where they lie, new ones by the protocol's rules."""

import collections
import os
import pathlib

import numpy as np
import pytest
import slide_factory

from wsol_jax.slides import annotations, patches, published_patches, reader, tissue

MAGNIFY = 2


@pytest.fixture(scope="module")
def tumor(tmp_path_factory):
    """A drawn slide of 2200 x 1800 pixels with its annotation."""
    folder = tmp_path_factory.mktemp("slides")
    file = slide_factory.write(folder / "a.tif", slide_factory.picture(), magnify=MAGNIFY)
    regions = [r._replace(vertices=r.vertices * MAGNIFY) for r in slide_factory.outlines()]
    return patches.Source("a", file, slide_factory.write_asap(folder / "a.xml", regions))


@pytest.fixture(scope="module")
def metastatic(tumor):
    return list(patches.sample(tumor, seed=3, dense_share=0.5))


def test_metastatic_patches_hold_tumor_and_tissue(metastatic):
    assert len(metastatic) > 4
    for patch in metastatic:
        assert patch.label == patches.METASTATIC
        assert patch.tumor >= patches.TUMOR_MIN
        assert patch.tumor == patch.mask.mean()  # the row's mask is the patch's
        assert patch.tissue >= tissue.TISSUE_MIN


def test_patches_are_the_slide_and_the_annotation_at_their_place(tumor, metastatic):
    slide, annotation = reader.open_slide(tumor.file), annotations.read(tumor.annotation)
    for patch in metastatic[::2]:
        window = patch.x, patch.y, 512, 512
        np.testing.assert_array_equal(patch.image, reader.region(slide, *window))
        expected = annotations.window(annotation, *window, rule="exact")
        np.testing.assert_array_equal(patch.mask, expected)


def test_what_is_outlined_as_normal_in_a_tumor_is_normal(tmp_path):
    file = slide_factory.write(tmp_path / "a.tif", slide_factory.picture(), magnify=4, levels=1)
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], float)
    outlines = (("Tumor", True, 1000, 2400), ("Exclusion", False, 1400, 1600))
    regions = [
        annotations.Region(group, group, tumor, corner + side * square)
        for group, tumor, corner, side in outlines
    ]
    source = patches.Source("a", file, slide_factory.write_asap(tmp_path / "a.xml", regions))

    def hole(start):  # along a patch that begins there
        return slice(max(0, 1400 - start), max(0, 3000 - start))

    for rule, expected in (("exact", 0), ("published", 1)):
        found = patches.sample(source, dense_share=100, rule=rule)
        cut = [patch.mask[hole(patch.y), hole(patch.x)].ravel() for patch in found]
        assert np.unique(np.concatenate(cut)) == [expected]
    with pytest.raises(ValueError, match=r"unknown rule 'holes'; have \['published', 'exact'\]"):
        next(patches.sample(source, rule="holes"))


def test_rows_begin_at_the_first_window_that_serves(tumor):
    slide, annotation = reader.open_slide(tumor.file), annotations.read(tumor.annotation)
    rows = collections.defaultdict(list)
    for place in patches.metastatic_places(slide, annotation):
        rows[place.y].append(place)
    # The island lies in the outer tumor; the rows of the two others are half a patch above them.
    tops = {round(top * MAGNIFY) - 256 for top in (180.25, 350)}
    lefts = {round(left * MAGNIFY) - 512 for left in (250, 620)}
    assert {y % 512 for y in rows} == {top % 512 for top in tops}
    for y, places in rows.items():
        x = places[0].x
        before = annotations.window(annotation, x - 1, y, 512, 512).mean()
        assert before < patches.TUMOR_MIN or x in lefts  # in this drawing tumor is tissue
        assert all((place.x - places[0].x) % 512 == 0 for place in places)


def test_places_are_in_the_slide(tumor):
    slide, annotation = reader.open_slide(tumor.file), annotations.read(tumor.annotation)
    shifted = tuple(r._replace(vertices=r.vertices - (650, 450)) for r in annotation)
    for place in patches.metastatic_places(slide, shifted):
        assert 0 <= place.x <= slide.size[0] - 512
        assert 0 <= place.y <= slide.size[1] - 512


def test_glass_is_no_metastatic_patch(tmp_path, tumor):
    blank = np.full((900, 1100, 3), slide_factory.GLASS, np.uint8)
    file = slide_factory.write(tmp_path / "blank.tif", blank, magnify=MAGNIFY)
    assert not list(patches.sample(patches.Source("blank", file, tumor.annotation)))
    assert not list(patches.sample(patches.Source("blank", file)))


def test_normal_patches_hold_tissue_and_lie_on_the_grid(tumor):
    source = patches.Source("b", tumor.file)
    found = list(patches.sample(source))
    slide = reader.open_slide(tumor.file)
    assert 6 < len(found) <= (2200 // 512) * (1800 // 512)
    assert len({(p.x, p.y) for p in found}) == len(found)
    for patch in found:
        assert patch.x % 512 == 0 == patch.y % 512
        assert patch.label == patches.NORMAL
        assert not patch.mask.any()
        assert patch.tissue == tissue.tissue(patch.image).mean() >= tissue.TISSUE_MIN
    np.testing.assert_array_equal(
        found[0].image, reader.region(slide, found[0].x, found[0].y, 512, 512)
    )
    fewer = list(patches.sample(source, normal_patches=3))
    assert [p[:6] for p in fewer] == [p[:6] for p in found[:3]]
    assert not list(patches.sample(source, normal_patches=0))


def test_samples_depend_on_name_and_seed_alone(tumor):
    def places(source, **options):
        return [patch[:6] for patch in patches.sample(source, **options)]

    normal = patches.Source("b", tumor.file)
    first = places(normal, normal_patches=2)
    assert places(normal, normal_patches=2) == first
    assert places(normal, normal_patches=2, seed=1) != first
    assert places(normal._replace(name="c"), normal_patches=2) != first


def test_a_tumor_in_another_is_not_scanned_twice(tumor):
    annotation = [r for r in annotations.read(tumor.annotation) if r.tumor]
    assert len(annotation) == 3
    for regions in (annotation, annotation[::-1]):
        found = list(patches._outermost(regions))
        assert len(found) == 2
    slide, other = reader.open_slide(tumor.file), annotation[1]
    once = list(patches.metastatic_places(slide, (other,)))
    assert once
    assert once == list(patches.metastatic_places(slide, (other, other)))


def _places(mixed, dense):
    shares = np.concatenate([np.linspace(0.2, 0.5, mixed), np.linspace(0.501, 1, dense)])
    return [patches.Place(i, 0, 1.0, share) for i, share in enumerate(shares.tolist())]


@pytest.mark.parametrize(
    ("share", "kept"),
    [(patches.RELEASED_DENSE_SHARE, 130), (patches.WRITTEN_DENSE_SHARE, 2), (0, 0), (100, 400)],
)
def test_dense_patches_are_thinned_evenly(share, kept):
    places = _places(200, 400)
    found = patches.thinned(places, np.random.default_rng(0), share)
    assert found[:200] == tuple(places[:200])
    assert len(found) == 200 + kept
    assert list(found) == sorted(found)
    if kept == 130:
        counts, _ = np.histogram([p.tumor for p in found[200:]], 10, (0.5, 1))
        assert counts.max() <= 2.5 * counts.min()


def test_published_patches_have_the_released_share():
    shares = [p.tumor for listed in patches.published().values() for p, _ in listed if p.label]
    mixed, dense = (np.count_nonzero((np.array(shares) > 0.5) == side) for side in (False, True))
    assert dense / mixed == pytest.approx(patches.RELEASED_DENSE_SHARE, abs=0.02)


def test_splits_are_by_name():
    names = [f"tumor_{i:03}" for i in range(1000)]
    found = {name: patches.split_of(name) for name in names}
    assert set(found.values()) == {"train", "valcl"}
    assert 150 < list(found.values()).count("valcl") < 250
    assert found != {name: patches.split_of(name, seed=1) for name in names}
    assert patches.split_of("test_001") == "test"
    assert "test" not in {patches.split_of(f"testis_{i}") for i in range(20)}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A blank slide where tumor_008 has tissue under its published patches, and an annotation."""
    folder = tmp_path_factory.mktemp("published")
    listed = patches.published()["tumor_008"]
    canvas = np.full((2060, 104, 3), slide_factory.GLASS, np.uint8)
    regions = []
    for i, (patch, _) in enumerate(listed):
        x, y = patch.x // 64, patch.y // 64
        canvas[y : y + 9, x : x + 9] = slide_factory.TUMOR
        corners = [
            (patch.x + 100.5, patch.y),
            (patch.x + 600, patch.y + 50),
            (patch.x, patch.y + 400),
        ]
        regions.append(annotations.Region(str(i), "_0", True, np.array(corners, float)))
    file = slide_factory.write(folder / "tumor_008.tif", canvas, magnify=64, tile=512, levels=4)
    annotation = slide_factory.write_json(folder / "tumor_008.json", regions)
    return patches.Source("tumor_008", file, annotation)


def test_recut_patches_are_the_published_ones(published):
    slide, annotation = reader.open_slide(published.file), annotations.read(published.annotation)
    found = list(patches.recut(published))
    listed = [p for s in ("train", "valcl", "test") for p in published_patches.read(s)]
    expected = [p for p in listed if p.slide == "tumor_008"]
    assert [p[:4] for p in found] == [(p.x, p.y, p.label, p.tissue) for p in expected]
    assert len({p.split for p in found}) == 1
    for patch in found:
        window = patch.x, patch.y, 512, 512
        np.testing.assert_array_equal(patch.image, reader.region(slide, *window))
        np.testing.assert_array_equal(patch.mask, annotations.window(annotation, *window))
        assert patch.tumor == patch.mask.mean() > 0


def test_recut_counts():
    found = [p for listed in patches.published().values() for p in listed]
    assert len(found) == 48_870
    assert collections.Counter(split for _, split in found) == {
        "train": 24_348,
        "valcl": 8_858,
        "test": 15_664,
    }


def test_what_cannot_be_cut(tumor, published, tmp_path):
    with pytest.raises(ValueError, match="slide a has no published patch; expected tumor_001"):
        next(patches.recut(tumor))
    with pytest.raises(
        ValueError, match=r"tumor_008 has metastatic patches and no annotation; put"
    ):
        next(patches.recut(published._replace(annotation=None)))
    with pytest.raises(ValueError, match=r"has 2200 x 1800 pixels, and a published patch at x \d+"):
        next(patches.recut(published._replace(file=tumor.file)))
    with pytest.raises(ValueError, match=r"tumor_9 has no annotation and would pass for normal"):
        next(patches.sample(patches.Source("tumor_9", tumor.file)))
    hole = annotations.Region("hole", "negative", False, np.array([(0, 0), (9, 0), (0, 9)], float))
    file = slide_factory.write_json(tmp_path / "a.json", [hole])
    with pytest.raises(ValueError, match=r"a\.json outlines no tumor; if a is a normal slide"):
        next(patches.sample(tumor._replace(annotation=file)))


@pytest.mark.skipif("WSOL_CAMELYON16" not in os.environ, reason="WSOL_CAMELYON16 names no folder")
@pytest.mark.parametrize("name", ["tumor_001", "tumor_002", "tumor_012", "test_048"])
def test_rows_are_those_of_the_published_patches(name):
    file = pathlib.Path(os.environ["WSOL_CAMELYON16"]) / "annotations" / f"{name}.json"
    annotation = annotations.read(file)
    endless = reader.Slide(file, (10**6, 10**6), None, (0, 0), (1.0,), None)
    scanned = collections.defaultdict(set)  # where tumor alone would let a row begin, by top
    for tumor in patches._outermost([region for region in annotation if region.tumor]):
        for left, y, width in patches._rows(endless, tumor):
            share = patches._shares(annotations.window(annotation, left, y, width, 512))
            scanned[y].add(left + int(np.argmax(share >= patches.TUMOR_MIN)))
    listed = collections.defaultdict(list)
    for patch, _ in patches.published()[name]:
        listed[patch.y].append(patch.x)
    assert listed.keys() <= scanned.keys()
    begins = [bool(scanned[y] & set(columns)) for y, columns in listed.items()]
    assert np.mean(begins) > 0.9  # the others begin later, where there is tissue
