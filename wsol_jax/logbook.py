"""What a run leaves to read: console lines, TensorBoard and the record of how it was run.

TensorBoard goes through `clu.metric_writers`, which needs TensorFlow; where either is missing the
run goes on without it.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from wsol_jax import files

COMMIT = 10  # characters of a commit that tell it from others
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "pillow",
    "tensorflow-cpu",
)
CONSOLE_SECONDS = 10.0


class Progress:
    """Console lines with loss, rate and time left, at most one every `CONSOLE_SECONDS`."""

    def __init__(self, name: str, step: int, last_step: int, batch_size: int):
        self.name, self._first, self._last, self._batch = name, step, last_step, batch_size
        self._start = self._shown = time.monotonic()

    def show(self, step: int, losses: dict[str, float]) -> None:
        """Prints one line if the last one is old enough; `step` counts finished steps."""
        now = time.monotonic()
        if now - self._shown < CONSOLE_SECONDS or step <= self._first:
            return
        self._shown = now
        rate = (step - self._first) / (now - self._start)
        terms = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        left = (self._last - step) / rate
        logging.info(
            "%s  step %d/%d  %s  %.1f images/s  %s left",
            *(self.name, step, self._last, terms, rate * self._batch, duration(left)),
        )


class Board:
    """TensorBoard scalars and images under `folder`, or nothing where it cannot be had.

    Of several processes the first one writes.
    """

    def __init__(self, folder: pathlib.Path):
        self._writer = None
        packages = all(importlib.util.find_spec(name) for name in ("clu", "tensorflow"))
        if packages and jax.process_index() == 0:
            from clu import metric_writers

            self._writer = metric_writers.SummaryWriter(str(folder))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes numbers, by name."""
        if self._writer:
            self._writer.write_scalars(step, values)

    def images(self, step: int, images: dict[str, UInt8[np.ndarray, "n h w 3"]]) -> None:
        """Writes batches of pictures, by name."""
        if self._writer:
            self._writer.write_images(step, images)

    def close(self) -> None:
        """Flushes what is still buffered."""
        if self._writer:
            self._writer.close()


def record(path: pathlib.Path | None = None, **facts: Any) -> dict[str, Any]:
    """How this run is run: command, code, versions and machine, and the `facts` given.

    Args:
      path: record of the same run; if it was begun before, what it says is kept under "earlier".
    """
    earlier = []
    if path and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        earlier = [*before.pop("earlier", []), before]
    return {
        "command": f"python -m wsol_jax.main {shlex.join(sys.argv[1:])}".rstrip(),
        "commit": commit(),
        "versions": {"python": platform.python_version(), **_versions(PACKAGES)},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "hosts": jax.process_count(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **facts,
        "earlier": earlier,
    }


@contextlib.contextmanager
def recorded(path: pathlib.Path, began: float, **facts: Any) -> Iterator[None]:
    """Writes the `record` of a run and, however its command ends, the seconds that it took.

    Where these cannot be written, on a full disk, what ended the command is more to the point.

    Args:
      began: when the command did, by `time.monotonic()`.
    """
    known = record(path, **facts)
    files.write_json(path, known)
    try:
        yield
    finally:
        try:
            files.write_json(path, {**known, "seconds": round(time.monotonic() - began, 1)})
        except OSError as error:
            logging.warning("the seconds of this command are not recorded: %s", error)


def provenance(records: Collection[Mapping[str, Any]]) -> str:
    """How many runs, in how much time, by which code and on what they were made, in words."""
    starts = [start for record in records for start in (record, *record["earlier"])]
    facts = {
        "commit": ", ".join(sorted({_short(start["commit"]) for start in starts})),
        "on": " and ".join(sorted({f"{s['device']}, {s['processor']}" for s in starts})),
        "jax": ", ".join(sorted({start["versions"]["jax"] for start in starts})),
    }
    spent = duration(sum(start.get("seconds", 0.0) for start in starts))
    least = "at least " * any("seconds" not in start for start in starts)  # some were killed
    known = "; ".join(f"{name} {values}" for name, values in facts.items())
    return f"{len(records)} run{'s' * (len(records) > 1)}, {least}{spent} in all; {known}"


@functools.cache
def commit(folder: pathlib.Path = pathlib.Path(__file__).parent) -> str:
    """Git commit of this code when it was first asked for, or "unknown" where git does not hold it.

    It ends with "-dirty" where files differ from it, or the package has files that git lacks.
    """

    def git(*arguments):
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "logbook.py")  # an installed copy is of no commit
        found = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
        added = git("ls-files", "--others", "--exclude-standard")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found}-dirty" if added and not found.endswith("-dirty") else found


def _short(commit: str) -> str:
    """A commit by its first characters, and "-dirty" where files differed from it."""
    name, dirty, _ = commit.partition("-dirty")
    return name[:COMMIT] + dirty


def duration(seconds: float) -> str:
    """Seconds as 1h02m, 3m04s or 5s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def _versions(packages):
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
