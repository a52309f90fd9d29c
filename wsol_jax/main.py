"""Command line: train, evaluate, predict with, report on, or embed the pixels of one run.

python -m wsol_jax.main --config=configs/pixelcam_glas.py
python -m wsol_jax.main --mode=predict --workdir=runs/pixelcam_glas --images=FOLDER
srun python -m wsol_jax.main --distributed --config=configs/pixelcam_glas.py
"""

import importlib.util
import json
import logging
import os
import pathlib

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from wsol_jax import cpu, distributed

MODES = ("train", "evaluate", "predict", "report", "embed")
ALONE = ("predict", "report", "embed")  # modes that one process does

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(), see configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run (default: runs/<config name>).")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_IMAGES = flags.DEFINE_string("images", None, "predict: folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "predict: folder to write (default: in the workdir).")
_IMAGE = flags.DEFINE_string("image", None, "embed: test image (default: the first with objects).")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "predict: last, b_cl or b_loc, which is usual.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One run over the processes of a TPU pod, SLURM or Kubernetes."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Plain machines: HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Plain machines: number of processes.")
_PROCESS = flags.DEFINE_integer("process", None, "Plain machines: which of them this is, from 0.")


def main(argv: list[str]) -> None:
    """Dispatches to the modules that do the work."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; every option is --name=value")
    _set_up()
    config, workdir = _run()
    # After TensorFlow has been kept off the devices.
    from wsol_jax import embedding, parallel, predict, report, train

    if _MODE.value in ("train", "evaluate"):
        train.run(config, workdir, train=_MODE.value == "train")
    if _MODE.value == "predict":
        if not _IMAGES.value:
            raise app.UsageError("--mode=predict needs --images=FOLDER")
        output = pathlib.Path(_OUTPUT.value or workdir / "predictions")
        predict.run(config, workdir, pathlib.Path(_IMAGES.value), output, _CHECKPOINT.value)
    elif _MODE.value == "embed":
        logging.info("embedding: %s", embedding.run(config, workdir, _IMAGE.value))
    elif jax.process_index() == 0:
        logging.info("report: %s", report.write(workdir))
    parallel.gather(True)  # no process leaves, and so ends the run, before the report is written


def _run():
    """The config and the folder of the run; a run that exists knows its config."""
    if _CONFIG.value is None and _WORKDIR.value is None:
        raise app.UsageError(
            "pass --config=configs/NAME.py, or --workdir=FOLDER of an existing run"
        )
    if _CONFIG.value is not None:
        workdir = pathlib.Path(_WORKDIR.value or pathlib.Path("runs") / _CONFIG.value.name)
        return _CONFIG.value, workdir
    workdir = pathlib.Path(_WORKDIR.value)
    path = workdir / "config.json"
    if not path.is_file():
        raise app.UsageError(f"{path} does not exist, so {workdir} is not a run; pass --config too")
    return ml_collections.ConfigDict(json.loads(path.read_text())), workdir


def _set_up():
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    for talkative in ("absl", "jax"):  # of every file that Orbax writes, of platforms not there
        logging.getLogger(talkative).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    _join()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # which TensorFlow would announce
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # a resumed run need not compile again
        cache = pathlib.Path.home() / ".cache" / "wsol_jax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if jax.default_backend() == "cpu":
        cpu.keep_memory()
    elif importlib.util.find_spec("tensorflow"):
        import tensorflow

        tensorflow.config.set_visible_devices([], "GPU")
        tensorflow.config.set_visible_devices([], "TPU")
    logging.info("%d x %s", jax.device_count(), jax.devices()[0].device_kind)


def _join():
    several = _DISTRIBUTED.value or _PROCESSES.value is not None
    if several and _MODE.value in ALONE:
        raise app.UsageError(f"--mode={_MODE.value} is done by one process; start just one")
    plain = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    distributed.join(*plain, cluster=_DISTRIBUTED.value)
    if several:
        logging.info("process %d of %d", jax.process_index(), jax.process_count())
    if jax.process_index() > 0:  # what all of them know, the first one tells
        logging.getLogger().setLevel(logging.WARNING)


if __name__ == "__main__":
    app.run(main)
