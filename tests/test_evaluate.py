"""Evaluation counts every image once, whatever the batches; pseudo-labels are its maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from wsol_jax import augment, evaluate, ops, pixel_counts, pseudo_labels
from wsol_jax.data import memory

DATA = small.small_data()


@pytest.fixture(scope="module")
def trained():
    """A method, and variables that are not the initial ones of a head that knows nothing."""
    built = small.small_method("classifier", dropout=0.0)
    return built, small.initialize(built)


def test_batches_and_padding_change_nothing(trained):
    built, variables = trained
    scores = [
        evaluate.Evaluator(built, size).scores(variables, DATA.test) for size in (1, 2, 5, 64)
    ]
    for other in scores[1:]:
        assert other.accuracy.compute() == scores[0].accuracy.compute()
        for name, pxap in other.maps.items():
            assert pxap.compute() == pytest.approx(scores[0].maps[name].compute(), abs=1e-3)
            assert pxap.pixels == DATA.test.size * small.SIZE**2


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("batch_size", [8, 64])
def test_few_batch_sizes_serve_splits_of_any_size(batch_size, devices):
    shares = {n: evaluate._share(batch_size, n, devices) for n in range(1, 300)}
    assert len(set(shares.values())) <= 4
    assert max(shares.values()) == batch_size // devices
    for images, share in shares.items():
        filled_up = -(-images // (share * devices)) * share * devices - images
        assert share == 1 or filled_up <= images / 2


def test_the_splits_of_glas_take_two_batch_sizes():
    assert {evaluate._share(64, images, 1) for images in (67, 18, 6, 80)} == {4, 16}


def test_scores_are_those_of_the_maps(trained):
    """The same numbers from the maps, one by one, in NumPy."""
    built, variables = trained
    evaluator = evaluate.Evaluator(built, 4)
    scores = evaluator.scores(variables, DATA.test)
    batch = next(DATA.test.ordered(DATA.test.size))
    image = augment.eval_view({"image": jnp.asarray(batch["image"])})["image"]
    logits, maps = jax.jit(built.localize)(variables, image, jnp.asarray(batch["label"]))
    correct = np.argmax(logits, -1) == batch["label"]
    assert scores.accuracy.compute() == 100 * np.asarray(correct).mean()
    for name, low in maps.items():
        full = np.clip(ops.resize_maps(low, (small.SIZE, small.SIZE)), 0, 1)
        truth = batch["mask"] == 1
        counts = np.stack([np.histogram(full[truth == t], pixel_counts.edges())[0] for t in (0, 1)])
        expected = pixel_counts.average_precision(counts)
        assert scores.maps[name].compute() == pytest.approx(expected, abs=1e-3)


def test_images_of_several_shapes_are_evaluated_each_at_its_own(trained):
    """Maps in the order of the split, and counts at the size of the truth, image by image."""
    built, variables = trained
    arrays, rng = small.squares(5, 0), np.random.default_rng(0)
    heights, widths = np.array([[32, 40], [40, 32], [32, 40], [40, 32], [32, 32]]).T
    own = [
        (image[:height, :width], rng.integers(0, 2, (height + 3, width + 9), np.uint8))
        for image, height, width in zip(arrays["image"], heights, widths, strict=True)
    ]
    split = memory.serve(tuple("abcde"), arrays["label"], own, window=5)
    evaluator = evaluate.Evaluator(built, 2)
    maps, scores = evaluator.maps(variables, split), evaluator.scores(variables, split)
    localize, counts = jax.jit(built.localize), 0
    for i, (image, truth) in enumerate(own):
        view = augment.eval_view({"image": jnp.asarray(image[None])})["image"]
        _, low = localize(variables, view, jnp.asarray(arrays["label"][i : i + 1]))
        np.testing.assert_allclose(maps["cam"][i], low["cam"][0], atol=2e-3)
        full = evaluate.to_size(low["cam"], truth.shape)[0]
        counts += np.stack(
            [np.histogram(full[truth == t], pixel_counts.edges())[0] for t in (0, 1)]
        )
    expected = pixel_counts.average_precision(counts)
    assert scores.maps["cam"].compute() == pytest.approx(expected, abs=1e-3)
    assert scores.maps["cam"].pixels == sum(truth.size for _, truth in own)


def test_dice_is_that_of_maps_stretched_from_corner_to_corner(trained):
    """Max-min's protocol, image by image in NumPy: truth at its own size, corners on corners."""
    built, variables = trained
    arrays, rng, shape = small.squares(4, 0), np.random.default_rng(0), (45, 61)
    masks = rng.integers(0, 2, (4, *shape), np.uint8)
    own = list(zip(arrays["image"], masks, strict=True))
    split = memory.serve(tuple("abcd"), arrays["label"], own, window=4)
    scores = evaluate.Evaluator(built, 4, "dice").scores(variables, split).maps["cam"]
    image = augment.eval_view({"image": jnp.asarray(arrays["image"])})["image"]
    _, maps = jax.jit(built.localize)(variables, image, jnp.asarray(arrays["label"]))
    found = {"foreground": [], "background": []}
    for low, truth in zip(np.asarray(maps["cam"]), masks, strict=True):
        full = low
        for size in shape[::-1]:  # columns, then rows
            at = np.linspace(0, full.shape[1] - 1, size)
            full = np.array([np.interp(at, np.arange(full.shape[1]), row) for row in full]).T
        for side, name in enumerate(("background", "foreground")):
            predicted, true = (full >= 0.5) == side, truth == side
            f1 = 2 * np.sum(predicted & true) / (np.sum(predicted) + np.sum(true))
            found[name].append(100 * f1)
    summary = scores.summary(None)
    for name, values in found.items():
        assert summary[f"f1_{name}"] == pytest.approx(np.mean(values), abs=1e-3)


def test_a_summary_has_both_thresholds(trained):
    built, variables = trained
    scores = evaluate.Evaluator(built, 4).scores(variables, DATA.test)
    summary = evaluate.summarize(scores, "layer_cam", 0.25)
    assert summary["at_validation_threshold"]["threshold"] == 0.25
    best, chosen = summary["at_best_test_threshold"], summary["at_validation_threshold"]
    assert best["miou"] >= chosen["miou"]
    for rates in (best, chosen):
        assert rates["tp"] + rates["fn"] == pytest.approx(100)
    recall = summary["curve"]["recall"]
    assert recall == sorted(recall)
    assert recall[-1] == 1


def test_maps_at_size_stay_within_zero_and_one():
    low = jnp.ones((1, 3, 3)).at[0, 1, 1].set(0)
    full = evaluate.to_size(low, (224, 224))
    assert float(full.max()) == 1
    assert float(full.min()) >= 0


def test_all_read_outs_of_a_checkpoint_cost_one_encoder_pass():
    def operations(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]

    batch, several = next(DATA.test.ordered(4)), ("cam", "grad_cam", "grad_cam_pp", "layer_cam")
    costs = []
    for readouts in (("cam",), (*several, "mean_features")):
        built = small.tiny_method("classifier", readouts=readouts)
        variables = small.initialize(built)
        costs.append(operations(evaluate._evaluation(built, "pxap"), variables, batch))
    view = augment.eval_view({"image": jnp.asarray(batch["image"])})["image"]
    encoder = operations(built.features, variables, view)
    assert costs[0] < 1.5 * encoder
    assert costs[1] - costs[0] < 0.5 * encoder  # the maps' own, and their resizing


def test_pseudo_labels_are_true_class_maps_in_the_order_of_the_split(trained, tmp_path):
    built, variables = trained
    maps = pseudo_labels.cams(evaluate.Evaluator(built, 3), variables, DATA.seen, "grad_cam")
    assert maps.shape == (DATA.seen.size, small.SIZE // 8, small.SIZE // 8)
    assert maps.dtype == np.float16
    batch = next(DATA.seen.ordered(DATA.seen.size))
    image = augment.eval_view({"image": jnp.asarray(batch["image"])})["image"]
    _, expected = jax.jit(built.localize)(variables, image, jnp.asarray(batch["label"]))
    np.testing.assert_allclose(maps, expected["grad_cam"], atol=2e-3)
    origin = {"map": "grad_cam", "step": 3}
    assert pseudo_labels.load(tmp_path / "cams.npy", origin) is None
    pseudo_labels.save(tmp_path / "cams.npy", maps, origin)
    np.testing.assert_array_equal(pseudo_labels.load(tmp_path / "cams.npy", origin), maps)
    assert isinstance(pseudo_labels.load(tmp_path / "cams.npy", origin), np.memmap)
    assert pseudo_labels.load(tmp_path / "cams.npy", {**origin, "step": 4}) is None


def test_maps_that_were_not_wholly_written_are_not_taken(tmp_path, monkeypatch):
    maps, origin = np.ones((2, 3, 3), np.float16), {"map": "cam", "step": 3}
    pseudo_labels.save(tmp_path / "cams.npy", maps, origin)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        pseudo_labels.save(tmp_path / "cams.npy", 0 * maps, {**origin, "step": 4})
    for step in (3, 4):
        assert pseudo_labels.load(tmp_path / "cams.npy", {**origin, "step": step}) is None
