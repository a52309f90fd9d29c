"""What a config says reaches what it is about; every number is of the images that it is said of.

Here a step moves every parameter by 1 and an evaluation has its scores from a list, so that a run
shows what it was given, and when.
"""

import json
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from ml_collections import ConfigDict
from PIL import Image

from wsol_jax import (
    augment,
    evaluate,
    experiment,
    metrics,
    optimizer,
    parallel,
    predict,
    pseudo_labels,
    results,
    selection,
    train,
    transfer,
)
from wsol_jax.backbones import weights
from wsol_jax.data import sources

ACCURACY, LOCALIZATION = (50.0, 100.0, 60.0), (90.0, 10.0, 20.0)  # of epochs 0, 1 and 2
B_CL, LAST = 2, 4  # the steps that these choose; that of B-LOC is 0


class Score(NamedTuple):
    """A metric of which nothing but its number is asked."""

    value: float

    def compute(self):
        return self.value


class Told(NamedTuple):
    """What a run gave to whom.

    Attributes:
      data: its splits.
      scored: variables and split of every evaluation.
      steps: arguments of `train.make_step`; `descents`: of `optimizer.sgd`, a phase each.
      cams: variables, split and name of the maps that were made of the training images.
    """

    data: experiment.Data
    scored: list
    steps: list
    descents: list
    cams: list


def fake_step(told):
    def make_step(*arguments, **keywords):
        told.steps.append((arguments, keywords))

        def step(state, batch, key):
            moved = state.replace(
                step=state.step + 1, params=jax.tree.map(lambda leaf: leaf + 1, state.params)
            )
            places = jnp.arange(1, len(batch["index"]) + 1)
            order, drawn = jnp.sum(batch["index"] * places), jax.random.uniform(key)
            return moved, {"total": jnp.float32(1), "order": order, "drawn": drawn}

        return step

    return make_step


@pytest.fixture
def told(monkeypatch):
    """Puts a fake step and fake scores in the place of the real ones."""
    told = Told(small.small_data(), [], [], [], [])

    def scores(evaluator, variables, split):
        told.scored.append((jax.device_get(variables), split))
        epoch = (len(told.scored) - 1) // 2 % 3  # two splits an epoch, and phases of two epochs
        maps = dict.fromkeys(("cam", "layer_cam", "pixelcam"), Score(LOCALIZATION[epoch]))
        return evaluate.Scores(Score(ACCURACY[epoch]), maps, None)

    def cams(evaluator, variables, split, name):
        told.cams.append((variables, split, name))
        return np.zeros((split.size, 4, 4), np.float16)

    def sgd(**options):
        told.descents.append(options)
        return make_sgd(**options)

    make_sgd = optimizer.sgd
    monkeypatch.setattr(experiment, "open_data", lambda config: told.data)
    monkeypatch.setattr(train, "make_step", fake_step(told))
    monkeypatch.setattr(optimizer, "sgd", sgd)
    monkeypatch.setattr(evaluate.Evaluator, "scores", scores)
    monkeypatch.setattr(selection.Validation, "_overlays", lambda *_: {})
    monkeypatch.setattr(pseudo_labels, "cams", cams)
    monkeypatch.setattr(results, "collect", lambda *_: {})
    return told


def two_phases():
    config = small.tiny_phases()
    config.metric = "pxap"
    return config


def moved_by(variables, start):
    """By how much all parameters of some modules differ from those that training began with."""
    found = jax.tree.map(lambda a, b: np.round(a - b, 3), variables, start)
    (difference,) = {float(v) for leaf in jax.tree.leaves(found) for v in np.ravel(leaf)}
    return difference


def test_every_checkpoint_is_the_one_that_is_asked_for(told, tmp_path):
    config = two_phases()
    built = experiment.build(config, config.baseline.method)
    start = experiment.initialize(config, built)["params"]
    train.run(config, tmp_path / "run")
    best = selection.Best(tmp_path / "run" / "baseline")
    steps = [best.step(criterion, "cam") for criterion in ("b_loc", "b_cl", "last")]
    assert steps == [0, B_CL, LAST]
    ((variables, split, name),) = told.cams
    assert split is told.data.seen
    assert name == "cam"
    assert moved_by(variables["params"], start) == 0  # B-LOC
    second = selection.Best(tmp_path / "run" / "pixelcam")
    like = experiment.zeros(config, experiment.build(config, config.method))
    for criterion, step in (("b_loc", 0), ("b_cl", B_CL), ("last", LAST)):
        params = second.variables(second.step(criterion, "pixelcam"), like)["params"]
        shared = {name: params[name] for name in start}
        assert moved_by(shared, start) == B_CL + step  # it begins at the baseline's B-CL


@pytest.mark.parametrize("engine", ["jit", "pmap"])
def test_checkpoints_are_chosen_on_validation_images(told, tmp_path, engine):
    config = experiment.first_phase(two_phases())
    config.parallel = engine
    start = experiment.initialize(config, experiment.build(config, config.method))["params"]
    train.run(config, tmp_path / "run")
    assert len(told.scored) == 6
    for number, (variables, split) in enumerate(told.scored):
        assert split is (told.data.valcl, told.data.valpx)[number % 2]
        assert moved_by(variables["params"], start) == 2 * (number // 2)


def test_each_phase_has_its_own_schedule(told, tmp_path):
    config = two_phases()
    config.augment.turn = True
    config.baseline.optimizer.learning_rate, config.baseline.batch_size = 0.003, 2
    config.baseline.epochs = 1
    train.run(config, tmp_path / "run")
    trained = told.descents[-2:]  # after those that are only checked
    schedules = [(known["learning_rate"], known["steps_per_epoch"]) for known in trained]
    assert schedules == [(0.003, 4), (0.01, 2)]
    for (arguments, keywords), per_epoch in zip(told.steps, (4, 2), strict=True):
        assert arguments[2:] == (config.image_size, per_epoch)
        assert keywords["turn"] is True


def test_seeds_draw_and_order_otherwise(told, tmp_path, monkeypatch):
    def history(name, seed):
        config = experiment.first_phase(two_phases())
        config.seed = seed
        train.run(config, tmp_path / name)
        lines = (tmp_path / name / "classifier" / "history.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines[1:]]
        return [(row["loss/order"], row["loss/drawn"]) for row in rows]

    first, again, other = history("a", 0), history("b", 0), history("c", 1)
    assert first == again
    assert first[0][0] != first[1][0]  # in another order in every epoch
    assert {order for order, _ in first}.isdisjoint(order for order, _ in other)
    assert {drawn for _, drawn in first}.isdisjoint(drawn for _, drawn in other)


def test_pretrained_weights_are_those_that_training_begins_with(told, tmp_path):
    config = small.two_phases()
    config.epochs = config.baseline.epochs = 0
    tensors = {**small.encoder_tensors(config), "fc.weight": np.ones((10, 64), np.float32)}
    config.weights.source = str(tmp_path / "weights.npz")
    np.savez(config.weights.source, **tensors)
    train.run(config, tmp_path / "run")
    for phase, method in (("baseline", config.baseline.method), ("pixelcam", config.method)):
        best = selection.Best(tmp_path / "run" / phase)
        found = best.variables(0, experiment.zeros(config, experiment.build(config, method)))
        kernel = found["params"]["encoder"]["conv1"]["kernel"]
        np.testing.assert_array_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0))
        mean = found["batch_stats"]["encoder"]["bn1"]["mean"]
        np.testing.assert_array_equal(mean, tensors["bn1.running_mean"])
    known = json.loads((tmp_path / "run" / "record.json").read_text())["weights"]
    assert known["source"] == "weights.npz"
    assert known["digest"] == weights.digest(weights.load(config.weights.source))


@pytest.fixture(scope="module")
def prepared():
    """The real step up to the update: (step, seed) -> prepared batch, with its dropout keys."""

    def given(method, transform, state, batch, keys, axis):
        return {**batch, "keys": jax.random.key_data(keys)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "update", given)
        patch.setattr(augment, "_draw_jitter", lambda image, key: image)
        built = small.tiny_method("pixelcam", foreground=2, background=2)
        built = built._replace(mean=(0.5, 0.25, 0.125), std=(0.25, 0.5, 1.0))
        step = jax.jit(train.make_step(built, small.transform(built), small.SIZE, per_epoch=2))
        state, batch = small.begin(built), small.batch(0)

        def found(number, seed=0):
            key = jax.random.key(seed)
            return jax.device_get(step(state.replace(step=jnp.int32(number)), batch, key))

        found(0)  # traced while the patches hold
        yield found


def test_all_is_drawn_anew_at_every_step_and_by_the_seed(prepared):
    first, again, later, other = prepared(0), prepared(0), prepared(1), prepared(0, seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for drawn in (later, other):
        for name in ("image", "keys"):
            assert np.any(drawn[name] != first[name])
        seeds = [jax.tree.leaves(batch["seeds"]) for batch in (drawn, first)]
        assert any(np.any(a != b) for a, b in zip(*seeds, strict=True))
    assert len(np.unique(first["keys"], axis=0)) == small.BATCH


def test_methods_are_told_the_epoch(prepared):
    assert [int(prepared(step)["epoch"]) for step in (0, 1, 2, 5)] == [0, 0, 1, 2]


def test_images_are_normalised_as_the_weights_want_it(prepared):
    grey = 255 * (prepared(0)["image"] * (0.25, 0.5, 1.0) + (0.5, 0.25, 0.125))
    np.testing.assert_allclose(grey, np.rint(grey), atol=1e-3)
    assert grey.min() > -0.5
    assert grey.max() < 255.5
    config = two_phases()
    config.weights.mean, config.weights.std = (0.5, 0.25, 0.125), (0.25, 0.5, 1.0)
    built = experiment.build(config, config.method)
    split, variables = small.small_data().test, small.initialize(built)
    (batch,) = split.ordered(split.size)
    images = (batch["image"] / 255 - np.array(config.weights.mean)) / np.array(config.weights.std)
    expected = built.localize(variables, jnp.asarray(images, jnp.float32))[1]["pixelcam"]
    evaluator = evaluate.Evaluator(built, 8)
    maps = np.stack(evaluator.maps(evaluator.place(variables), split)["pixelcam"])
    np.testing.assert_allclose(maps, np.asarray(expected)[np.argsort(batch["index"])], atol=2e-3)


def test_thresholds_are_chosen_on_validation_images():
    truth = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) % 2

    def scored(boundary):  # where the object begins
        heat = np.where(truth == 1, boundary + 0.1, boundary - 0.1).astype(np.float32)
        counted = metrics.PxAP.from_model_output(*map(jnp.asarray, (heat, truth, [True])))
        none = types.SimpleNamespace(summary=dict)
        return evaluate.Scores(Score(50.0), {"m": metrics.PxAP.empty().merge(counted)}, none)

    scores = {"valcl": scored(0.5), "valpx": scored(0.3), "test": scored(0.7)}
    found = results._summary(scores, "m")
    chosen, best = found["valpx"]["threshold"], found["test"]["at_best_test_threshold"]["threshold"]
    assert chosen <= 0.4 < 0.6 < best
    assert found["test"]["at_validation_threshold"]["threshold"] == chosen


def test_other_data_are_those_that_are_tested(monkeypatch):
    asked, config = [], small.small_config()
    monkeypatch.setattr(
        sources, "open_split", lambda **given: asked.append(given) or small.small_data().test
    )
    transfer.open_target(config, ConfigDict({"name": "folder", "folder": "there"}))
    (given,) = asked
    assert (given["name"], given["folder"], given["split"]) == ("folder", "there", "test")
    assert given["sizing"].side == config.image_size
    assert config.data.name == "squares"


def test_images_are_seen_at_the_size_of_evaluation():
    config, picture = small.small_config(), Image.new("RGB", (80, 40))
    assert predict._seen_size(picture, config) == (small.SIZE, small.SIZE)
    config.keep_aspect, config.resize = True, 20
    assert predict._seen_size(picture, config) == (40, 20)


def test_every_engine_has_what_a_run_needs():
    variables = {"a": np.arange(6.0).reshape(2, 3)}
    for name in ("jit", "pmap"):
        engine = parallel.engine(name)
        placed = engine.place(variables)
        for found in (engine.fetch(placed), jax.device_get(engine.share(placed))):
            np.testing.assert_array_equal(found["a"], variables["a"])
