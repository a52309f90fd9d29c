"""What a table needs: the phases that its numbers come from, and the runs that train the rest.

A phase is looked for by its address among the runs at hand, so that finished ones are used and
unfinished ones go on, whoever began them.
"""

import logging
import os
import pathlib
import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from wsol_jax import experiment, identity, method, run_files, transfer
from wsol_jax.papers import addresses
from wsol_jax.run_files import Run, at


class Need(NamedTuple):
    """What one cell of a table needs at one seed: a map of the last phase of a run.

    Attributes:
      row, data: of the table; `data` is what the columns begin with.
      name: of the map.
      config: of a run that would train it.
      usual: the same without the table's settings.
      addresses: of the phases of that run; none where its data, or those it is tested on, are not
        at hand, and `blocked` says why.
      target: other data (section `data` of a config) whose test images are scored, if any.
      teacher: what trains the phase whose CAMs the run learns from, if not its own first phase.
    """

    row: str
    data: str
    name: str
    seed: int
    config: Any
    usual: Any
    addresses: tuple[str, ...]
    blocked: str = ""
    target: Any = None
    teacher: "Need | None" = None


class Found(NamedTuple):
    """A phase at hand, and the run that trained it; `phase` is its name there."""

    run: Run
    phase: str

    @property
    def maps(self) -> Mapping[str, Any]:
        """Results by map and checkpoint, empty while the run is not finished."""
        return at(self.run.metrics, "phases", self.phase, "maps") or {}

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the time of an epoch depends on: phases of one kind train equally fast."""
        return _kind(self.run.config, self.run.phases[self.phase])


class Job(NamedTuple):
    """A run to be trained, or to go on; `run` is what there is of it."""

    config: Any
    folder: pathlib.Path
    run: Run | None = None


Shelf = Mapping[str, list[Found]]  # phases at hand by address, those of finished runs first


def needs(config: Any) -> list[Need]:
    """Every cell of a table at every seed, the runs with the settings of the table."""
    known: dict[tuple, tuple[str, str]] = {}

    def listed(key, list_images):
        if key not in known:
            known[key] = _fingerprint(list_images)
        return known[key]

    def need(cell, seed):
        run, target = _with_settings(cell.run, config, seed), _target(cell, config)
        key = run.data.to_json(), run.baseline.cam_checkpoint if run.baseline else ""
        digest, blocked = listed(key, lambda: experiment.list_data(run))
        if target and not blocked:
            _, blocked = listed((target.to_json(),), lambda: transfer.list_target(target))
        teacher = need(cell.teacher, seed) if cell.teacher else None
        blocked = blocked or (teacher.blocked if teacher else "")
        own = () if blocked else _addresses(run, digest, teacher)
        place = (cell.row, cell.data, cell.map, seed)
        return Need(*place, run, cell.run, own, blocked, target, teacher)

    return [need(cell, seed) for cell in config.cells for seed in config.seeds]


def shelf(folder: pathlib.Path) -> Shelf:
    """The phases of all runs under a folder; what cannot be read is passed over, and named."""
    runs = {run.folder.resolve(): run for run in _runs(folder)}
    found: dict[str, list[Found]] = {}
    for run in sorted(runs.values(), key=lambda run: (not run.metrics, run.folder)):
        try:
            own = _own_phases(run, runs)
            identity.check_versions(
                run.folder, {name: method.version(name) for name in run.phases.values()}
            )
        except (FileExistsError, KeyError, TypeError, ValueError) as error:
            logging.warning("%s is passed over: %s", run.folder, error)
            continue
        for phase, address in own.items():
            found.setdefault(address, []).append(Found(run, phase))
    return found


def finished(address: str, name: str, at_hand: Shelf) -> Found | None:
    """A phase of this address that has results of the map called `name`."""
    return next((found for found in at_hand.get(address, ()) if name in found.maps), None)


def jobs(wanted: Iterable[Need], at_hand: Shelf, folder: pathlib.Path) -> list[Job]:
    """What is to be trained under `folder`, every run after the one that has its baseline.

    Rows that stand on one baseline share it.
    """
    planned: dict[str | pathlib.Path, Job] = {}  # by folder what is begun, by address what is not
    for need in wanted:
        if need.addresses and not finished(need.addresses[-1], need.name, at_hand):
            _provide_all(need, at_hand, planned, folder)
    return list({job.folder: job for job in planned.values()}.values())


def seconds(job: Job, at_hand: Shelf) -> float | None:
    """What a job should take by the epochs of like phases at hand; None where there are none."""
    total = 0.0
    for title, section in experiment.sections(job.config).items():
        if section is job.config.baseline and section.workdir:
            continue  # another run trains it
        kind = _kind(job.config, section.method.name)
        alike = [found for row in at_hand.values() for found in row if found.kind == kind]
        rates = [rate for rate in map(_epoch_seconds, alike) if rate]
        if not rates:
            return None
        history = job.run.histories[title] if job.run else []
        done = history[-1]["epoch"] if history else 0
        total += statistics.median(rates) * (section.epochs - done)
    return total


def _fingerprint(list_images):
    """That of images, or why there is none."""
    try:
        return identity.fingerprint(list_images()), ""
    except (ImportError, OSError, ValueError) as error:
        return "", str(error)


def _addresses(run, digest, teacher):
    resolved, versions = run.to_dict(), identity.versions(run)
    cams = teacher.addresses[0] if teacher else None
    return tuple(addresses.of_phases(resolved, versions, digest, teacher=cams).values())


def _target(cell, config):
    """The other data that a cell is tested on, where the table has them."""
    if cell.target is None:
        return None
    target = cell.target.copy_and_resolve_references()
    target.folder = config.folders.get(target.name, target.folder)
    if target.name == "camelyon16" and config.get("test_patches") is not None:
        target.update({"source": "memory", "test_patches": config.test_patches})
    return target


def _with_settings(run, config, seed):
    """A row's run at a seed, with the folders and encoders of the table."""
    run = run.copy_and_resolve_references()
    run.seed = seed
    if run.data.name in config.folders:
        run.data.folder = config.folders[run.data.name]
    for section, values in config.encoders[experiment.encoder_name(run.backbone)].items():
        given = {key: value for key, value in values.items() if value is not None}
        run[section].update(given)
    return run


def _runs(folder):
    """Every run under a folder, which may lie several folders deep."""
    for place, folders, files in os.walk(folder):
        if "config.json" in files:
            folders.clear()  # a run holds no other
            try:
                yield run_files.read(pathlib.Path(place))
            except ValueError as error:
                logging.warning("%s", error)


def _kind(config, method):
    return method, config["backbone"]["name"], config["data"]["name"], config["image_size"]


def _epoch_seconds(found):
    history = found.run.histories[found.phase]
    if len(history) < 2:
        return None
    first, last = history[0], history[-1]
    return (last["seconds"] - first["seconds"]) / (last["epoch"] - first["epoch"])


def _own_phases(run, runs):
    """Addresses of the phases that a run trained, or trains, itself."""
    versions = run_files.versions(run.record, run.phases.values())
    origin, teacher = (_first_address(run, key, runs) for key in ("workdir", "cam_workdir"))
    found = addresses.of_phases(run.config, versions, run.record.get("data"), origin, teacher)
    return {
        phase: address for phase, address in found.items() if not (origin and phase == "baseline")
    }


def _first_address(run, option, runs):
    """The address of the first phase of another run, if `baseline` names one by this option."""
    workdir = at(run.config, "baseline", option)
    if not workdir:
        return None
    origin = at(run.record, "origins", option)  # for there may be another run now, or none
    if not at(origin, "config"):
        place = pathlib.Path(workdir).resolve()
        if place not in runs:
            raise ValueError(f"{workdir}, which it stands on, is not among these runs")
        return next(iter(_own_phases(runs[place], runs).values()))
    config = run_files.filled(origin["config"])
    names = [section["method"]["name"] for section in (config, config["baseline"]) if section]
    own = addresses.of_phases(config, run_files.versions(origin, names), origin["data"])
    return next(iter(own.values()))


def _provide_all(need, at_hand, planned, folder):
    """Plans the run of a need and, before it, those of its first phase and of its teacher."""
    run, place = need.config.copy_and_resolve_references(), (at_hand, planned, folder)
    begun = _begun(need.addresses[-1], need.name, at_hand)
    alone = begun and not any(at(begun.config, "baseline", key) for key in identity.ORIGINS)
    if run.baseline and not alone:
        cam = run.baseline.cam
        if need.teacher:
            taught = _provide(need.teacher.config, need.teacher.addresses[0], cam, *place)
            run.baseline.cam_workdir = str(taught)
        first = experiment.first_phase(need.config)
        run.baseline.workdir = str(_provide(first, need.addresses[0], cam, *place))
    _provide(run, need.addresses[-1], need.name, *place)


def _provide(config, address, name, at_hand, planned, folder):
    """The folder of a phase that is at hand, begun, or to be trained, which then is planned."""
    there = finished(address, name, at_hand)
    if there:
        return there.run.folder
    begun = _begun(address, name, at_hand)
    if begun:
        stored = _moved(experiment.stored_config(begun.folder), config)
        return planned.setdefault(begun.folder, Job(stored, begun.folder, begun)).folder
    if address not in planned:
        planned[address] = Job(config, folder / _title(config, name, address))
    _read_out(planned[address].config.method, name)
    return planned[address].folder


def _begun(address, name, at_hand):
    """A run not yet finished that will have results of a phase's map called `name`, if any."""
    for found in at_hand.get(address, ()):
        section = experiment.sections(experiment.stored_config(found.run.folder))[found.phase]
        if not found.run.metrics and name in experiment.map_names(section.method):
            return found.run
    return None


def _moved(stored, config):
    """The config of a begun run, with its data and weights where they are now."""
    stored.data.update({k: v for k, v in config.data.items() if k in addresses.WHERE})
    stored.weights.source = config.weights.source
    return stored


def _read_out(method, name):
    """Has a classifier, which another row trains, judged by the read-out called `name` too."""
    if "readouts" in method and name not in method.readouts:
        method.readouts = (*method.readouts, name)


def _title(config, name, address):
    """The folder of a run: what it is, for the reader, and its address, for the rest."""
    method = f"{config.baseline.cam}+{name}" if config.baseline else name
    parts = (config.data.name, config.backbone.name, method, f"seed{config.seed}", address[:8])
    return "_".join(parts)
