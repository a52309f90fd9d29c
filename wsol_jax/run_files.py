"""The files of a run folder, as they are or as far as they are there."""

import json
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wsol_jax import augment

# Options that the configs of earlier runs lack, as they were before there was a choice.
LATER = {"metric": "pxap", "published": "", "keep_aspect": False, "augment": {"turn": False}}
LATER |= {"precision": ""}
LATER_OF = {
    "weights": {"mean": list(augment.IMAGENET_MEAN), "std": list(augment.IMAGENET_STD)},
    "baseline": {"cam_workdir": ""},
}
LATER_OF_DATA = {"camelyon16": {"division": "slide_disjoint"}}
# Options of methods, as they were called, and those that are gone: of "maxmin" the paper's
# objective alone is left, of which the runs were.
RENAMED = {"negev": {"sharpness": "t", "sharpness_growth": "t_growth", "sharpest": "t_max"}}
GONE = {"maxmin": ("objective", "mask_modalities")}


class Run(NamedTuple):
    """The files of a run folder; `histories` by phase."""

    folder: pathlib.Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    gallery: Mapping[str, np.ndarray]
    histories: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def phases(self) -> dict[str, str]:
        """The method of each phase of the config, in the order in which they are trained."""
        baseline = at(self.config, "baseline", "method", "name")
        method = at(self.config, "method", "name")
        phases = {"baseline": baseline, method: method}
        return {phase: method for phase, method in phases.items() if method}


def read(folder: pathlib.Path) -> Run:
    """The files of a run folder, empty where they are not there yet, except for the config.

    Raises:
      FileNotFoundError: there is no such folder, or it holds no run.
      ValueError: a file of the run is damaged.
    """
    if not (folder / "config.json").is_file():
        found = "there is no config.json in it" if folder.is_dir() else "it does not exist"
        raise FileNotFoundError(
            f"{folder} is not the folder of a run: {found}. A run folder holds config.json, "
            "record.json, metrics.json, gallery.npz and one folder for each phase; make one with "
            f"`python -m wsol_jax.main --config=configs/pixelcam_glas.py --workdir={folder}`"
        )
    record, metrics = (read_json(folder / name) for name in ("record.json", "metrics.json"))
    gallery = _read(folder / "gallery.npz", _arrays, {})
    run = Run(folder, read_config(folder), record, metrics, gallery, {})
    paths = {phase: folder / phase / "history.jsonl" for phase in run.phases}
    return run._replace(histories={k: _read(path, _json_lines, []) for k, path in paths.items()})


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """The config of a run, nothing where there is none; options that came later are filled in."""
    return filled(read_json(folder / "config.json"))


def filled(config: dict[str, Any]) -> dict[str, Any]:
    """A config as it was written, with the options that came later; nothing if it is nothing."""
    if not config:
        return {}
    sections = {k: {**later, **config[k]} for k, later in LATER_OF.items() if config.get(k)}
    found = _renamed({**LATER, **config, **sections})
    if found.get("baseline"):
        found["baseline"] = _renamed(found["baseline"])
    later = LATER_OF_DATA.get(at(found, "data", "name"))
    return {**found, "data": {**later, **found["data"]}} if later else found


def _renamed(section: dict[str, Any]) -> dict[str, Any]:
    """A section with the options of its method as they are called now."""
    name = at(section, "method", "name")
    known, gone = RENAMED.get(name, {}), GONE.get(name, ())
    if not (known or gone):
        return section
    options = {known.get(k, k): v for k, v in section["method"].items() if k not in gone}
    return {**section, "method": options}


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """What a file holds, nothing where there is none; ValueError where it is damaged."""
    return _read(path, _json, {})


def versions(record: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    """The versions of methods that a run was trained with; older records do not say: the first."""
    return {name: at(record, "methods", name) or 1 for name in names}


def at(tree: Any, *path: str) -> Any:
    """The entry at a path through nested mappings, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _read(path: pathlib.Path, parse: Callable[[pathlib.Path], Any], missing: Any) -> Any:
    """What `parse` makes of a file, or `missing` where there is none."""
    if not path.is_file():
        return missing
    try:
        return parse(path)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, tokenize.TokenError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Delete it and give the command of the run again"
        ) from error


def _json(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)
