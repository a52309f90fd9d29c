"""Command line: train a run or a table of runs, and what can be done with a finished one.

python -m wsol_jax.main --config=configs/pixelcam_glas.py
python -m wsol_jax.main --mode=report --config=configs/paper/table01.py
python -m wsol_jax.main --mode=predict --workdir=runs/pixelcam_glas --images=FOLDER
python -m wsol_jax.main --mode=predict_slides --workdir=RUN --images=SLIDES --field=MICRONS
srun python -m wsol_jax.main --distributed --config=configs/pixelcam_glas.py
"""

import importlib.util
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

import jax
from absl import app, flags
from ml_collections import config_flags

from wsol_jax import (
    arguments,
    cpu,
    distributed,
    embedding,
    evaluate_maps,
    experiment,
    identity,
    parallel,
    predict,
    report,
    slide_maps,
    stain_shift,
    train,
    transfer,
)
from wsol_jax.papers import costs, tables


class Mode(NamedTuple):
    """What `--mode` does; `needs` names flags that it cannot do without, `takes` its other ones."""

    run: Callable[[], None]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    shared: bool = False  # by several processes


def _train():
    config, workdir = _run()
    train.run(config, workdir, train=_MODE.value == "train")
    _write_report(workdir)


def _report():
    config, workdir = _run()
    if "rounds" in config:
        costs.run(config, workdir)
    elif "cells" in config:
        tables.run(config, workdir)
    else:
        _write_report(workdir)


def _predict():
    config, workdir = _run()
    output = pathlib.Path(_OUTPUT.value or workdir / "predictions")
    predict.run(config, workdir, pathlib.Path(_IMAGES.value), output, _CHECKPOINT.value)


def _predict_slides():
    config, workdir = _run()
    output = pathlib.Path(_OUTPUT.value or workdir / "slides")
    given = {"field": _FIELD.value, "mpp": _MPP.value, "checkpoint": _CHECKPOINT.value}
    slide_maps.run(config, workdir, pathlib.Path(_IMAGES.value), output, **given)


def _transfer():
    _require_row(_CONFIG.value)
    workdir = _folder()
    target, config = _CONFIG.value.data, _config_of(workdir)
    transfer.run(config, workdir, target, transfer.open_target(config, target))
    logging.info("scores: %s", transfer.path(workdir, target))


def _stain_shift():
    config, workdir = _run()
    images = pathlib.Path(_IMAGES.value)
    stain_shift.run(config, workdir, images, _STYLES.value, _RESTAINING.value)
    _write_report(workdir)


def _embed():
    config, workdir = _run()
    embedding.run(config, workdir, _IMAGE.value)
    _write_report(workdir)


def _evaluate_maps():
    maps, masks = pathlib.Path(_MAPS.value), pathlib.Path(_MASKS.value)
    against = pathlib.Path(_AGAINST.value) if _AGAINST.value else None
    evaluate_maps.run(maps, masks, pathlib.Path(_OUTPUT.value or maps), against)


MODES = {
    "train": Mode(_train, shared=True),
    "evaluate": Mode(_train, shared=True),
    "report": Mode(_report),
    "predict": Mode(_predict, ("images",), ("output", "checkpoint")),
    "predict_slides": Mode(_predict_slides, ("images", "field"), ("output", "checkpoint", "mpp")),
    "transfer": Mode(_transfer, ("workdir", "config")),
    "stain_shift": Mode(_stain_shift, ("images",), ("styles", "restaining")),
    "embed": Mode(_embed, takes=("image",)),
    "evaluate_maps": Mode(_evaluate_maps, ("maps", "masks"), ("output", "against")),
}
COMMON = ("workdir", "config")  # flags that are not of some modes alone

KINDS = {"config": "FILE", "field": "MICRONS"}  # of what a flag names, if not a folder

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(), see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run (default: runs/<config name>).")
_MODE = flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
_IMAGES = flags.DEFINE_string(
    "images", None, "predict, stain_shift: folder of images; predict_slides: of slides."
)
_FIELD = flags.DEFINE_float(
    "field",
    None,
    "predict_slides: microns along an image, its shorter side, of the data trained on.",
)
_MPP = flags.DEFINE_float(
    "mpp", None, "predict_slides: microns along a level-0 pixel of slides that do not say so."
)
_IMAGE = flags.DEFINE_list("image", [], "embed: test images (default: the first with objects).")
_MAPS = flags.DEFINE_string("maps", None, "evaluate_maps: folder of heat maps.")
_MASKS = flags.DEFINE_string("masks", None, "evaluate_maps: folder of their masks.")
_AGAINST = flags.DEFINE_string("against", None, "evaluate_maps: folder of maps to compare with.")
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "predict, predict_slides, evaluate_maps: folder to write (default: in the workdir, or --maps).",
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "",
    "predict, predict_slides: last, b_cl or b_loc (default: the one that is reported).",
)
_STYLES = flags.DEFINE_integer("styles", 10, "stain_shift: how many to take of the images.", 1)
_RESTAINING = flags.DEFINE_enum(
    "restaining", "macenko", ("macenko", "reinhard"), "stain_shift: how images are given a style."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One run over the processes of a TPU pod, SLURM or Kubernetes."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Plain machines: HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Plain machines: number of processes.")
_PROCESS = flags.DEFINE_integer("process", None, "Plain machines: which of them this is, from 0.")


def main(argv: list[str]) -> None:
    """Does what `--mode` says."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; every option is --name=value")
    mode = MODES[_MODE.value]
    _require_used(mode)
    if any(flags.FLAGS[name].value is None for name in mode.needs):
        needed = " and ".join(f"--{name}={KINDS.get(name, 'FOLDER')}" for name in mode.needs)
        raise app.UsageError(f"--mode={_MODE.value} needs {needed}")
    _set_up(mode)
    mode.run()


def _require_used(mode):
    """Refuses flags of other modes, which would do nothing."""
    users = {}
    for name, other in MODES.items():
        for flag in (*other.needs, *other.takes):
            users.setdefault(flag, []).append(name)
    own = {*COMMON, *mode.needs, *mode.takes}
    for flag in users.keys() - own:
        if flags.FLAGS[flag].present:
            raise app.UsageError(
                f"--{flag} does nothing in --mode={_MODE.value}; it is of {', '.join(users[flag])}"
            )


def _run():
    """The config and the folder of the run; a run that exists knows its config."""
    if _CONFIG.value is None and _WORKDIR.value is None:
        raise app.UsageError(
            "pass --config=configs/NAME.py, or --workdir=FOLDER of an existing run"
        )
    if _CONFIG.value is None:
        return _config_of(_folder()), _folder()
    _require_row(_CONFIG.value)
    workdir = _folder(f"runs/{_CONFIG.value.name}")
    if "cells" not in _CONFIG.value:  # a run is used with the config that it was trained with
        identity.check_config(workdir, _CONFIG.value)
    return _CONFIG.value, workdir


def _folder(usual=None):
    """The folder that --workdir names."""
    given = _WORKDIR.value or usual
    if "://" in given:
        raise app.UsageError(
            f"--workdir={given} is an address; expected a folder, on a disk or of a mounted "
            "bucket that can rename folders (of gcsfuse's those with a hierarchical namespace)"
        )
    return pathlib.Path(given)


def _config_of(workdir):
    try:
        return experiment.stored_config(workdir)
    except FileNotFoundError as error:
        raise app.UsageError(f"{error}; pass --config too") from error


def _require_row(config):
    """A config is of a run or, for `--mode=report` alone, of a whole table."""
    if "cells" in config and _MODE.value != "report":
        file = config.name.removesuffix("/short")
        _, own, one = config.cells[0].run.name.rpartition(f"{file}/")
        row = f", or one of its rows, such as --config=configs/{file}.py:{one}" if own else ""
        raise app.UsageError(f"configs/{file}.py is a whole table: pass --mode=report{row}")


def _write_report(workdir):
    if jax.process_index() == 0:
        logging.info("report: %s", report.write(workdir))
    parallel.wait_for_all()  # no process leaves, and so ends the run, before the report is written


def _set_up(mode):
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax, of every file, and that saving waits
    logging.getLogger("jax").setLevel(logging.WARNING)  # of platforms that are not there
    logging.captureWarnings(True)
    if cpu.expected():
        cpu.keep_memory()
    _join(mode)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # which TensorFlow would announce
    # A resumed run need not compile again. But the GPUs of several processes share what they find
    # out in compiling, and would wait for one whose cache spares it that: none of these has one.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and jax.process_count() == 1:
        cache = pathlib.Path.home() / ".cache" / "wsol_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if jax.default_backend() != "cpu" and importlib.util.find_spec("tensorflow"):
        import tensorflow

        tensorflow.config.set_visible_devices([], "GPU")
        tensorflow.config.set_visible_devices([], "TPU")
    logging.info("%d x %s", jax.device_count(), jax.devices()[0].device_kind)


def _join(mode):
    several = _DISTRIBUTED.value or _PROCESSES.value is not None
    if several and not mode.shared:
        raise app.UsageError(f"--mode={_MODE.value} is done by one process; start just one")
    plain = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    distributed.join(*plain, cluster=_DISTRIBUTED.value)
    if several:
        parallel.wait_for_all()  # they connect now, within a minute; later they wait for any time
        logging.info("process %d of %d", jax.process_index(), jax.process_count())
    if jax.process_index() > 0:  # what all of them know, the first one tells
        logging.getLogger().setLevel(logging.WARNING)


def _command():
    """Runs `main`; of an error that this package raises itself its message alone is shown."""
    try:
        arguments.check(sys.argv[1:])
        app.run(main)
    except (OSError, ValueError, ImportError, FloatingPointError) as error:
        raised = traceback.extract_tb(error.__traceback__)[-1].filename
        if not pathlib.Path(raised).is_relative_to(pathlib.Path(__file__).parent):
            raise
        sys.exit(f"wsol_jax: {error}")


if __name__ == "__main__":
    _command()
