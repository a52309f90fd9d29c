"""Published weights for the encoder of a run: loaded, checked, and fitted to its images."""

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsol_jax import augment, experiment
from wsol_jax.backbones import weights
from wsol_jax.data import splits
from wsol_jax.method import Method

RECALIBRATION_BATCH = 16
IMAGE_SIZE = 224  # of the published checkpoints; a multiple of every transformer's patch


def encoder(config: Any, built: Method, seen: splits.Split) -> tuple[dict, dict]:
    """The encoder's pretrained variables as {"params": {"encoder": ...}, ...}, and their record.

    Nothing, where `config.weights.source` is empty. Of a checkpoint with folded BatchNorm the
    statistics are taken from the training images, unless `config.weights.recalibrate` is False.

    Args:
      seen: the training images as they are evaluated.

    Raises:
      FileNotFoundError, ValueError: see `weights.load`; or the checkpoint does not fit the encoder.
    """
    options = experiment.keywords(config.weights)
    source, recalibrate = options.pop("source"), options.pop("recalibrate")
    if not source:
        return {}, {"source": None, "note": "random initial weights"}
    backbone, tensors = experiment.BACKBONES[config.backbone.name], weights.load(source)
    name, digest = pathlib.PurePath(source).name, weights.digest(tensors)
    for kernel in options["allow_missing"]:  # of a folded normalisation: made for it alone
        bias = f"{kernel.removesuffix('weight')}bias"
        if bias in tensors:
            tensors[bias] = np.zeros_like(tensors[bias])
    fresh = experiment.initialize(config, built)
    found = {kind: tree["encoder"] for kind, tree in fresh.items() if "encoder" in tree}
    missing = (*backbone.new, *options["allow_missing"])
    renamed = backbone.renamed(tensors)
    try:
        found = weights.assign(found, renamed, extra=backbone.extra, allow_missing=missing)
    except ValueError as error:
        others = fitting(tensors)
        raise ValueError(
            f"the checkpoint {source} does not fit the backbone {config.backbone.name!r}"
            f"{f' (it fits {others})' if others else ''}, see --config.backbone.name= and "
            f"--config.weights.source=; {error}"
        ) from error
    _warn_of_others(config, weights.described(source))
    folded = weights.is_folded(found)
    facts = {"source": name, "digest": digest, "folded": folded, **options}
    if folded and recalibrate:
        logging.info("folded BatchNorm: taking its statistics from the training images")
        found = _recalibrated(built, found, seen)
        facts["recalibrated"] = "one pass over the training images"
    return jax.device_get({kind: {"encoder": tree} for kind, tree in found.items()}), facts


def fitting(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The backbones that a checkpoint fits, with the settings that their names have."""
    image = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3))
    found = []
    for name, backbone in experiment.BACKBONES.items():
        fresh = jax.eval_shape(backbone.make().init, jax.random.key(0), image)
        options = {"extra": backbone.extra, "allow_missing": backbone.new}
        if not weights.mismatches(fresh, backbone.renamed(tensors), **options):
            found.append(name)
    return found


def _recalibrated(built, variables, split):
    """The encoder's variables, folded BatchNorm with the statistics of the images of a split."""
    images = (
        augment.eval_view(batch, **built.normalization)["image"][: batch["valid"].sum()]
        for batch in split.ordered(RECALIBRATION_BATCH)
    )
    return weights.recalibrate(built.model.encoder, variables, images)


def _warn_of_others(config, said):
    """Of a checkpoint that fits, but is of another architecture or another input, by its makers."""
    source, name = config.weights.source, config.backbone.name
    if said.get("architecture", name) != name:
        logging.warning(
            "%s is a %s, which has the tensors of a %s and may compute something else",
            *(source, said["architecture"], name),
        )
    given = {key: [*config.weights[key]] for key in ("mean", "std")}
    wanted = {key: said.get(key, value) for key, value in given.items()}
    if name != "inception_v3" and wanted != given:  # its papers take ImageNet's all the same
        logging.warning(
            "%s is of images of another mean and deviation; it expects --config.weights.mean='%s' "
            "--config.weights.std='%s', and has %s and %s",
            *(source, *(tuple(wanted[key]) for key in wanted), *(tuple(given[k]) for k in given)),
        )
