"""The run as a whole: two phases, selection, resuming after any death, and what ends it early."""

import json
import os
import shutil
import signal
import time

import glas_folder
import jax
import numpy as np
import processes
import pytest
import small

from configs import common
from wsol_jax import (
    checkpoint,
    experiment,
    identity,
    logbook,
    optimizer,
    report,
    results,
    selection,
    train,
)
from wsol_jax.data import glas

OPEN_DATA = experiment.open_data
REGIONS = {"seen": "train", "valcl": "valcl", "test": "test"}  # in the results, and in the data
PROGRAM = """
import pathlib, sys
sys.modules.update(dict.fromkeys(["tensorflow", "clu"]))  # TensorBoard, slow to import
import small
from wsol_jax import experiment, train

experiment.open_data = small.small_data
train.SAVE_SECONDS = train.SAVE_PAUSE = 0  # else a kill would cost all of it
train.run(small.two_phases(), pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two phases, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "open_data", small.small_data)
        folder = tmp_path_factory.mktemp("run") / "finished"
        numbers = train.run(small.two_phases(), folder)
    return folder, numbers


@pytest.fixture(autouse=True)
def _small_data(monkeypatch):
    monkeypatch.setattr(experiment, "open_data", small.small_data)


def weights_of(folder, config=None):
    """Every array of the last checkpoint of the last phase."""
    config = config or small.two_phases()
    checkpoints = checkpoint.Checkpoints(folder / config.method.name / "checkpoints")
    like = experiment.zeros(config, experiment.build(config, config.method))
    variables = checkpoints.restore_variables(checkpoints.latest(), like)
    checkpoints.close()
    return variables


def test_a_run_leaves_everything(finished):
    folder, numbers = finished
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(numbers))
    record = json.loads((folder / "record.json").read_text())
    assert {"command", "commit", "versions", "device", "seed", "weights", "seconds"} <= set(record)
    for phase, name in [("baseline", "layer_cam"), ("pixelcam", "pixelcam")]:
        rows = [json.loads(r) for r in (folder / phase / "history.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [0, 1, 2]
        assert [row["step"] for row in rows] == [0, 2, 4]
        for criterion in selection.CRITERIA:
            result = numbers["phases"][phase]["maps"][name][criterion]
            assert 0 <= result["test"]["pxap"] <= 100
            assert result["test"]["at_validation_threshold"]["tp"] <= 100
    assert numbers["floors"]["constant_map"] == pytest.approx(foreground_share(), abs=1e-9)


def foreground_share():
    return 100 * np.mean(next(small.small_data().test.ordered(5))["mask"] == 1)


def test_selection_takes_the_latest_of_the_best(finished):
    folder, numbers = finished
    rows = [json.loads(r) for r in (folder / "pixelcam/history.jsonl").read_text().splitlines()]
    for criterion, column in [("b_cl", "valcl/accuracy"), ("b_loc", "valpx/pxap/pixelcam")]:
        best = max(row[column] for row in rows)
        latest = [row["epoch"] for row in rows if row[column] == best][-1]
        assert numbers["phases"]["pixelcam"]["maps"]["pixelcam"][criterion]["epoch"] == latest


def test_the_second_phase_begins_with_the_baselines_best_classifier(finished, tmp_path):
    folder, _ = finished
    config = small.two_phases()
    config.epochs, config.baseline.workdir = 0, str(folder)
    train.run(config, tmp_path / "run")  # no step of the second phase: its start is its end
    started = weights_of(tmp_path / "run")
    best = selection.Best(folder / "baseline")
    built = experiment.build(config, config.baseline.method)
    like = experiment.initialize(config, built)
    donor = best.variables(best.step("b_cl", "layer_cam"), like)
    for module in ("encoder", "head"):
        jax.tree.map(
            np.testing.assert_array_equal, started["params"][module], donor["params"][module]
        )
    jax.tree.map(
        np.testing.assert_array_equal,
        started["batch_stats"]["encoder"],
        donor["batch_stats"]["encoder"],
    )
    assert not np.array_equal(
        started["params"]["head"]["linear"]["kernel"], like["params"]["head"]["linear"]["kernel"]
    )


def test_running_again_changes_nothing(finished):
    folder, numbers = finished
    before = weights_of(folder)
    again = train.run(small.two_phases(), folder)
    assert again == numbers
    jax.tree.map(np.testing.assert_array_equal, weights_of(folder), before)


def test_a_run_that_was_moved_is_evaluated_and_goes_on_without_new_cams(
    finished, tmp_path, monkeypatch
):
    folder, numbers = finished
    monkeypatch.setattr(train.pseudo_labels, "cams", None)  # not to be called
    shutil.copytree(folder, tmp_path / "moved")
    assert train.run(small.two_phases(), tmp_path / "moved") == numbers
    (tmp_path / "moved" / "cams.npy").unlink()
    assert train.run(small.two_phases(), tmp_path / "moved", train=False) == numbers


def test_another_config_does_not_overwrite_a_run(finished):
    folder, _ = finished
    config = small.two_phases()
    config.seed = 7
    with pytest.raises(FileExistsError, match=r"holds a run of another config \(other: seed\)"):
        train.run(config, folder)


STOPS = [("baseline", signal.SIGTERM), ("baseline", signal.SIGKILL), ("pixelcam", signal.SIGKILL)]


def test_stopped_and_killed_again_and_again_equals_uninterrupted(finished, tmp_path):
    folder, run = finished[0], tmp_path / "run"
    for phase, stop in STOPS:
        before = epochs_of(run / phase)
        process = processes.start(PROGRAM, run)
        wait_for(lambda phase=phase, n=before: epochs_of(run / phase) > n, process)
        process.send_signal(stop)
        assert process.wait() == (0 if stop == signal.SIGTERM else -stop)
        assert not (run / "metrics.json").exists()
    train.run(small.two_phases(), run)
    jax.tree.map(np.testing.assert_array_equal, weights_of(run), weights_of(folder))


def epochs_of(phase):
    path = phase / "history.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def wait_for(condition, process, seconds=200):
    for _ in range(seconds * 20):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise TimeoutError("the run did not get there")


@pytest.mark.parametrize("name", ["sat", "unet", "negev", "maxmin", "pn", "erase"])
def test_every_method_runs_and_resumes(finished, tmp_path, monkeypatch, name):
    """Stopped within an epoch, a run ends with the weights of one that was not."""
    config, phases = small.small_config(name), {name: name}  # and their maps
    if name == "negev":
        common.with_baseline(config).baseline.workdir = str(finished[0])
    elif name == "sat":  # and PixelCAM on it
        phases = {"baseline": "sat", "pixelcam": "pixelcam"}
        common.with_baseline(config, name).method = {"name": "pixelcam"}
    else:
        config.backbone = {"name": "double_conv", "widths": (4, 8)}
    monkeypatch.setattr(train, "SAVE_SECONDS", 0)
    monkeypatch.setattr(train, "SAVE_PAUSE", 0)
    numbers = train.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        for phase, maps in phases.items():
            patch.setattr(logbook.Progress, "show", stop_at(4, phase))
            with pytest.raises(InterruptedError):
                train.run(config, tmp_path / "halves")
            assert not (tmp_path / "halves" / "metrics.json").exists()
            assert selection.Best(tmp_path / "halves" / phase).step("last", maps) == 3
    with monkeypatch.context() as patch:
        patch.setattr(results, "collect", lambda *_: {})  # it says the same of equal weights
        train.run(config, tmp_path / "halves")
    whole, halves = (weights_of(tmp_path / run, config) for run in ("whole", "halves"))
    jax.tree.map(np.testing.assert_array_equal, whole, halves)
    result = numbers["phases"][phase]["maps"][maps]
    assert set(result) == {"last", "b_loc"} | ({"b_cl"} if name != "unet" else set())
    assert (result["last"]["test"]["accuracy"] is None) == (name == "unet")
    if config.metric == "dice":  # the sizes of the regions of all images
        sizes = {split: len(result["last"][split]["regions"]["true"]) for split in REGIONS}
        assert sizes == {split: small.SPLITS[name] for split, name in REGIONS.items()}
    assert report.write(tmp_path / "whole").is_file()


def stop_at(step, phase):
    def show(progress, done, losses):
        del losses
        if (progress.name, done) == (phase, step):
            raise InterruptedError

    return show


def test_images_of_several_shapes_from_the_folder_to_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "open_data", OPEN_DATA)
    folder = glas_folder.write(tmp_path / "glas", sizes=((50, 40), (44, 52)))
    config = small.small_config("classifier")
    config.data = {"name": "glas", "folder": str(folder)}
    config.keep_aspect, config.augment.turn = True, True
    config.epochs, config.batch_size = 1, 32
    config.method.readouts = ("cam",)
    numbers = train.run(config, tmp_path / "run")
    assert 0 <= numbers["phases"]["classifier"]["maps"]["cam"]["last"]["test"]["pxap"] <= 100
    truth = [example.read()[1] > 0 for example in glas.examples("test", folder=folder)]
    share = 100 * sum(mask.sum() for mask in truth) / sum(mask.size for mask in truth)
    assert numbers["floors"]["constant_map"] == pytest.approx(share, abs=1e-9)
    with np.load(tmp_path / "run" / "gallery.npz") as gallery:
        assert gallery["image"].shape == (results.GALLERY, small.SIZE, small.SIZE, 3)
        for name in ("mask", "map_classifier_cam"):
            assert gallery[name].shape == gallery["image"].shape[:3]
    assert report.write(tmp_path / "run").is_file()


def test_negev_leaves_the_classifier_as_it_was(finished, tmp_path):
    folder, _ = finished
    config = small.two_phases("negev")
    config.baseline.workdir = str(folder)
    train.run(config, tmp_path / "run")
    trained = weights_of(tmp_path / "run", config)
    best, built = selection.Best(folder / "baseline"), experiment.build(config, config.method)
    like = experiment.zeros(config, experiment.build(config, config.baseline.method))
    donor = best.variables(best.step("b_cl", "layer_cam"), like)
    for module in built.frozen:
        for collection in ("params", "batch_stats"):
            if module in donor[collection]:
                one, other = trained[collection][module], donor[collection][module]
                jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("width", 12, r"backbone.width is 8 there, 12 here. Pass a run that does as"),
        ("name", "resnet50", r"backbone.name is resnet18 there, resnet50 here"),
    ],
)
def test_a_baseline_of_another_model_is_refused(finished, tmp_path, setting, value, told):
    folder, _ = finished
    config = small.two_phases()
    config.baseline.workdir, config.backbone[setting] = str(folder), value
    with pytest.raises(ValueError, match=f"does not fit this config: {told}"):
        train.run(config, tmp_path / "run")


def test_a_baseline_in_a_folder_without_a_config_is_refused(tmp_path):
    config = small.two_phases()
    (tmp_path / "other" / "baseline").mkdir(parents=True)
    config.baseline.workdir = str(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"other is not a run: there is no config.json"):
        train.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("weights.mean", r"weights.mean is \[0.485, 0.456, 0.406\] there, \[0.5, 0.5, 0.5\] here"),
        ("image_size", "image_size is 32 there, 40 here"),
    ],
)
def test_a_baseline_that_sees_images_otherwise_is_refused(finished, tmp_path, setting, told):
    config = small.two_phases()
    config.baseline.workdir = str(finished[0])
    if setting == "image_size":
        config.image_size = 40
    else:
        config.weights.mean = (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match=told):
        train.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("cam", "cam_pp", r"unknown baseline.cam 'cam_pp'; have \['layer_cam', 'grad_cam_pp'\]"),
        (
            "cam_checkpoint",
            "bloc",
            r"unknown baseline.cam_checkpoint 'bloc'; have \['last', 'b_cl'",
        ),
        ("weights_checkpoint", "best", "unknown baseline.weights_checkpoint 'best'; have"),
    ],
)
def test_what_the_second_phase_asks_of_the_first_is_checked_first(tmp_path, key, value, told):
    config = small.two_phases()
    config.baseline[key] = value
    with pytest.raises(ValueError, match=told):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_learns_fast_is_checked_for_both_phases_first(tmp_path):
    config = small.two_phases()
    config.optimizer.fast = ("encoder/layer9",)
    with pytest.raises(ValueError, match=r"fast names 'encoder/layer9', but 'encoder' has only"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("metric", "dise", r"unknown metric 'dise'; have \['dice', 'pxap'\]"),
        ("seed", -1, "seed is -1; expected a number at least 0"),
        ("epochs", -1, "epochs of pixelcam is -1; expected a number at least 0"),
        ("batch_size", 0, "batch_size of pixelcam is 0; expected a number at least 1"),
        ("evaluation_batch_size", 0, "evaluation_batch_size is 0; expected a number at least 1"),
        ("baseline.epochs", -1, "epochs of baseline is -1"),
        ("baseline.workdir", "no/run", "no baseline at no/run; expected no/run/baseline or no/run"),
    ],
)
def test_settings_are_refused_before_there_is_a_run(tmp_path, key, value, told):
    config = small.two_phases()
    config.update_from_flattened_dict({key: value})
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_baseline_without_the_map_that_is_learnt_from_is_refused(finished, tmp_path):
    folder = tmp_path / "baseline"
    shutil.copytree(finished[0], folder)
    known = json.loads((folder / "config.json").read_text())
    known["baseline"]["method"]["readouts"] = ["layer_cam"]
    (folder / "config.json").write_text(json.dumps(known))
    config = small.two_phases()
    config.baseline.workdir, config.baseline.cam = str(folder), "grad_cam"
    config.baseline.method.readouts = ("layer_cam", "grad_cam")
    with pytest.raises(ValueError, match=r"chose no checkpoint 'b_loc' of the map 'grad_cam'"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_baseline_that_is_not_at_its_end_is_refused(tmp_path):
    config = small.small_config("classifier")
    with pytest.raises(SystemExit):
        train.run(config, tmp_path / "begun", deadline=time.monotonic())
    assert json.loads((tmp_path / "begun/record.json").read_text())["seconds"] > 0
    second = small.two_phases()
    second.baseline.workdir = str(tmp_path / "begun")
    message = r"is trained for 0 of its 2 epochs; .* python -m wsol_jax.main --workdir=.*begun$"
    with pytest.raises(ValueError, match=message):
        train.run(second, tmp_path / "run")


def test_a_baseline_on_other_images_is_refused(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "fingerprint", lambda _: "others")
    config = small.two_phases()
    config.baseline.workdir = str(finished[0])
    with pytest.raises(FileExistsError, match="holds a run on other images, labels or splits"):
        train.run(config, tmp_path / "run")


def test_sigterm_during_the_last_validation_ends_the_run(tmp_path, monkeypatch):
    judge = selection.Validation.judge

    def terminated(self, variables, memory, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return judge(self, variables, memory, step)

    config = small.small_config("classifier")
    with monkeypatch.context() as patch:
        patch.setattr(selection.Validation, "judge", terminated)
        with pytest.raises(SystemExit):
            train.run(config, tmp_path / "run")
    assert not (tmp_path / "run/metrics.json").exists()
    assert selection.Best(tmp_path / "run/classifier").step("last", "layer_cam") == 4
    assert train.run(config, tmp_path / "run")["phases"]


def test_of_many_classes_one_image_each_is_shown():
    arrays = small.squares(22, seed=0)
    arrays["label"] = (np.arange(22) % 11).astype(np.int32)
    shown = results._shown(small.split_of(arrays, small.SIZE))
    assert shown.labels.tolist() == list(range(11))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = small.small_config("classifier")
    config.optimizer.learning_rate = 1e30
    with pytest.raises(FloatingPointError, match=r"at step \d+ .*last good checkpoint is step 0"):
        train.run(config, tmp_path / "run")
    assert selection.Best(tmp_path / "run" / "classifier").step("last", "") == 0


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_state_that_has_diverged_is_not_judged(tmp_path, epochs):
    """An epoch of one step: no loss is computed of the last state, and none would tell."""
    config = small.small_config("classifier")
    config.optimizer.learning_rate, config.epochs = 1e38, epochs
    config.batch_size = small.small_data().train.size
    told = r"logits of \d+ of \d+ images are not finite after step 1; the last good .* is step 0"
    with pytest.raises(FloatingPointError, match=told):
        train.run(config, tmp_path / "run")
    best = selection.Best(tmp_path / "run" / "classifier")
    assert {best.step(criterion, "layer_cam") for criterion in selection.CRITERIA} == {0}


def test_a_run_that_is_not_at_its_end_is_not_evaluated(tmp_path):
    config = small.small_config("classifier")
    with pytest.raises(SystemExit):
        train.run(config, tmp_path / "run", deadline=time.monotonic())
    with pytest.raises(ValueError, match="is trained for 0 of its 2 epochs; bring it to its end"):
        train.run(config, tmp_path / "run", train=False)
    assert not (tmp_path / "run/metrics.json").exists()  # by which a table knows finished runs


def test_a_teacher_of_fewer_classes_is_refused(finished, tmp_path):
    config = small.two_phases()
    config.baseline.cam_workdir, config.num_classes = str(finished[0]), 3
    with pytest.raises(ValueError, match=r"knows 2 classes .* expected the 3 of this config"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_was_replaced_before_a_kill_is_forgotten(tmp_path, monkeypatch):
    """The newest checkpoint remembers a best one that was held, replaced and never written."""
    config = small.small_config("classifier")
    with monkeypatch.context() as patch:
        patch.setattr(logbook.Progress, "show", stop_at(3, "classifier"))
        with pytest.raises(InterruptedError):
            train.run(config, tmp_path / "run")
    stored = checkpoint.Checkpoints(tmp_path / "run/classifier/checkpoints")
    step, like = stored.latest(), stored.restore(stored.latest(), state_like(config))
    memory = stored.memory(step)
    memory["best"]["b_cl"] = {"epoch": 1, "step": 99, "value": 200.0}  # none would be better
    stored._manager.delete(step)
    stored.save(step, like, memory, {0})
    stored.close()
    numbers = train.run(config, tmp_path / "run")
    assert numbers["phases"]["classifier"]["maps"]["layer_cam"]["b_cl"]["step"] != 99


def state_like(config):
    """The structure of what a checkpoint of the last phase holds."""
    built = experiment.build(config, config.method)
    variables = experiment.zeros(config, built)
    transform = optimizer.sgd(
        steps_per_epoch=2, frozen=built.frozen, **experiment.keywords(config.optimizer)
    )
    params = variables["params"]
    return train.State(np.int32(0), params, variables["batch_stats"], transform.init(params))


def test_the_baseline_of_another_run_can_be_used(finished, tmp_path):
    folder, numbers = finished
    config = small.two_phases()
    config.baseline.workdir = str(folder)
    config.data.folder = "elsewhere"  # the same data set may lie in another place
    again = train.run(config, tmp_path / "run")
    assert again["phases"]["baseline"] == numbers["phases"]["baseline"]
    assert not (tmp_path / "run" / "baseline").exists()
    jax.tree.map(np.testing.assert_array_equal, weights_of(tmp_path / "run"), weights_of(folder))


def test_a_batch_the_devices_cannot_share(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    from wsol_jax import parallel

    with pytest.raises(ValueError, match="batch size 12 does not divide among 8 devices"):
        parallel.check_batch(12)
