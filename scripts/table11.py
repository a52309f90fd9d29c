"""PixelCAM's Table 11 on this machine: parameters, and milliseconds from an image to its full map.

python scripts/table11.py --output results/table11.md

Each row is one jitted call from 224 x 224 images to class logits and maps of the same size, timed
on one image, as published (on an RTX A6000), and on a batch. Weights are random: time does not
depend on them.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from configs import common
from wsol_jax import cpu, evaluate, experiment, logbook, published

HEADER = ("row", "parameters", "paper", "ms, one image", "ms an image, batch {}", "paper, ms")
FIXED = 9  # values of SAT's smoothing kernel, which the published counts include


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, help="Markdown file to write")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--batch", type=int, default=8, help="images of the batch")
    parser.add_argument("--rounds", type=int, default=10, help="timed calls of each row")
    options = parser.parse_args()
    if jax.default_backend() == "cpu":
        cpu.keep_memory()
    header = [title.format(options.batch) for title in HEADER]
    lines = [header, ["---"] * len(header)]
    for name, (milliseconds, parameters) in published.TABLE_11.rows.items():
        lines.append(row(name, milliseconds, parameters, options))
        print(name, lines[-1], flush=True)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    text = f"{describe(options)}\n\n{table}\n"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


def row(name, milliseconds, parameters, options):
    """The cells of one row of Table 1."""
    config = common.row("paper/table01", "resnet50", f"glas/{name.replace(' ', '')}")
    config.image_size = options.size
    if config.method.name == "classifier":
        config.method.readouts = (name,)
    built = experiment.build(config, config.method)
    variables = jax.device_put(experiment.initialize(config, built))
    count = sum(x.size for x in jax.tree.leaves(variables["params"])) + FIXED * ("sat" in name)
    seconds = [timed(built, variables, batch, options) for batch in (1, options.batch)]
    ours = [f"{1000 * s:.1f}" for s in seconds]
    return [name, f"{count:,}", f"{parameters:,}", *ours, f"{milliseconds}"]


def timed(built, variables, batch, options):
    """Median seconds an image, from images on the device to maps of their size on it."""
    shape = (options.size, options.size)

    @functools.partial(jax.jit, compiler_options=cpu.compiler_options())
    def localize(variables, image, label):
        logits, maps = built.localize(variables, image, label)
        return logits, {k: evaluate.to_size(low, shape) for k, low in maps.items()}

    image = jax.random.normal(jax.random.key(0), (batch, *shape, 3))
    label = jnp.arange(batch) % 2
    seconds = []
    for _ in range(options.rounds + 1):
        began = time.perf_counter()
        jax.block_until_ready(localize(variables, image, label))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) / batch


def describe(options):
    """Machine, versions and command."""
    record = logbook.record()
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items() if v)
    command = " ".join(["python", *sys.argv])
    return (
        f"# {published.TABLE_11.source}\n\nOne run of `{command}` at commit {record['commit']} "
        f"on {record['device']} ({record['processor']}), {record['started'][:10]}; {versions}. "
        f"Medians of {options.rounds} calls. SAT's counts include the {FIXED} fixed values of its "
        "smoothing kernel, as the published ones do; with PixelCAM the published one is 2 too low."
    )


if __name__ == "__main__":
    main()
