"""Speed and memory as one table: training steps, read-outs, evaluation, input.

python scripts/bench.py --output bench.md

Every comparison is timed in turns, A B A B, in one process on one machine, and reported as the
median of the ratios; each part has a process of its own. The rows against PyTorch need the packages
of requirements/bench.lock and are left out, by name, where those are not installed.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle PyTorch threads must not spin

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from bench_models import begun, build, centre, opposed, random_batch, stepper, temporary_bytes
from bench_slides import cutting, streaming
from bench_timing import alone, fastest, in_turns, median_ratio, run_and_wait, ways

from wsol_jax import augment, cpu, evaluate, heads, logbook, method, metrics, train
from wsol_jax.backbones import resnet, vit
from wsol_jax.data import pictures, sources

ENCODERS = ("resnet50", "deit_tiny_patch16_224")
READOUTS = (
    ("resnet50", "grad_cam", "GradCAM"),
    ("resnet50", "grad_cam_pp", "GradCAMPlusPlus"),
    ("resnet50", "layer_cam", "LayerCAM"),
    ("vgg16", "grad_cam_pp", "GradCAMPlusPlus"),
    ("inception_v3", "grad_cam_pp", "GradCAMPlusPlus"),
)
MEMORY_BATCH = 32
PARTS = (
    *("training", "against_torch", "across_devices", "sat", "readout", "maxmin"),
    *("evaluation", "pipeline", "cutting", "streaming"),
)


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=pathlib.Path, help="Markdown file to write")
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--batch", type=int, default=8, help="images of a training step")
    parser.add_argument("--readout-batch", type=int, default=32, help="images of a read-out")
    parser.add_argument("--slide", type=pathlib.Path, help="a slide to cut patches of")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each comparison")
    options = parser.parse_args()
    parts = [
        (training,),
        *[(against_torch, encoder) for encoder in ENCODERS],
        (across_devices, "deit_tiny_patch16_224"),
        (sat, "deit_tiny_patch16_224"),
        *[(readout, *names) for names in READOUTS],
        (maxmin,),
        (evaluation,),
        (pipeline,),
        (cutting,),
        (streaming,),
    ]
    if options.only:
        parts = [part for part in parts if part[0].__name__ in options.only]
    rows = []
    for part, *names in parts:
        for row in alone(part, options, *names):
            rows.append(row)
            print(line(row), flush=True)
    table = "\n".join(["| what | measured | target |", "|---|---|---|", *map(line, rows)])
    text = f"{describe(options)}\n\n{table}\n"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text, encoding="utf-8")


def training(options):
    """The classifier's step, and PixelCAM's beside it."""
    built = {name: build(name, options.size) for name in ("classifier", "pixelcam")}
    batch = random_batch(options.batch, options.size)
    steps = {name: stepper(*parts, batch, options.size) for name, parts in built.items()}
    seconds = in_turns(options.rounds, **steps)
    rate = options.batch / statistics.median(seconds["classifier"])
    yield f"classifier step, batch {options.batch}", f"{rate:.2f} images/s", ""
    ratio = median_ratio(seconds["pixelcam"], seconds["classifier"])
    yield "PixelCAM step / classifier step", f"{ratio:.3f}x the time", "at most 1.05x"
    large = random_batch(MEMORY_BATCH, options.size)
    memory = {name: temporary_bytes(*parts, large, options.size) for name, parts in built.items()}
    extra = (memory["pixelcam"] - memory["classifier"]) / 2**20
    title = f"PixelCAM step, temporary memory beyond the classifier's, batch {MEMORY_BATCH}"
    total = memory["classifier"] / 2**30
    yield title, f"{extra:.1f} MiB (classifier {total:.2f} GiB)", "at most 64 MiB"


def against_torch(options, encoder):
    """A classifier's forward pass and training step against PyTorch's."""
    if not (has("torch") and has("timm")):
        yield f"{encoder} against PyTorch", "not measured: torch or timm is not installed", ""
        return
    import bench_torch

    count = {"resnet50": options.batch}.get(encoder, options.readout_batch)
    built, start = build("classifier", options.size, encoder)
    batch = random_batch(count, options.size)
    image = augment.eval_view({"image": centre(batch, options.size)})["image"]
    variables = train.variables_of(start)
    apply = jax.jit(built.model.apply, compiler_options=cpu.compiler_options())
    pairs = {
        "forward": (
            functools.partial(run_and_wait, apply, variables, image),
            bench_torch.forward(encoder, image),
        ),
        "training step": (
            stepper(built, start, batch, options.size),
            bench_torch.training_step(encoder, batch, options.size),
        ),
    }
    for title, (ours, theirs) in pairs.items():
        measured = compared(options.rounds, count, ours, theirs)
        yield f"{encoder}: {title}, batch {count}, speed over PyTorch's", measured, "1"


def across_devices(options, encoder):
    """The training step against PyTorch's, a CPU being one device for each core."""
    title = f"{encoder}: training step, batch {options.readout_batch}, a device a core"
    if not (has("torch") and has("timm")):
        yield title, "not measured: torch or timm is not installed", ""
        return
    import bench_torch

    jax.config.update("jax_num_cpu_devices", os.cpu_count())
    batch = random_batch(options.readout_batch, options.size)
    built, start = build("classifier", options.size, encoder)
    ours = stepper(built, start, batch, options.size, jax.devices())
    theirs = bench_torch.training_step(encoder, batch, options.size)
    measured = compared(options.rounds, options.readout_batch, ours, theirs)
    yield f"{title}, speed over PyTorch's", measured, "1"


def sat(options, encoder):
    """SAT's logits and maps against PyTorch's, of the same weights."""
    title = f"{encoder}: SAT's map, batch {options.readout_batch}"
    if not (has("torch") and has("timm")):
        yield title, "not measured: torch or timm is not installed", ""
        return
    import bench_torch

    dtype = None if jax.default_backend() == "cpu" else jnp.bfloat16
    transformer = vit.build(encoder, location=True, dtype=dtype)
    built, start = begun(method.build("sat", transformer, heads.build("conv_gap", 2)), options.size)
    image = centre(random_batch(options.readout_batch, options.size), options.size)
    image = augment.eval_view({"image": image})["image"]
    variables = {"params": start.params}
    apply = jax.jit(built.model.apply, compiler_options=cpu.compiler_options())
    theirs = bench_torch.sat(encoder, variables, image)
    difference = np.abs(np.asarray(apply(variables, image)["map"]) - theirs()).max()
    ours = functools.partial(run_and_wait, apply, variables, image)
    measured = compared(options.rounds, options.readout_batch, ours, theirs)
    facts = f"{measured}; maps differ by {difference:.0e}"
    yield f"{title}, speed over PyTorch's", facts, "1"


def compared(rounds, count, ours, theirs):
    """The ratio of two speeds on `count` images, and both."""
    seconds = in_turns(rounds, ours=ours, theirs=theirs)
    ratio = median_ratio(seconds["theirs"], seconds["ours"])
    rates = [count / statistics.median(seconds[k]) for k in ("ours", "theirs")]
    return f"{ratio:.2f} ({rates[0]:.1f} against {rates[1]:.1f} images/s)"


def readout(options, encoder, name, title):
    """A read-out with its forward pass, for each image's likelier class, against `grad-cam`.

    Both sides map all images at once and `SLICE` at a time; each is credited with its faster way.
    """
    batch = random_batch(options.readout_batch, options.size)
    image = augment.eval_view({"image": centre(batch, options.size)})["image"]
    made, state = build("classifier", options.size, encoder, readouts=(name,))
    variables = train.variables_of(state.replace(params=opposed(state.params)))
    localize = jax.jit(made.localize, compiler_options=cpu.compiler_options())
    logits, maps = jax.device_get(localize(variables, image))
    if not maps[name].any((1, 2)).all():
        raise ValueError(f"a {name} map is empty: the comparison would show nothing")
    ours = ways(functools.partial(run_and_wait, localize, variables), image)
    theirs = {}
    if has("torch") and has("pytorch_grad_cam"):
        import bench_torch

        package = bench_torch.readout(encoder, title, variables)
        theirs = ways(package, np.asarray(image), logits.argmax(-1))
        low = package.low(np.asarray(image), logits.argmax(-1))
        difference = np.abs(maps[name] - low).max()
    seconds = in_turns(
        options.rounds,
        **{f"ours, {way}": function for way, function in ours.items()},
        **{f"theirs, {way}": function for way, function in theirs.items()},
    )
    own = fastest(seconds, "ours")
    rate = f"{options.readout_batch / statistics.median(seconds[own]):.1f} images/s {own[6:]}"
    row = f"{encoder}: {name}"
    if not theirs:
        yield f"{row}, {options.readout_batch} images", rate, ""
        return
    other = fastest(seconds, "theirs")
    ratio = median_ratio(seconds[other], seconds[own])
    measured = f"{ratio:.2f}x the speed ({rate}; maps differ by {difference:.0e})"
    yield f"{row} against grad-cam, {options.readout_batch} images", measured, "at least 3x"


def maxmin(options):
    """EEM's training step and its map of a whole image of GlaS, beside WILDCAT's on its encoder."""
    crop, seen, mapped = 416, (432, 641), (522, 775)
    methods = {
        "EEM": ("maxmin", {"background": "eem"}),
        "WILDCAT": ("classifier", {"readouts": ("cam",), "bounded": True}),
    }
    steps, maps, batch = {}, {}, random_batch(4, crop)
    for row, (name, keywords) in methods.items():
        dtype = None if jax.default_backend() == "cpu" else jnp.bfloat16
        encoder = resnet.resnet18(strides=resnet.STANDARD_STRIDES, dtype=dtype)
        pooling = heads.build("wildcat", 2, background_row=False)
        built, start = begun(method.build(name, encoder, pooling, **keywords), crop)
        steps[row] = stepper(built, start, batch, crop)
        variables = train.variables_of(start)
        maps[row] = functools.partial(run_and_wait, mapper(built, mapped), variables)
    image = jax.random.normal(jax.random.key(0), (1, *seen, 3))
    whole = {row: functools.partial(call, image) for row, call in maps.items()}
    for title, calls in (
        (f"training step, batch 4, {crop}²", steps),
        (f"one image, {mapped[0]} x {mapped[1]}", whole),
    ):
        seconds = in_turns(options.rounds, **calls)
        ratio = median_ratio(seconds["EEM"], seconds["WILDCAT"])
        own, other = (1000 * statistics.median(seconds[row]) for row in methods)
        measured = f"{ratio:.2f}x the time ({own:.0f} and {other:.0f} ms)"
        yield f"resnet18: EEM / WILDCAT, {title}", measured, ""


def mapper(built, size):
    """(variables, image) -> maps of a size, as evaluation makes them for the max-min paper."""

    @functools.partial(jax.jit, compiler_options=cpu.compiler_options())
    def mapped(variables, image):
        _, maps = built.localize(variables, image, None)
        return {name: evaluate.to_size(low, size, "dice") for name, low in maps.items()}

    return mapped


def evaluation(options):
    """What counting PxAP adds to the forward pass it follows."""
    built, state = build("classifier", options.size)
    batch = random_batch(options.readout_batch, options.size)
    truth = jnp.asarray(centre(batch, options.size, "mask"))
    valid = jnp.ones(options.readout_batch, bool)
    variables = train.variables_of(state)
    image = augment.eval_view({"image": centre(batch, options.size)})["image"]
    localize = jax.jit(built.localize, compiler_options=cpu.compiler_options())
    low = localize(variables, image, jnp.asarray(batch["label"]))[1]["layer_cam"]

    @jax.jit
    def count(low):
        scores = evaluate.to_size(low, truth.shape[1:])
        return metrics.PxAP.from_model_output(scores, truth, valid)

    def counted():
        metrics.PxAP.empty().merge(jax.device_get(count(low)))

    forward = functools.partial(
        run_and_wait, localize, variables, image, jnp.asarray(batch["label"])
    )
    seconds = in_turns(options.rounds, forward=forward, counted=counted)
    share = 100 * median_ratio(seconds["counted"], seconds["forward"])
    yield "evaluation: resizing, counting and merging / forward", f"{share:.2f} %", "at most 5 %"


def pipeline(options):
    """Images per second and core that each source delivers, read, resized and batched."""
    for source in ("memory", "tfds") if has("tensorflow_datasets") else ("memory",):
        split = sources.open_split(
            "synthetic_glands", "train", sizing=pictures.Sizing(256), source=source
        )
        batches = split.shuffled(32, seed=0)
        for _ in range(4):
            next(batches)
        began, used = time.perf_counter(), time.process_time()
        for _ in range(20):
            next(batches)
        wall, cpu = time.perf_counter() - began, time.process_time() - used
        measured = f"{640 / wall:.0f} images/s ({640 / max(cpu, 1e-9):.0f} per core)"
        yield f"input pipeline, {source}, 256² from 256²", measured, ""


def has(module):
    """Whether a package is installed."""
    return importlib.util.find_spec(module) is not None


def describe(options):
    """Machine, versions and command."""
    record = logbook.record()
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items() if v)
    return (
        f"# Speed\n\nOne run of `{' '.join(['python', *sys.argv])}` at commit {record['commit']} "
        f"on {record['device']} ({record['processor']}), {record['started'][:10]}. "
        f"ResNet-50 at stride 8, {options.size}² images; {versions}. "
        f"Medians of {options.rounds} turns; other work on the machine moves the absolute figures, "
        "the ratios hardly."
    )


def line(row):
    """A row of the table."""
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
