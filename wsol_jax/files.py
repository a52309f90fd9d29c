"""Files that are written whole or not at all, and folders that one command has to itself.

Of several processes the first one writes, and holds the lock.
"""

import contextlib
import csv
import io
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax

from wsol_jax import locks, parallel


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON whole or not at all; numbers that are not finite become null."""
    write_text(path, json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")


def write_lines(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object per line, whole or not at all."""
    write_text(path, "".join(json.dumps(_finite(row)) + "\n" for row in rows))


def write_csv(path: pathlib.Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes a table, whole or not at all; entries that a row lacks are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all, in UTF-8."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which takes the place of `path` once it is written without an error.

    What other processes than the first one write is dropped.

    Raises:
      OSError: the disk is full, say, with the path.
    """
    if jax.process_index() > 0:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder) / path.name
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")  # of this command alone
    try:
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        if error.errno and not error.filename:  # that of a full disk
            error.filename = str(path)
        raise
    finally:
        scratch.unlink(missing_ok=True)


def sync(folder: pathlib.Path) -> None:
    """Brings the files of a folder to the disk: what it is renamed to must not outlive them."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keeps other commands out of a folder.

    Raises:
      BlockingIOError: another command is at work there.
    """
    with contextlib.ExitStack() as until_end:
        first = jax.process_index() == 0
        free = until_end.enter_context(locks.tried(folder)) if first else True
        locks.require(all(parallel.gather(free)), folder)
        yield


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
