"""The address of a trained phase: a digest of all that its numbers come from.

Phases of one address are the same, whatever their runs are called, wherever they lie and on which
devices they were trained. The commit has no part in it: each method declares a version instead.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from wsol_jax import identity, method
from wsol_jax.run_files import at

OWN = ("method", "optimizer", "epochs", "batch_size")  # of a config: what is a phase's own
ORIGIN = ("cam", "cam_checkpoint", "weights_checkpoint")  # what a second phase takes from the first
WHERE = tuple(name.removeprefix("data.") for name in identity.WHERE)


def of_phases(
    config: Mapping[str, Any],
    versions: Mapping[str, int],
    data: str | None,
    baseline: str | None = None,
    teacher: str | None = None,
) -> dict[str, str]:
    """The addresses of a run's phases, by the names that `metrics.json` gives them.

    An option that is off is as good as absent, so that older runs keep their addresses when a
    config gains one; a method's keywords are completed by its defaults. Read-outs are left out:
    they are made of a trained classifier.

    Args:
      config: resolved, as in `config.json`.
      versions: of the methods, by name.
      data: fingerprint of the images and labels, see `identity.fingerprint`.
      baseline: address of the first phase where `config.baseline.workdir` has it from another run.
      teacher: address of the phase that makes the CAMs where `config.baseline.cam_workdir` has it
        from another run.
    """
    shared = {k: v for k, v in config.items() if k not in (*OWN, *identity.SILENT, "baseline")}
    shared["data"] = {k: v for k, v in config["data"].items() if k not in WHERE}
    source = at(config, "weights", "source")
    shared["weights"] = {**config["weights"], "source": pathlib.PurePath(source or "").name}
    for part in ("head", "backbone"):  # of which some are on as a rule
        options = (config.get(part) or {}).items()
        shared[part] = {key: "off" if value is False else value for key, value in options}
    shared["metric"] = config.get("metric") or "pxap"
    shared["fingerprint"] = data
    first, found = config.get("baseline"), {}
    if first:
        found["baseline"] = baseline or _digest(shared | _own(first, versions))
        own = {key: first[key] for key in ORIGIN}
        shared["origin"] = {"baseline": found["baseline"], "teacher": teacher, **own}
    found[config["method"]["name"]] = _digest(shared | _own(config, versions))
    return found


def _own(section, versions):
    name = section["method"]["name"]
    keywords = {**method.defaults(name), **section["method"]}
    keywords.pop("readouts", None)
    own = {key: section[key] for key in OWN}
    return {**own, "method": keywords, "version": versions[name]}


def _digest(facts):
    text = json.dumps(_plain(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value):
    """Without what is off, and as JSON has it."""
    if isinstance(value, Mapping):
        entries = {key: _plain(entry) for key, entry in value.items()}
        return {key: entry for key, entry in entries.items() if not _is_off(entry)}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _is_off(value):
    return value is None or value is False or value in ("", [], {})
