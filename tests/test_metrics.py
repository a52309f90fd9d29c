import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from score_maps import histograms, maps
from sklearn.metrics import average_precision_score

from wsol_jax import metrics, pixel_labels


def pxap(scores, truth, valid=None):
    """The metric of one batch."""
    valid = np.ones(len(scores), bool) if valid is None else valid
    scores = jnp.asarray(scores, jnp.float32)
    return jax.jit(metrics.PxAP.from_model_output)(scores, truth, valid)


def test_counts_leave_out_ignored_pixels_and_invalid_images():
    scores, truth, valid = maps(1)
    counts = pxap(scores, truth, valid).counts
    np.testing.assert_array_equal(counts, histograms(scores, truth, valid))
    assert counts.sum() == (truth[valid] != 255).sum() < truth.size


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf, -1e-6, 1.0001])
def test_scores_that_cannot_be_counted_are_reported(score):
    scores, truth, valid = maps(2)
    scores[0, 0, :3], scores[2, 0, 0], truth[0, 0, :3] = score, np.nan, (0, 1, 255)
    metric = pxap(scores, truth, valid)
    expected = f"2 of {np.sum(truth[valid] != 255)} pixels.*got NaN"
    with pytest.raises(ValueError, match=expected):
        metric.compute()
    with pytest.raises(ValueError, match=expected):
        metrics.PxAP.empty().merge(metric)


def test_a_mask_stored_as_another_number_is_reported():
    scores, truth, valid = maps(3)
    with pytest.raises(ValueError, match="truth 0, 1 or 255"):
        pxap(scores, np.where(truth == 1, 2, truth).astype(np.uint8), valid).compute()


@pytest.mark.parametrize("seed", range(4))
def test_pxap_equals_scikit_learn_on_quantised_maps(seed):
    scores, truth, valid = maps(seed)
    used = (truth != 255) & valid[:, None, None]
    expected = 100 * average_precision_score(truth[used], scores[used])
    assert pxap(scores, truth, valid).compute() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_pxap_of_simple_maps(share):
    truth = (np.arange(400) < 400 * share).astype(np.uint8).reshape(1, 20, 20)
    for constant in (0.0, 0.123, 1.0):
        value = pxap(np.full(truth.shape, constant), truth).compute()
        assert value == pytest.approx(100 * share)
    assert pxap(truth, truth).compute() == 100
    # Saturated but not quite perfect: the step from recall 0 must be part of the area.
    nearly = truth * np.where(np.arange(400).reshape(1, 20, 20) == 0, 0.5, 1.0)
    assert pxap(nearly, truth).compute() == pytest.approx(100)


def test_pxap_needs_foreground():
    with pytest.raises(ValueError, match="0 foreground pixels among 9"):
        pxap(np.zeros((1, 3, 3)), np.zeros((1, 3, 3), np.uint8)).compute()


def test_pxap_does_not_depend_on_order_batches_or_padding():
    scores, truth, valid = maps(5, (6, 8, 8))
    whole = metrics.PxAP.empty().merge(pxap(scores, truth, valid))
    order = np.random.default_rng(0).permutation(6)
    shuffled = pxap(scores[order], truth[order], valid[order])
    parts = metrics.PxAP.empty()
    for start in (0, 4):
        rows = np.arange(start, start + 4)
        part = pxap(scores[rows % 6], truth[rows % 6], valid[rows % 6] & (rows < 6))
        parts = part.merge(parts)
    for other in (shuffled, parts):
        np.testing.assert_array_equal(other.counts, whole.counts)
        assert other.compute() == whole.compute()


def test_host_adds_in_64_bits():
    largest = np.iinfo(np.int32).max
    counts = jnp.full((2, 1002), largest, jnp.int32).at[:, -1].set(0)
    batch = metrics.PxAP(counts, pixels=np.int64(2 * 1001 * largest))
    total = batch
    for _ in range(4):
        total = total.merge(batch)
    np.testing.assert_array_equal(total.counts[:, :-1], 5 * int(largest))
    assert total.pixels == total.counts.sum() == 2 * 1001 * 5 * int(largest)
    assert total.compute() == pytest.approx(50)


def test_merge_is_refused_on_the_device():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda metric: metric.merge(metric))(pxap(*maps(6)))


EIGHT_DEVICES = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from wsol_jax import metrics

rng = np.random.default_rng(0)
scores = rng.random((16, 9, 7), np.float32)
truth = rng.choice(np.array([0, 1, 255], np.uint8), scores.shape)
valid = np.arange(16) < 13
expected = jax.jit(metrics.PxAP.from_model_output)(*jax.device_put((scores, truth, valid)))
assert len(jax.devices()) == 8 and expected.pixels > 0

mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
batch = jax.device_put((scores, truth, valid), NamedSharding(mesh, PartitionSpec("data")))
replicated = NamedSharding(mesh, PartitionSpec())
sharded = jax.jit(metrics.PxAP.from_model_output, out_shardings=replicated)(*batch)

parts = [x.reshape(8, 2, *x.shape[1:]) for x in (scores, truth, valid)]
def gathered(*part):
    return jax.lax.all_gather(metrics.PxAP.from_model_output(*part), "data").reduce()
pmapped = jax.tree.map(lambda x: x[0], jax.pmap(gathered, axis_name="data")(*parts))
per_device = jax.pmap(metrics.PxAP.from_model_output)(*parts)
merged = metrics.PxAP.empty()
for i in range(8):
    merged = merged.merge(jax.tree.map(lambda x: x[i], per_device))
for other in (sharded, pmapped, per_device.reduce(), merged):
    np.testing.assert_array_equal(other.counts, expected.counts)
    assert other.pixels == expected.pixels and other.compute() == expected.compute()
"""

WITHOUT_CLU = """
import sys
sys.modules["clu"] = None
import jax, jax.numpy as jnp
from wsol_jax import metrics
assert metrics.PxAP.__mro__[-2] is metrics._Counts
ones = jnp.ones((2, 4, 4))
batch = jax.jit(metrics.PxAP.from_model_output)(ones, ones.astype("uint8"), jnp.ones(2, bool))
assert metrics.PxAP.empty().merge(batch).merge(batch).compute() == 100
"""

WITHOUT_TENSORFLOW = """
import sys
from wsol_jax import metrics
assert "clu.metrics" in sys.modules and "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize(
    "script",
    [EIGHT_DEVICES, WITHOUT_CLU, WITHOUT_TENSORFLOW],
    ids=["eight devices", "without clu", "without tensorflow"],
)
def test_in_another_process(script):
    processes.run(script, devices=8, flags=("-W", "error"))


def test_a_clu_collection_takes_both_metrics():
    clu_metrics = pytest.importorskip("clu.metrics")
    scores, truth, valid = maps(7)
    outputs = {
        "scores": jnp.asarray(scores, jnp.float32),
        "truth": jnp.asarray(truth),
        "valid": jnp.asarray(valid),
        "logits": jnp.array([[2.0, 1], [0, 1], [3, 0], [0, 5]]),
        "label": jnp.array([0, 0, 0, 1]),
    }
    collection = clu_metrics.Collection.create(pxap=metrics.PxAP, accuracy=metrics.Accuracy)
    values = collection.empty().merge(collection.single_from_model_output(**outputs)).compute()
    assert values["pxap"] == pxap(scores, truth, valid).compute()
    assert values["accuracy"] == pytest.approx(200 / 3)


def test_accuracy_counts_valid_rows_only():
    logits, label = jnp.eye(3)[jnp.array([0, 1, 2, 2])], jnp.array([0, 1, 1, 2])
    batch = jax.jit(metrics.Accuracy.from_model_output)(
        logits, label, jnp.array([True, True, True, False])
    )
    total = metrics.Accuracy.empty().merge(batch).merge(batch)
    assert (total.correct, total.total) == (4, 6)
    assert total.compute() == pytest.approx(200 / 3)
    with pytest.raises(ValueError, match="0 valid images"):
        metrics.Accuracy.empty().compute()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_accuracy_is_none_where_a_logit_is_not_finite(value):
    logits = jnp.array([[value, value], [0.0, 1.0], [value, 0.0]])
    batch = metrics.Accuracy.from_model_output(
        logits, jnp.array([0, 1, 0]), jnp.array([True, True, False])
    )
    with pytest.raises(FloatingPointError, match="logits of 1 of 2 images are not finite"):
        batch.compute()


def dice(scores, truth, valid=None):
    """The metric of one batch."""
    valid = np.ones(len(truth), bool) if valid is None else valid
    scores = jnp.asarray(scores, jnp.float32)
    label = np.arange(len(truth)) % 2
    return jax.jit(metrics.Dice.from_model_output)(scores, truth, valid, label)


def test_dice_is_that_of_each_image_averaged():
    """Against sets of pixels; an image without foreground has no part in F1+."""
    scores, truth, _ = maps(1, (6, 12, 11))
    truth[2] = 0
    truth[4] = 1
    truth[truth > 1] = 0
    summary = dice(scores, truth).summary()
    for value, name in enumerate(("f1_background", "f1_foreground")):
        each = []
        for score, true in zip(scores, truth, strict=True):
            found = set(np.flatnonzero((score >= 0.5) == value))
            wanted = set(np.flatnonzero(true == value))
            if wanted:
                each.append(100 * 2 * len(found & wanted) / (len(found) + len(wanted)))
        assert len(each) == 5
        assert summary[name] == pytest.approx(np.mean(each), rel=1e-12)
    cells = [np.mean((scores >= 0.5)[truth == t] == p) for t, p in [(1, 1), (1, 0), (0, 0), (0, 1)]]
    names = ("tp", "fn", "tn", "fp")
    np.testing.assert_allclose([summary["confusion"][n] for n in names], np.multiply(100, cells))
    shares = summary["regions"]["true"], summary["regions"]["predicted"]
    np.testing.assert_allclose(shares[0], 100 * truth.mean((1, 2)), atol=1e-3)
    found = 100 * (scores >= 0.5).mean((1, 2))
    np.testing.assert_allclose(shares[1], found, atol=1e-3)
    for label, share in summary["foreground_share"].items():
        assert share == pytest.approx(found[int(label) :: 2].mean())


def test_dice_of_all_foreground_and_of_the_truth():
    _, truth, _ = maps(1, (6, 12, 11))
    truth = (truth == 1).astype(np.uint8)
    share = truth.mean(axis=(1, 2))
    everything = dice(np.ones(truth.shape), truth).summary()
    assert everything["f1_foreground"] == pytest.approx(100 * np.mean(2 * share / (1 + share)))
    assert everything["f1_background"] == 0
    assert dice(truth.astype(float), truth).compute() == 100


def test_dice_does_not_see_batches_padding_or_unannotated_pixels():
    scores, truth, _ = maps(1, (6, 12, 11))
    truth[truth > 1] = pixel_labels.UNANNOTATED
    whole = dice(scores, truth).summary()
    parts = metrics.Dice.empty()
    for rows in (np.array([0, 1, 2, 3, 3]), np.array([4, 5, 5, 5, 5])):
        parts = parts.merge(dice(scores[rows], truth[rows], rows[:1] + np.arange(5) == rows))
    assert parts.summary() == whole
    devices = jax.tree.map(lambda x: np.stack(np.split(np.asarray(x), 2)), dice(scores, truth))
    assert devices.reduce().summary() == whole
    other = np.where(truth == pixel_labels.UNANNOTATED, 1 - scores, scores)
    assert dice(other, truth).summary() == whole


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.1])
def test_dice_refuses_scores_that_are_none(value):
    scores, truth, _ = maps(1)
    scores[0, 0, 0], truth[0, 0, 0] = value, 1
    with pytest.raises(
        FloatingPointError, match=r"1 of \d+ pixels cannot be counted: expected scores in"
    ):
        dice(scores, truth).compute()
