"""PixelCAM's Table 11 on this machine: parameters, and milliseconds from an image to its full map.

python scripts/table11.py --output results/table11.md
python scripts/table11.py --paper maxmin --output results/maxmin_table3.md

Each row is one jitted call from images to class logits and maps, timed on one image, as published,
and on a batch. PixelCAM's are of 224 x 224 images (published on an RTX A6000); those of the max-min
paper's Table 3 of 522 x 775 ones (on a GTX 1080 Ti), which the models see at 432 x 641. Weights are
random: time does not depend on them.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from configs import common, maxmin
from wsol_jax import cpu, evaluate, experiment, logbook, published

HEADER = ("row", "parameters", "paper", "ms, one image", "ms an image, batch {}", "paper, ms")
FIXED = 9  # values of SAT's smoothing kernel, which the published counts include


class Paper(NamedTuple):
    """A published table: parameters and milliseconds by row; what models see, and what they map."""

    source: str
    rows: dict[str, tuple[int, float]]
    seen: tuple[int, int]
    mapped: tuple[int, int]
    note: str


PAPERS = {
    "pixelcam": Paper(
        published.pixelcam.TABLE_11.source,
        {name: (count, ms) for name, (ms, count) in published.pixelcam.TABLE_11.rows.items()},
        (224, 224),
        (224, 224),
        f"SAT's counts include the {FIXED} fixed values of its smoothing kernel, as the published "
        "ones do; with PixelCAM the published one is 2 too low.",
    ),
    "maxmin": Paper(
        published.maxmin.TABLE_3.source,
        {name: (count, 1000 * s) for name, (count, s) in published.maxmin.TABLE_3.rows.items()},
        (432, 641),
        (522, 775),
        "The published times of the classifiers are those of other code than EEM's, SEM's, PN's "
        "and ERASE's.",
    ),
}


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, help="Markdown file to write")
    parser.add_argument("--paper", choices=PAPERS, default="pixelcam", help="whose table")
    parser.add_argument("--batch", type=int, default=8, help="images of the batch")
    parser.add_argument("--rounds", type=int, default=10, help="timed calls of each row")
    options = parser.parse_args()
    if jax.default_backend() == "cpu":
        cpu.keep_memory()
    header = [title.format(options.batch) for title in HEADER]
    lines = [header, ["---"] * len(header)]
    paper = PAPERS[options.paper]
    counts, calls = {}, {}
    for name in paper.rows:
        print(f"compiling {name}", flush=True)
        counts[name], calls[name] = row(name, config_of(options.paper, name), paper, options)
    times = timed(calls, options.rounds)
    for name, (parameters, milliseconds) in paper.rows.items():
        ours = (f"{1000 * seconds:.1f}" for seconds in times[name])
        lines.append([name, f"{counts[name]:,}", f"{parameters:,}", *ours, f"{milliseconds:g}"])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    text = f"{describe(options, paper)}\n\n{table}\n"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


def config_of(paper, name):
    """The config of a row."""
    if paper == "maxmin":
        return maxmin.row("table", "glas", name)
    config = common.row("paper/table01", "resnet50", f"glas/{name.replace(' ', '')}")
    if config.method.name == "classifier":
        config.method.readouts = (name,)
    return config


def row(name, config, paper, options):
    """Parameters, and compiled calls on one image and on a batch with the number of images."""
    built = experiment.build(config, config.method)
    variables = jax.device_put(experiment.initialize(config, built))
    count = sum(x.size for x in jax.tree.leaves(variables["params"])) + FIXED * ("sat" in name)
    localize = compiled(built, paper, config.metric)
    calls = []
    for batch in (1, options.batch):
        image = jax.random.normal(jax.random.key(0), (batch, *paper.seen, 3))
        call = functools.partial(localize, variables, image, jnp.arange(batch) % 2)
        jax.block_until_ready(call())
        calls.append((call, batch))
    return count, calls


def compiled(built, paper, metric):
    """Logits, and maps at the published size, in one call."""

    @functools.partial(jax.jit, compiler_options=cpu.compiler_options())
    def localize(variables, image, label):
        logits, maps = built.localize(variables, image, label)
        return logits, {k: evaluate.to_size(low, paper.mapped, metric) for k, low in maps.items()}

    return localize


def timed(calls, rounds):
    """Median seconds an image, from images on the device to maps on it, of each row's calls.

    The rows take turns, so that a machine's slow minutes fall on all of them.
    """
    seconds = {(name, i): [] for name, row in calls.items() for i in range(len(row))}
    for _ in range(rounds):
        for (name, i), taken in seconds.items():
            call, batch = calls[name][i]
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken.append((time.perf_counter() - began) / batch)
    return {
        name: [statistics.median(seconds[name, i]) for i in range(len(row))]
        for name, row in calls.items()
    }


def describe(options, paper):
    """Machine, versions and command."""
    record = logbook.record()
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items() if v)
    command = " ".join(["python", *sys.argv])
    return (
        f"# {paper.source}\n\nOne run of `{command}` at commit {record['commit']} "
        f"on {record['device']} ({record['processor']}), {record['started'][:10]}; {versions}. "
        f"Medians of {options.rounds} calls, the rows taking turns. {paper.note}"
    )


if __name__ == "__main__":
    main()
