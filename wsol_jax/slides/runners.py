"""How one job is done for every slide: in this process, in a pool of them, or by Apache Beam."""

import concurrent.futures
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence

from wsol_jax.slides import patches

Job = Callable[[patches.Source], None]
Run = Callable[[Job, Sequence[patches.Source]], None]


def local(workers: int, flags: Sequence[str]) -> Run:
    """Runs a job for every slide in a pool of processes, or in this one; it takes no flags."""
    if flags:
        raise ValueError(f"{list(flags)} are flags of Beam; expected none without runner beam")

    def run(job: Job, sources: Sequence[patches.Source]) -> None:
        if workers == 1:
            _count(map(job, sources), sources)
            return
        # Not forked: libraries that were imported may have threads by now.
        processes = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=processes, initializer=_end_with_parent
        ) as pool:
            try:
                _count(pool.map(job, sources), sources)
            except concurrent.futures.process.BrokenProcessPool:
                # The slides that are not done are rejected for it when all is gathered.
                logging.error("a worker was killed, for want of memory perhaps; take fewer workers")

    return run


def beam(workers: int, flags: Sequence[str]) -> Run:
    """Runs a job for every slide on a runner of Beam, whose flags say how many workers it has.

    All of them must see the folders.

    Raises:
      ImportError: Beam is not installed.
    """
    del workers
    try:
        import apache_beam
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise ImportError(
            f"runner 'beam' needs apache-beam ({error}): . scripts/environment.sh beam"
        ) from None

    def run(job: Job, sources: Sequence[patches.Source]) -> None:
        options = pipeline_options.PipelineOptions(list(flags))
        with apache_beam.Pipeline(options=options) as pipeline:
            found = pipeline | "slides" >> apache_beam.Create(sources)
            _ = found | "spread" >> apache_beam.Reshuffle() | "cut" >> apache_beam.Map(job)

    return run


RUNNERS = {"local": local, "beam": beam}


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed, lest it interfere with the run that goes on."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _count(done: Iterable[None], sources: Sequence[patches.Source]) -> None:
    for number, (_, source) in enumerate(zip(done, sources, strict=True), start=1):
        logging.info("%d of %d slides: %s", number, len(sources), source.name)
