"""Training, top to bottom: the step, the loop of one phase, and the two phases of a run.

The baseline classifier comes first. Its best-localization checkpoint (B-LOC) makes the CAMs that
the second phase samples pixels from, its best-classification checkpoint (B-CL) is where the second
phase starts. Killed anywhere, the same command goes on where it stopped.
"""

import contextlib
import functools
import logging
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np
import optax

from wsol_jax import (
    augment,
    checkpoint,
    evaluate,
    experiment,
    identity,
    logbook,
    ops,
    optimizer,
    parallel,
    preflight,
    pretrained,
    pseudo_labels,
    results,
    selection,
)
from wsol_jax.data import splits
from wsol_jax.method import Method
from wsol_jax.termination import Termination

SAVE_SECONDS = 60.0  # between checkpoints: what a kill can cost
SAVE_PAUSE = 20  # times as long as one takes, at least: what is slow to save is saved more rarely


@flax.struct.dataclass
class State:
    """Everything a step changes."""

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any


class Phase(NamedTuple):
    """One training, in a folder of its own; `title` is its name in `metrics.json`.

    Attributes:
      start: variables to begin with, on the host.
      evaluator: of the method, so that validation and test compile it once.
      cams: maps (n h w) of the training images, for methods that learn from them.
    """

    title: str
    folder: pathlib.Path
    method: Method
    start: dict[str, Any]
    epochs: int
    batch_size: int
    optimizer: dict[str, Any]
    evaluator: evaluate.Evaluator
    cams: np.ndarray | None = None


def run(
    config: Any, workdir: pathlib.Path, *, train: bool = True, deadline: float = math.inf
) -> dict[str, Any]:
    """Trains what the config describes, evaluates it on the test split, and writes all of it down.

    Args:
      config: see `configs/`.
      workdir: folder of the run; where it holds an unfinished run of this config, that goes on.
      train: False evaluates the checkpoints that are there.
      deadline: by `time.monotonic()`; training that is not done by then stops as if by SIGTERM.

    Returns:
      The contents of `metrics.json`.
    """
    began = time.monotonic()
    engine = parallel.engine(config.parallel)
    method = preflight.checked(config, workdir, train=train)
    data = experiment.open_data(config)
    if train and method.full_masks and not splits.is_annotated(data.seen):
        raise ValueError(
            f"the method {config.method.name!r} learns from full masks, and no training image of "
            f"{config.data.name} has one; expected some, or a method that learns from image labels"
        )
    images = identity.fingerprint(data._asdict())
    if config.baseline and config.baseline.workdir:
        identity.check_images(pathlib.Path(config.baseline.workdir), images)
    weights, facts = pretrained.encoder(config, method, data.seen)
    known = {"config": config.name, "seed": config.seed, "notes": config.notes, "weights": facts}
    known |= identity.facts(config, images)
    record = logbook.recorded(workdir / "record.json", began, **known)
    with identity.claim(workdir, config, images, facts.get("digest")), record:
        phases, cams = [], None
        if config.baseline:
            baseline = _phase(config, workdir, "baseline", weights, engine)
            if train and not config.baseline.workdir:
                fit(baseline, config, data, engine, deadline)
            weights = _weights(config, baseline)
            if train:
                cams = pseudo_labels.of_run(config, workdir, baseline, data.seen, images)
            phases.append(baseline)
        last = _phase(config, workdir, config.method.name, weights, engine)._replace(cams=cams)
        if train:
            fit(last, config, data, engine, deadline)
        selection.Best(last.folder).require_end(last.epochs)
        return results.collect(config, workdir, data, [*phases, last])


def fit(
    phase: Phase,
    config: Any,
    data: experiment.Data,
    engine: parallel.Engine,
    deadline: float = math.inf,
) -> None:
    """Trains one phase to its end, from its newest checkpoint where it has one.

    Raises:
      FloatingPointError: a loss or a logit of a validation image is not finite; names the step and
        the last good checkpoint.
      SystemExit: with code 0 after SIGTERM to any process, or at the deadline (see `run`), once the
        state is saved.
    """
    per_epoch = splits.steps_per_epoch(data.train.size, phase.batch_size)
    last = phase.epochs * per_epoch
    transform = optimizer.sgd(
        steps_per_epoch=per_epoch, frozen=phase.method.frozen, **phase.optimizer
    )
    step = _compiled(phase.method, transform, config, engine, per_epoch)
    with (
        contextlib.closing(checkpoint.Checkpoints(phase.folder / "checkpoints")) as checkpoints,
        contextlib.closing(selection.Validation(phase, config, data)) as validation,
        Termination(deadline) as termination,
    ):
        state, memory = _begin(phase, transform, checkpoints, validation)
        # Both phases begin with the seed, as released: their n-th steps draw the same views.
        done, key = int(state.step), jax.random.key(config.seed)
        state, save_at = engine.place(state), time.monotonic() + SAVE_SECONDS
        batches = map(engine.feed, _batches(phase, config, data, start=done))
        batch = next(batches)
        progress = logbook.Progress(phase.title, done, last, phase.batch_size)
        while done < last:
            state, losses = step(state, batch, key)
            batch = next(batches)  # while the devices work on the one before
            done += 1
            memory.losses.append(_finite(engine.fetch(losses), done, checkpoints))
            progress.show(done, memory.losses[-1])
            epoch_ends = done % per_epoch == 0
            late = time.monotonic() > save_at
            due = any(parallel.gather(late or done == last or termination.why() != ""))
            better = epoch_ends and _judged(
                validation, engine.share(variables_of(state)), memory, done, checkpoints
            )
            if better or due:
                held = engine.fetch(state), memory.to_dict(), memory.best_steps()
            if better:
                checkpoints.hold(done, *held)
            if due:
                seconds = checkpoints.save(done, *held)
                save_at = time.monotonic() + max(SAVE_SECONDS, SAVE_PAUSE * seconds)
                _stop_if_asked(termination, done)


def variables_of(state: State) -> dict[str, Any]:
    """The model's part of a state."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def make_step(
    method: Method,
    transform: optax.GradientTransformation,
    crop: int,
    per_epoch: int = 1,
    *,
    turn: bool = False,
    axis: str | None = None,
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """The training step of every method: (state, batch, key) -> (state, losses).

    Args:
      crop: side of the random crop.
      per_epoch: steps of an epoch.
      turn: see `augment.train_view`.
      axis: devices to sum over, see `parallel.Engine`.
    """

    def step(state, batch, key):
        size = batch["label"].shape[0]
        keys = parallel.image_keys(jax.random.fold_in(key, state.step), size, axis)
        view_keys, seed_keys, dropout_keys = jax.vmap(jax.random.split, (0, None), 1)(keys, 3)
        view = augment.train_view(batch, view_keys, size=crop, turn=turn, **method.normalization)
        batch = method.prepare({**view, "epoch": state.step // per_epoch}, seed_keys)
        return update(method, transform, state, batch, dropout_keys, axis)

    return step


def update(
    method: Method,
    transform: optax.GradientTransformation,
    state: State,
    batch: dict[str, Any],
    keys: Any,
    axis: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """One descent on the method's loss of a prepared batch; returns the losses before it."""

    def objective(params):
        variables = {**variables_of(state), "params": params}
        inputs = (batch[name] for name in method.inputs)
        outputs, updates = method.model.apply(
            variables, *inputs, keys=keys, train=True, mutable=["batch_stats"]
        )
        terms = method.loss(outputs, batch)
        over_devices = functools.partial(parallel.total, axis=axis)
        shares = {name: term.share(over_devices) for name, (_, term) in terms.items()}
        loss = sum(weight * shares[name] for name, (weight, _) in terms.items())
        return loss, ({"total": loss, **shares}, updates.get("batch_stats", {}))

    gradients, (shares, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
    gradients, losses = parallel.total((gradients, shares), axis)
    changes, opt_state = transform.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, changes)
    return State(state.step + 1, params, batch_stats, opt_state), losses


def _compiled(method, transform, config, engine, per_epoch):
    """The step of a phase as the config wants it, on all devices."""
    options = {"axis": engine.axis, **experiment.keywords(config.augment)}
    step = make_step(method, transform, config.image_size, per_epoch, **options)
    return engine.compile(ops.in_single_precision(step) if config.precision == "float32" else step)


def _phase(config, workdir, title, weights, engine):
    """The phase of the config with this title, beginning with what `weights` has of its model."""
    section = experiment.sections(config)[title]
    folder, epochs = identity.place(config, workdir, title)
    method = experiment.build(config, section.method, engine.axis, training=True)
    evaluated = experiment.build(config, section.method)
    return Phase(
        title=title,
        folder=folder,
        method=method,
        start=experiment.transplant(experiment.initialize(config, evaluated), weights),
        epochs=epochs,
        batch_size=section.batch_size,
        optimizer=experiment.keywords(section.optimizer),
        evaluator=evaluate.Evaluator(evaluated, config.evaluation_batch_size, config.metric),
    )


def _weights(config, baseline):
    """The weights that the second phase begins with: the baseline's at B-CL, or as configured."""
    best, section = selection.Best(baseline.folder), config.baseline
    best.require_end(baseline.epochs)
    return best.variables(best.step(section.weights_checkpoint, section.cam), baseline.start)


def _begin(phase, transform, checkpoints, validation):
    """The state and memory of the newest checkpoint, or of step 0, which is judged and saved."""
    params, batch_stats = phase.start["params"], phase.start.get("batch_stats", {})
    state = jax.device_get(State(np.int32(0), params, batch_stats, transform.init(params)))
    step = checkpoints.latest()
    if step is not None:
        logging.info("%s: going on from step %d", phase.title, step)
        memory = selection.Memory(**checkpoints.memory(step))
        memory.keep_best_of(checkpoints.steps())
        return checkpoints.restore(step, state), memory
    state, memory = parallel.of_first(state), selection.Memory()
    validation.judge(phase.evaluator.place(variables_of(state)), memory, step=0)
    checkpoints.save(0, state, memory.to_dict(), memory.best_steps())
    return state, memory


def _batches(phase, config, data, start):
    """This host's rows of the training batches from step `start`, with the images' CAMs."""
    hosts = (jax.process_index(), jax.process_count())
    for batch in data.train.shuffled(phase.batch_size, seed=config.seed, start=start, hosts=hosts):
        yield batch if phase.cams is None else {**batch, "cam": phase.cams[batch["index"]]}


def _finite(losses, step, checkpoints):
    losses = {name: float(value) for name, value in losses.items()}
    if not math.isfinite(losses["total"]):
        message = f"the loss is {losses['total']} at step {step} ({losses})"
        raise _diverged(message, step - 1, checkpoints)
    return losses


def _judged(validation, variables, memory, step, checkpoints):
    """Whether a state is the best by some criterion; FloatingPointError where it has diverged."""
    try:
        return validation.judge(variables, memory, step)
    except FloatingPointError as error:
        raise _diverged(f"{error} after step {step}", step, checkpoints) from error


def _stop_if_asked(termination, step):
    """Ends the command, whose state is saved, if any of its processes was asked to."""
    if any(parallel.gather(termination.why() != "")):
        why = termination.why() or "asked of another process"
        logging.warning("%s: saved step %d; the same command goes on from here", why, step)
        raise SystemExit(0)


def _diverged(message, step, checkpoints):
    """The error of the state after `step`, once what was held before it is saved."""
    checkpoints.write_held()
    newest = checkpoints.latest()
    good = f"the last good checkpoint is step {newest}"
    if newest == step:
        good = f"the newest checkpoint, step {newest}, has diverged already"
    return FloatingPointError(
        f"{message}; {good}. A lower --config.optimizer.learning_rate, in another --workdir, "
        "usually mends this"
    )
