"""What a run is, by which it differs from every other: config, versions of methods, images.

A run goes on, and its baseline serves another, only where these are what they were.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from wsol_jax import experiment, files, method, parallel, run_files
from wsol_jax.data import splits
from wsol_jax.run_files import at

# By a run and its baseline: the model, what it sees of an image, and the images.
SHARED = ("backbone", "head", "num_classes", "weights.mean", "weights.std")
SHARED += ("image_size", "keep_aspect", "data.name", "data.fold")
# Of a config: where its data are and how they are read; and all that changes no number.
WHERE = ("data.folder", "data.source")
SILENT = ("name", "notes", "published", "parallel", "evaluation_batch_size", *WHERE)
PATIENCE = 60.0  # seconds: NFS keeps what it knows of a folder for half a minute or so
ORIGINS = ("workdir", "cam_workdir")  # of a baseline: other runs that a run stands on


@contextlib.contextmanager
def claim(
    workdir: pathlib.Path, config: Any, images: str, weights: str | None = None
) -> Iterator[None]:
    """Makes the folder of a run, keeps other commands out of it, and writes its config there.

    Args:
      images: their `fingerprint`.
      weights: the digest of the pretrained ones, if any.

    Raises:
      BlockingIOError: another command is at work there.
      FileExistsError: the folder holds a run of another config, of another version of a method, or
        on other images or labels, from other weights, or on what is another baseline now; says what
        differs.
      FileNotFoundError: the processes do not share the folder, or the config.
      ValueError: the processes do not see the same images.
    """
    check_versions(workdir, versions(config))
    check_config(workdir, config)
    check_images(workdir, images)
    check_weights(workdir, weights)
    check_origins(workdir, config)
    path, resolved = workdir / "config.json", json.loads(config.to_json())
    digest = zlib.crc32(images.encode()) >> 1  # an int32
    digests = parallel.gather(digest)  # and all have looked before one writes
    others = [process for process, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise ValueError(
            f"processes {others} see other images, labels or splits than process 0: start all with "
            "the same arguments, and the data in one folder that they share"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    with files.locked(workdir):
        files.write_json(path, resolved)
        parallel.wait_for_all()  # it is written before all look again
        found = _appears(path, resolved)
        without = [process for process, finds in enumerate(parallel.gather(found)) if not finds]
        if without:
            raise FileNotFoundError(
                f"processes {without} do not find their config in {path}, where process 0 wrote "
                "its own: start all with the same arguments, and a --workdir on a disk that they "
                "share"
            )
        yield


def versions(config: Any) -> dict[str, int]:
    """The version of each method of a config."""
    names = [section.method.name for section in experiment.sections(config).values()]
    return {name: method.version(name) for name in names}


def fingerprint(data: Mapping[str, splits.Split | splits.Listing | None]) -> str:
    """A digest of the names, labels and known contents of all images, split by split.

    Not of masks: those may be mended, and a run evaluated again.
    """
    digest = hashlib.sha256()
    for name, split in data.items():
        rows = ()
        if split:
            known = [split.contents] if split.contents else []
            rows = zip(split.names, split.labels.tolist(), *known, strict=True)
        digest.update(json.dumps([name, *rows]).encode())
    return digest.hexdigest()[:16]


def facts(config: Any, images: str) -> dict[str, Any]:
    """The part of a run's record that says what it is, see `versions`, `fingerprint`, `origins`."""
    return {"methods": versions(config), "data": images, "origins": origins(config)}


def origins(config: Any) -> dict[str, dict[str, Any]]:
    """What the runs are that a run's first phase and its CAMs are taken from, wherever they lie.

    By the option that names the run: its config, the versions of its methods and the fingerprint of
    its images.
    """
    found = {}
    for option in ORIGINS:
        folder = at(config.to_dict(), "baseline", option)
        if folder:
            record = run_files.read_json(pathlib.Path(folder, "record.json"))
            facts = {key: record.get(key) for key in ("methods", "data")}
            found[option] = {"config": run_files.read_config(pathlib.Path(folder)), **facts}
    return found


def place(config: Any, workdir: pathlib.Path, title: str) -> tuple[pathlib.Path, int]:
    """The folder of a run's phase, and how many epochs the phase has.

    Those of a baseline are in and of the run that `baseline.workdir` names, if any.

    Raises:
      FileExistsError, ValueError: see `check_shared`.
      FileNotFoundError: that run has no such phase.
    """
    section = experiment.sections(config)[title]
    if section is not config.baseline or not section.workdir:
        return workdir / title, section.epochs
    root = pathlib.Path(section.workdir)
    candidates = [root / name for name in ("baseline", section.method.name)]
    for folder in candidates:
        if folder.is_dir():
            check_shared(root, config)
            first, *_ = experiment.sections(experiment.stored_config(root)).values()
            return folder, first.epochs
    raise FileNotFoundError(
        f"no baseline at {root}; expected {candidates[0]} or {candidates[1]}, which a finished run "
        "of the baseline's config makes, such as configs/layercam_glas.py"
    )


def check_config(workdir: pathlib.Path, config: Any) -> None:
    """Raises FileExistsError where the run at `workdir` has another config.

    What changes no number may differ, and so may the places of the data and of the weights.
    """
    old, new = run_files.read_config(workdir), json.loads(config.to_json())
    differing = differences(old, new) if old else []
    if differing:
        raise FileExistsError(
            f"{workdir} holds a run of another config (other: {', '.join(differing)}); pass "
            f"another --workdir, or remove the folder. --workdir={workdir} without --config takes "
            "that of the run"
        )


def check_images(workdir: pathlib.Path, images: str) -> None:
    """Raises FileExistsError where the run at `workdir` is on images of another fingerprint."""
    recorded = run_files.read_json(workdir / "record.json").get("data", images)
    if recorded != images:
        raise FileExistsError(
            f"{workdir} holds a run on other images, labels or splits than those of this config "
            f"(fingerprint {recorded}, not {images}): they have changed since, or are of another "
            "folder; pass another --workdir, or train that run again"
        )


def check_weights(workdir: pathlib.Path, digest: str | None) -> None:
    """Raises FileExistsError where the run at `workdir` began from other weights."""
    recorded = at(run_files.read_json(workdir / "record.json"), "weights", "digest")
    if recorded and digest and recorded != digest:
        raise FileExistsError(
            f"{workdir} holds a run that began from other weights, though the file is called alike "
            f"(digest {recorded}, not {digest}); pass another --workdir, or the file that it began "
            "from as --config.weights.source="
        )


def check_origins(workdir: pathlib.Path, config: Any) -> None:
    """Raises FileExistsError where the runs that the one at `workdir` stands on are others now."""
    recorded = run_files.read_json(workdir / "record.json").get("origins") or {}
    for option, now in origins(config).items():
        before = recorded.get(option)
        if not (at(before, "config") and now["config"]):
            continue
        differing = [key for key in ("methods", "data") if before[key] != now[key]]
        differing += differences(*(run_files.filled(facts["config"]) for facts in (before, now)))
        if differing:
            raise FileExistsError(
                f"{workdir} was trained on the run of baseline.{option}, "
                f"{at(config.to_dict(), 'baseline', option)}, which is another one now (other: "
                f"{', '.join(differing)}); pass another --workdir, or train that run again as it "
                "was"
            )


def check_versions(workdir: pathlib.Path, current: dict[str, int]) -> None:
    """Raises FileExistsError where the run at `workdir` is of other versions of the methods."""
    record = run_files.read_json(workdir / "record.json")
    if not record:
        return
    recorded = run_files.versions(record, current)
    for name, version in current.items():
        if recorded[name] != version:
            raise FileExistsError(
                f"{workdir} holds a run of version {recorded[name]} of the method {name!r}, whose "
                f"numbers have changed since: this is version {version}; pass another --workdir, "
                "or remove the folder"
            )


def check_shared(workdir: pathlib.Path, config: Any) -> None:
    """Refuses the baseline of the run at `workdir` where it is another one than the config wants.

    Raises:
      FileExistsError: it is of another version of its method.
      FileNotFoundError: the folder holds no run.
      ValueError: the run has another model, other training images, or sees them otherwise.
    """
    name = config.baseline.method.name
    check_versions(workdir, {name: method.version(name)})
    if not (old := run_files.read_config(workdir)):
        raise FileNotFoundError(f"{workdir} is not a run: there is no config.json in it")
    new = json.loads(config.to_json())
    differing = [
        name
        for name in _differences(old, new)
        if any(f"{name}.".startswith(f"{shared}.") for shared in SHARED)
    ]
    if differing:
        values = "; ".join(
            f"{name} is {at(old, *name.split('.'))} there, {at(new, *name.split('.'))} here"
            for name in differing
        )
        raise ValueError(
            f"the baseline at {workdir} does not fit this config: {values}. Pass a run that does "
            "as --config.baseline.workdir=, or leave it empty to train one"
        )


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changes a number between two resolved configs, but for the place of the weights."""
    return sorted({*_differences(_plain(old), _plain(new))} - {*SILENT})


def _appears(path, resolved):
    """Whether process 0's config is at a path, where NFS may show what another wrote only later."""
    last = time.monotonic() + PATIENCE
    while not (found := run_files.read_json(path) == resolved) and time.monotonic() < last:
        time.sleep(1)
        os.listdir(path.parent)
    return found


def _plain(config):
    """A resolved config, its methods with all their keywords, its weights by the name of the file.

    Earlier configs had the keywords alone that were not as usual.
    """
    source = pathlib.PurePath(config["weights"]["source"]).name
    found = {**_spelt_out(config), "weights": {**config["weights"], "source": source}}
    if found.get("baseline"):
        found["baseline"] = _spelt_out(found["baseline"])
    return found


def _spelt_out(section):
    """A section with all keywords of its method, as JSON has them."""
    usual = json.loads(json.dumps(method.defaults(section["method"]["name"])))
    return {**section, "method": {**usual, **section["method"]}}


def _differences(old, new, prefix=""):
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [prefix] if old != new else []
    names = [(f"{prefix}.{k}".lstrip("."), k) for k in {**old, **new}]
    return [d for path, k in names for d in _differences(old.get(k), new.get(k), path)]
