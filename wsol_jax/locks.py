"""One command at a time in a folder."""

import contextlib
import logging
import pathlib
from collections.abc import Iterator

import filelock

FILE = ".lock"


@contextlib.contextmanager
def tried(folder: pathlib.Path) -> Iterator[bool]:
    """Whether no other command is at work in a folder; if so, others are kept out of it meanwhile.

    The system frees the lock however the process ends.
    """
    lock, free = filelock.FileLock(folder / FILE, fallback_to_soft=False), True
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        free = False
    except (NotImplementedError, OSError) as error:  # some shared disks have no locks
        logging.warning("%s is not locked against other commands: %s", folder, error)
    try:
        yield free
    finally:
        lock.release()


def require(free: bool, folder: pathlib.Path) -> None:
    """Raises BlockingIOError where a folder is not free."""
    if not free:
        raise BlockingIOError(
            f"another command is at work in {folder}: wait until it ends, or name another folder"
        )
