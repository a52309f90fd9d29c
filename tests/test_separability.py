"""Class separability against float64 NumPy, recorded values and what its definition implies."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import small
from golden_cases import cases
from small_run import PHASES, fabricate
from test_report import DASH, change, page_of

from wsol_jax import augment, evaluate, parallel, separability

RECORDED = [(case, name) for case in cases("11_") for name in case.spec["results"]]


def traces(features, truth):
    """tr(S_B) and tr(S_W) of one image, as eq. 4 and 5 have them, in float64."""
    groups = [features[truth == value].astype(np.float64) for value in (0, 1)]
    mean = np.concatenate(groups).mean(axis=0)
    between = sum(len(x) * np.sum((x.mean(axis=0) - mean) ** 2) for x in groups)
    return between, sum(np.sum((x - x.mean(axis=0)) ** 2) for x in groups)


def drawn(seed, shape=(4, 9, 7, 5)):
    """Features, and truth of their size with unannotated pixels; every image has both classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 1, 255], np.uint8), shape[:3])
    features = rng.standard_normal(shape).astype(np.float32)
    return features + 0.7 * (truth == 1)[..., None].astype(np.float32), truth


def batch(features, truth, valid=None, label=None):
    """The metric of one batch."""
    count = len(truth)
    valid = np.ones(count, bool) if valid is None else valid
    label = np.arange(count) % 2 if label is None else label
    return jax.jit(separability.Separability.from_model_output)(features, truth, valid, label)


def values_of(features, truth):
    return np.asarray(batch(features, truth).values)


@pytest.mark.parametrize(("case", "name"), RECORDED)
def test_recorded_scatter(case, name):
    with jax.enable_x64(True):
        features = jnp.moveaxis(jnp.asarray(case.arrays[f"{name}/features"], float), 0, -1)
        truth = jnp.asarray(case.arrays[f"{name}/mask"])
        between, within = separability.scatter(features[None], truth[None])
    expected, single = case.spec["results"][name], features.astype(np.float32)
    assert between.item() == pytest.approx(expected["tr_SB"], rel=1e-12)
    assert within.item() == pytest.approx(expected["tr_SW"], rel=1e-12)
    assert values_of(single[None], truth[None]).item() == pytest.approx(expected["J"], rel=3e-6)


@pytest.mark.parametrize("offset", [0, 1000])
def test_single_precision_is_enough_far_from_zero(offset):
    """Sums of squares less squares of sums would keep no digit there."""
    features, truth = drawn(0, (3, 28, 28, 64))
    features = np.float32(offset) + features
    found = jax.jit(separability.scatter)(features, truth)
    expected = np.transpose([traces(x, t) for x, t in zip(features, truth, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_half_precision_is_widened_first():
    features, truth = drawn(1)
    half = jnp.asarray(features, jnp.bfloat16)
    expected = [traces(np.asarray(x, float), t) for x, t in zip(half, truth, strict=True)]
    expected = np.divide(*np.transpose(expected))
    np.testing.assert_allclose(values_of(half, truth), expected, rtol=2e-6)


def test_turning_moving_and_scaling_the_features_change_nothing():
    features, truth = drawn(2)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    moved = (3.5 * features @ turn + np.arange(5)).astype(np.float32)
    np.testing.assert_allclose(values_of(moved, truth), values_of(features, truth), rtol=1e-5)


def test_unannotated_pixels_belong_to_no_class():
    features, truth = drawn(3)
    other = np.where((truth == 255)[..., None], 100, features).astype(np.float32)
    np.testing.assert_allclose(values_of(other, truth), values_of(features, truth), rtol=1e-4)


def test_two_points_each_seen_twice():
    """Classes at -d and d, each at a distance s on either side: J = d² / s²."""
    d, s = 3.0, 0.5
    features = np.array([-d - s, -d + s, d - s, d + s], np.float32).reshape(1, 2, 2, 1)
    truth = np.array([[[0, 0], [1, 1]]], np.uint8)
    assert values_of(features, truth).item() == pytest.approx(d**2 / s**2)
    constant = np.where(truth[..., None] == 1, d, features)  # one class without any spread
    assert values_of(constant, truth).item() == pytest.approx(2 * d**2 / s**2)


def test_images_without_a_class_or_a_spread_are_skipped_and_counted():
    features, truth = drawn(4, (6, 4, 4, 2))
    truth[0], truth[1], truth[2] = 0, 1, 255
    features[3] = np.where(truth[3] == 1, 0.1, 0.7)[..., None]
    labels = np.array([0, 0, 0, 1, 1, 2])
    summary = batch(features, truth, label=labels).summary()
    j = np.array([np.divide(*traces(features[i], truth[i])) for i in (4, 5)])
    assert np.isnan(values_of(np.full_like(features, 0.3), truth)).all()
    assert summary["skipped"] == 4
    assert np.isnan(summary["0"])
    found = [summary[key] for key in ("1", "2", "all")]
    np.testing.assert_allclose(found, [*j, j.mean()], rtol=1e-5)
    assert summary["per_image"]["labels"] == labels.tolist()
    np.testing.assert_allclose(summary["per_image"]["values"][4:], j, atol=1e-6)
    assert np.isnan(summary["per_image"]["values"][:4]).all()


def test_batches_and_padding_change_nothing():
    features, truth = drawn(5, (5, 6, 6, 3))
    whole = batch(features, truth)
    parts = separability.Separability.empty()
    for rows in (np.array([0, 1, 2]), np.array([3, 4, 3])):
        valid = np.arange(3) + rows[0] == rows
        parts = parts.merge(batch(features[rows], truth[rows], valid, rows % 2))
    assert parts.summary() == whole.summary()
    assert parts.compute() == pytest.approx(np.mean(whole.values))
    assert np.isnan(separability.Separability.empty().compute())


@pytest.mark.parametrize("shape", [(28, 28), (29, 29), (28, 37)])
def test_truth_is_what_interpolation_leaves_in_eight_bits(shape):
    """scipy's bilinear interpolation at the centres, times 255, cut to whole numbers."""
    rng = np.random.default_rng(6)
    truth = (scipy.ndimage.gaussian_filter(rng.standard_normal((224, 224)), 6) > 0).astype(np.uint8)
    centres = [(np.arange(n) + 0.5) * 224 / n - 0.5 for n in shape]
    grid = np.meshgrid(*centres, indexing="ij")
    read = scipy.ndimage.map_coordinates(truth.astype(float), grid, order=1, mode="nearest")
    expected = (255 * read + 1e-9).astype(np.uint8) > 0
    found = separability.truth_of_features(jnp.asarray(truth)[None], shape)[0]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_truth_is_that_of_the_middle_four_of_eight_by_eight():
    rng = np.random.default_rng(7)
    truth = rng.choice(np.array([0, 1, 255], np.uint8), (2, 32, 24), p=[0.7, 0.2, 0.1])
    four = truth.reshape(2, 4, 8, 3, 8)[:, :, 3:5, :, 3:5]
    expected = np.any(four == 1, axis=(2, 4)).astype(np.uint8)
    expected[np.any(four == 255, axis=(2, 4))] = 255
    assert set(np.unique(expected)) == {0, 1, 255}
    found = separability.truth_of_features(jnp.asarray(truth), (4, 3))
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def pixelcam():
    built = small.small_method("pixelcam")
    return built, small.initialize(built)


def test_evaluation_takes_the_features_of_the_maps(pixelcam):
    built, variables = pixelcam
    split = small.small_data().test
    found = evaluate.Evaluator(built, 4).scores(variables, split).separability
    images = next(split.ordered(split.size))
    view = augment.eval_view({"image": jnp.asarray(images["image"])})["image"]
    encoder = {kind: modules["encoder"] for kind, modules in variables.items()}
    features = built.model.encoder.apply(encoder, view)[-1]
    truth = separability.truth_of_features(jnp.asarray(images["mask"]), features.shape[1:3])
    expected = [
        np.divide(*traces(np.asarray(x), np.asarray(t)))
        for x, t in zip(features, truth, strict=True)
    ]
    np.testing.assert_allclose(found.values[found.valid], expected, rtol=1e-4)
    np.testing.assert_array_equal(found.labels[found.valid], split.labels)


def test_the_encoder_runs_once(pixelcam):
    """XLA finds that the features are computed already."""
    built, variables = pixelcam
    rows = {k: jnp.asarray(v) for k, v in next(small.small_data().test.ordered(4)).items()}

    def once(variables, batch):
        return built.features(variables, augment.eval_view(batch)["image"])

    convolutions = [
        len(re.findall(r" (?:convolution|dot)\(", compiled.as_text()))
        for compiled in (
            parallel.compile_evaluation(function).lower(variables, rows).compile()
            for function in (once, together(built), apart(built))
        )
    ]
    assert convolutions[0] > 5
    assert convolutions[2] - convolutions[1] == convolutions[0]


def together(built):
    def both(variables, batch):
        image = augment.eval_view(batch)["image"]
        return built.localize(variables, image, batch["label"]), built.features(variables, image)

    return both


def apart(built):
    """The same where the two cannot be one: the second encoder sees another image."""

    def both(variables, batch):
        image = augment.eval_view(batch)["image"]
        maps = built.localize(variables, image, batch["label"])
        return maps, built.features(variables, image[:, ::-1])

    return both


def test_a_report_shows_it_beside_the_published(tmp_path):
    fabricate(tmp_path)
    numbers = {"0": 0.171, "1": 0.044, "all": 0.104, "skipped": 2}
    numbers["per_image"] = {"labels": [0, 1, 0, 1], "values": [0.171, 0.044, None, None]}

    def measured(results):
        for phase, (_, name) in PHASES.items():
            results["phases"][phase]["maps"][name]["b_loc"]["test"]["separability"] = numbers

    change(tmp_path / "metrics.json", measured)
    page = page_of(tmp_path)
    assert page.row("B-LOC", 6) == page.row("B-LOC", 7) == ["0.17", "0.04", "0.10", "2"]
    assert page.row("published", 4) == ["0.17", "0.04", "0.10", ""]
    assert page.row("published", 5) == ["0.14", "0.12", "0.13", ""]
    titles = [v for v in page.values("alt") if v.startswith("Class separability")]
    assert [re.search("of (.*) test", title)[1] for title in titles] == [
        "benign",
        "malignant",
        "all",
    ]
    assert "Tables 4 and 5" in page.text
    numbers["0"] = None
    change(tmp_path / "metrics.json", measured)
    assert page_of(tmp_path).row("B-LOC", 6)[0] == DASH
