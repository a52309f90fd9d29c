"""Runs at hand; what a plan makes of them is in test_tables.py."""

import json

import pytest
import small

from configs import tables
from wsol_jax import experiment, identity
from wsol_jax.papers import plan

READOUTS = ("cam", "grad_cam")


def classifiers():
    """A table of two rows that are one classifier, each with a read-out of its own."""
    cells = []
    for name in READOUTS:
        run = experiment.first_phase(small.tiny_phases())
        run.method.readouts = (name,)
        cells.append(tables.cell(name, run))
    return tables.whole("own", "", cells)


def begun(folder, config, **record):
    """A run folder of a classifier that has not been evaluated."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    (folder / "record.json").write_text(json.dumps(record))


@pytest.fixture
def _listed(monkeypatch):
    monkeypatch.setattr(experiment, "list_data", lambda config: small.small_data()._asdict())


@pytest.mark.usefixtures("_listed")
def test_rows_of_one_classifier_train_it_once_with_both_readouts(tmp_path):
    (job,) = plan.jobs(plan.needs(classifiers()), {}, tmp_path)
    assert job.config.method.readouts == READOUTS


@pytest.mark.usefixtures("_listed")
def test_a_begun_run_goes_on_with_the_data_where_they_are_now(tmp_path):
    table = classifiers()
    table.cells[0].run.data.folder = "moved"
    need = plan.needs(table)[0]
    old = need.config.copy_and_resolve_references()
    old.data.folder = "before"
    digest = identity.fingerprint(small.small_data()._asdict())
    begun(tmp_path / "begun", old, data=digest)
    (job,) = plan.jobs([need], plan.shelf(tmp_path), tmp_path)
    assert (job.folder, job.config.data.folder) == (tmp_path / "begun", "moved")


@pytest.mark.usefixtures("_listed")
def test_a_begun_run_without_the_readout_is_not_waited_for(tmp_path):
    needs = plan.needs(classifiers())
    digest = identity.fingerprint(small.small_data()._asdict())
    begun(tmp_path / "begun", needs[0].config, data=digest)
    for wanted in (needs, needs[::-1]):
        jobs = {job.folder.name: job for job in plan.jobs(wanted, plan.shelf(tmp_path), tmp_path)}
        assert tuple(jobs.pop("begun").config.method.readouts) == READOUTS[:1]
        (other,) = jobs.values()
        assert other.run is None
        assert other.config.method.readouts == READOUTS[1:]


@pytest.mark.usefixtures("_listed")
def test_a_run_of_another_version_is_passed_over_and_named(tmp_path, caplog):
    begun(tmp_path / "old", plan.needs(classifiers())[0].config, methods={"classifier": 7})
    assert plan.shelf(tmp_path) == {}
    assert "old is passed over" in caplog.text
    assert "version 7 of the method 'classifier'" in caplog.text


def test_a_second_phase_is_of_the_baseline_that_it_was_trained_on(tmp_path):
    """Not of the one that lies in that folder now."""
    first, second = small.small_config("classifier"), small.two_phases()
    second.baseline.workdir = str(tmp_path / "first")
    begun(tmp_path / "first", first, data="images")
    begun(tmp_path / "second", second, data="images", origins=identity.origins(second))

    def addresses():
        shelf = plan.shelf(tmp_path)
        return {a for a, row in shelf.items() if any(f.run.folder.name == "second" for f in row)}

    known = addresses()
    assert len(known) == 1
    first.epochs = 99
    (tmp_path / "first" / "config.json").write_text(first.to_json())
    assert addresses() == known


def test_what_cannot_be_read_is_passed_over_and_named(tmp_path, caplog):
    alone = small.tiny_phases()
    alone.baseline.workdir = "gone"
    for name, text in [("damaged", "{"), ("foreign", '{"method": 3}'), ("alone", alone.to_json())]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    assert plan.shelf(tmp_path) == {}
    assert "alone is passed over: gone, which it stands on, is not among these runs" in caplog.text
    assert "damaged" in caplog.text
    assert "foreign is passed over" in caplog.text
