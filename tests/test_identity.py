"""A run is told from every other: what may differ in it, and what makes it another one."""

import errno
import fcntl
import json

import filelock
import numpy as np
import pytest
import small

from configs import common
from wsol_jax import experiment, files, identity
from wsol_jax.backbones import weights
from wsol_jax.papers import addresses


def claim(workdir, config, images="images", weights=None):
    with identity.claim(workdir, config, images, weights):
        pass


def test_runs_of_another_version_are_refused(tmp_path):
    config = small.small_config()
    (tmp_path / "record.json").write_text(json.dumps({"methods": {"pixelcam": 7}}))
    with pytest.raises(FileExistsError, match=r"version 7 of the method 'pixelcam'.*is version 1"):
        claim(tmp_path, config)
    (tmp_path / "record.json").write_text("{}")  # of a run before there were versions
    claim(tmp_path, config)


def test_a_run_is_of_one_command_at_a_time(tmp_path):
    config = small.small_config()
    with identity.claim(tmp_path, config, "images"):
        with pytest.raises(BlockingIOError, match=rf"at work in {tmp_path}.* another folder"):
            claim(tmp_path, config)
        claim(tmp_path / "other", config)
    claim(tmp_path, config)


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), PermissionError("no flock")])
def test_disks_without_locks_are_told(tmp_path, monkeypatch, caplog, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    claim(tmp_path, small.small_config())
    assert f"{tmp_path} is not locked against other commands: no flock" in caplog.text


def test_a_kill_leaves_no_lock_where_a_disk_has_none(tmp_path, monkeypatch, caplog):
    """As a lock that is a file would stay."""

    def absent(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", absent)
    config = small.small_config()
    with identity.claim(tmp_path, config, "images"):
        claim(tmp_path, config)
    assert f"{tmp_path} is not locked against other commands: [Errno 38]" in caplog.text


def test_a_baseline_that_was_not_there_is_no_other_one(tmp_path):
    config = small.two_phases()
    config.baseline.workdir = str(tmp_path / "first")
    origins = identity.origins(config)
    claim(tmp_path / "second", config)
    files.write_json(tmp_path / "second/record.json", {"origins": origins})
    claim(tmp_path / "first", small.small_config("classifier"))
    claim(tmp_path / "second", config)


def test_what_changes_no_number_may_change(tmp_path):
    config = small.two_phases()
    claim(tmp_path, config)
    config.data.folder, config.parallel, config.notes = "elsewhere", "pmap", ("a note",)
    config.evaluation_batch_size += 1
    config.name, config.published = "another", "eem"
    claim(tmp_path, config)
    assert experiment.stored_config(tmp_path).data.folder == "elsewhere"
    config.baseline.method.dropout = 0.7
    with pytest.raises(FileExistsError, match=r"another config \(other: baseline.method.dropout\)"):
        claim(tmp_path, config)


def test_keywords_at_their_usual_values_are_no_difference(tmp_path):
    config = small.small_config("pixelcam")
    claim(tmp_path, config)
    config.method = common.method(**config.method)
    claim(tmp_path, config)
    config.method.negatives = "background"
    with pytest.raises(FileExistsError, match=r"another config \(other: method.negatives\)"):
        claim(tmp_path, config)


def test_settings_that_are_left_as_they_are_are_no_difference(tmp_path):
    """As in configs that did not name them yet, and so in the addresses of their runs."""
    config = small.small_config()
    config.backbone, config.head = {"name": "resnet50", "width": 8}, {"name": "wgap"}
    claim(tmp_path, config)
    older = json.loads(config.to_json())
    config.backbone, config.head = common.backbone("resnet50", width=8), common.head("wgap")
    claim(tmp_path, config)
    newer, versions = json.loads(config.to_json()), identity.versions(config)
    assert newer["backbone"]["stride_in"] is None
    assert addresses.of_phases(older, versions, "") == addresses.of_phases(newer, versions, "")
    config.backbone.stride_in = "conv1"
    with pytest.raises(FileExistsError, match=r"another config \(other: backbone.stride_in\)"):
        claim(tmp_path, config)


def test_a_run_on_other_images_is_refused(tmp_path):
    config = small.small_config()
    claim(tmp_path, config)
    (tmp_path / "record.json").write_text(json.dumps({"data": "images"}))
    claim(tmp_path, config)
    with pytest.raises(FileExistsError, match="other images, labels or splits"):
        claim(tmp_path, config, "others")


def test_other_weights_in_a_file_of_the_same_name_are_refused(tmp_path):
    tensors = {"a": np.zeros(3, np.float32), "b": np.ones((2, 2), np.float32)}
    digest = weights.digest(tensors)
    assert digest == weights.digest({name: tensors[name].copy() for name in "ba"})
    others = [{**tensors, "a": tensors["a"] + 1}, {**tensors, "b": tensors["b"].reshape(4)}]
    others.append({"a": tensors["a"], "c": tensors["b"]})
    config = small.small_config()
    claim(tmp_path, config)
    (tmp_path / "record.json").write_text(json.dumps({"weights": {"source": "a", "folded": True}}))
    claim(tmp_path, config, weights=digest)  # a run before there were digests
    (tmp_path / "record.json").write_text(json.dumps({"weights": {"digest": digest}}))
    claim(tmp_path, config, weights=digest)
    for other in others:
        with pytest.raises(FileExistsError, match="began from other weights, though the file is"):
            claim(tmp_path, config, weights=weights.digest(other))


@pytest.mark.parametrize(
    ("change", "told"),
    [({"seed": 5}, "other: seed"), ({"epochs": 3}, "other: epochs"), ({"parallel": "pmap"}, "")],
)
def test_a_run_on_what_is_another_baseline_now_is_refused(tmp_path, change, told):
    baseline, config = small.small_config("classifier"), small.two_phases()
    config.baseline.workdir = str(tmp_path / "first")
    claim(tmp_path / "first", baseline)
    files.write_json(tmp_path / "first/record.json", {"methods": {"classifier": 1}, "data": "a"})
    claim(tmp_path / "second", config)
    record = {"data": "images", "origins": identity.origins(config)}
    files.write_json(tmp_path / "second/record.json", record)
    claim(tmp_path / "second", config)
    baseline.update(change)
    files.write_json(tmp_path / "first/config.json", json.loads(baseline.to_json()))
    if not told:
        claim(tmp_path / "second", config)
        return
    with pytest.raises(FileExistsError, match=rf"run of baseline.workdir, .*first.* \({told}\)"):
        claim(tmp_path / "second", config)


def test_the_fingerprint_is_of_names_labels_and_splits():
    data = small.small_data()
    known = identity.fingerprint(data._asdict())
    assert known == identity.fingerprint(small.small_data()._asdict())
    test = data.test
    others = [
        data._replace(valpx=None),
        data._replace(valcl=data.test, test=data.valcl),
        data._replace(test=test._replace(labels=1 - test.labels)),
        data._replace(test=test._replace(names=test.names[::-1])),
    ]
    assert len({known, *(identity.fingerprint(data._asdict()) for data in others)}) == 5


def test_configs_of_earlier_runs_are_completed(tmp_path):
    config = small.two_phases()
    claim(tmp_path, config)
    assert json.loads(experiment.stored_config(tmp_path).to_json()) == json.loads(config.to_json())
    known = json.loads((tmp_path / "config.json").read_text())
    for section, key in [("weights", "mean"), ("weights", "std"), ("baseline", "cam_workdir")]:
        del known[section][key]
    for key in ("metric", "published", "keep_aspect", "augment"):
        del known[key]
    (tmp_path / "config.json").write_text(json.dumps(known))
    completed = json.loads(experiment.stored_config(tmp_path).to_json())
    assert completed == json.loads(config.to_json())
    claim(tmp_path, config)  # it is the same run
    with pytest.raises(FileNotFoundError, match="nothing is not a run"):
        experiment.stored_config(tmp_path / "nothing")
