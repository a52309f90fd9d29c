"""Out of distribution: a run's models on the test images of another data set, trained no further.

Classes are those of the same number: 0 stands for benign and normal, 1 for malignant and
metastatic (PixelCAM, tables 3, 5 and 13).
"""

import logging
import pathlib
from typing import Any

from wsol_jax import evaluate, experiment, files, identity, logbook, run_files, trained
from wsol_jax.data import sources, splits


def list_target(target: Any) -> dict[str, splits.Listing]:
    """Names and labels of the test images of other data, without reading a picture."""
    return {"test": sources.list_split(split="test", **experiment.keywords(target))}


def open_target(config: Any, target: Any) -> splits.Split:
    """The test split of other data, at the size that the run of `config` sees.

    Args:
      target: section `data` of a config.

    Raises:
      ValueError: it has classes that the run does not know.
    """
    shifted = config.copy_and_resolve_references()
    with shifted.unlocked():
        shifted.data = target
    split = experiment.open_split(shifted, "test")
    if split.labels.max() >= config.num_classes:
        raise ValueError(
            f"the test images of {target.name} have labels up to {split.labels.max()}; expected "
            f"those of the {config.num_classes} classes of {config.name}"
        )
    return split


def path(workdir: pathlib.Path, target: Any) -> pathlib.Path:
    """Where a run's scores on other data are, on some of their test patches, or on a folder's."""
    part = target.get("test_patches")
    if target.name == "folder":
        part = pathlib.Path(target.folder).resolve().name
    return workdir / (f"on_{target.name}_{part}.json" if part else f"on_{target.name}.json")


def run(config: Any, workdir: pathlib.Path, target: Any, split: splits.Split) -> dict[str, Any]:
    """Scores every map of a finished run on other images, and writes them to `path`.

    Maps are of the images' true class, at the checkpoint that the papers report.

    Args:
      target: section `data` of a config.
      split: its test images, see `open_target`.

    Raises:
      FileExistsError: the scores on another folder of the same name are there; or see
        `trained.phases`, as for FileNotFoundError.
    """
    file, images = path(workdir, target), identity.fingerprint({"test": split})
    if target.name == "folder":
        known = run_files.read_json(file).get("fingerprint", images)
        if known != images:
            raise FileExistsError(
                f"{file} holds scores on other images (fingerprint {known}, not {images}); move "
                "it away, or give the folder of these images another name"
            )
    logging.info("%s on the %d test images of %s", workdir, split.size, target.name)
    found = {}
    for phase in trained.phases(config, workdir):
        (scores,) = phase.scores(split)
        tested = {m: {"test": evaluate.summarize(s, m, None)} for m, s in scores.items()}
        maps = {m: {phase.checkpoint: results} for m, results in tested.items()}
        found[phase.title] = {"maps": maps}
    facts = {"data": target.name, "fingerprint": images, "record": logbook.record()}
    files.write_json(file, {**facts, "phases": found})
    return {**facts, "phases": found}
