"""From a config to its parts: data, method, weights."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from wsol_jax import choices, cpu, heads, method, run_files
from wsol_jax.backbones import double_conv, inception, resnet, vgg, vit
from wsol_jax.data import pictures, sources, splits


class Backbone(NamedTuple):
    """How an encoder is made, and how its published checkpoints differ from it."""

    make: Callable[..., Any]
    extra: tuple[str, ...]  # prefixes of tensors that no encoder has
    new: tuple[str, ...] = ()  # tensors that no checkpoint has
    renamed: Callable[[Mapping], dict] = dict


BACKBONES = {
    "resnet18": Backbone(resnet.resnet18, resnet.EXTRA_TENSORS, renamed=resnet.renamed),
    "resnet50": Backbone(resnet.resnet50, resnet.EXTRA_TENSORS, renamed=resnet.renamed),
    "vgg16": Backbone(vgg.VGG16, vgg.EXTRA_TENSORS, vgg.NEW_TENSORS, vgg.renamed),
    "inception_v3": Backbone(inception.InceptionV3, inception.EXTRA_TENSORS, inception.NEW_TENSORS),
    "double_conv": Backbone(double_conv.Pyramid, ()),
    **{
        name: Backbone(
            functools.partial(vit.build, name), vit.EXTRA_TENSORS, vit.NEW_TENSORS, vit.renamed
        )
        for name in vit.VARIANTS
    },
}
PRECISIONS = ("", "bfloat16", "float32")  # of training; "" is float32 on a CPU, bfloat16 elsewhere


class Data(NamedTuple):
    """The splits of a run: `train` larger than the crop, all others at the size of evaluation.

    `valpx` is None where no validation image has pixel labels.
    """

    train: splits.Split
    seen: splits.Split  # the training images without augmentation
    valcl: splits.Split
    valpx: splits.Split | None
    test: splits.Split


def open_data(config: Any) -> Data:
    """Opens, and so checks, every split before any work is done, see `open_split`."""
    if config.resize < config.image_size:
        raise ValueError(
            f"images resized to {config.resize} pixels are smaller than the crop of "
            f"{config.image_size}; pass --config.resize={config.image_size} or more"
        )
    seen = open_split(config, "train")
    _require_classes(config, "train", seen)
    _require_every_class(config, seen)
    train = open_split(config, "train", cropped=True)
    if config.baseline and config.keep_aspect and "size" in next(train.shuffled(1, seed=0)):
        raise ValueError(
            "the training images differ in shape, and so would the CAMs that the second phase "
            "learns from; expected one shape: pass --config.keep_aspect=False"
        )
    valcl, valpx, test = (open_split(config, name) for name in ("valcl", "valpx", "test"))
    _require_valpx(config, valpx)
    for name, split in (("valcl", valcl), ("valpx", valpx), ("test", test)):
        _require_classes(config, name, split)
    for name, split in (("valpx", valpx), ("test", test)):
        _require_object(config, name, split)
    return Data(train, seen, valcl, valpx, test)


def list_data(config: Any) -> dict[str, splits.Listing | None]:
    """Names and labels of every split that `open_data` opens, without reading a picture."""
    names = ("train", "valcl", "valpx", "test")
    found = {name: sources.list_split(split=name, **keywords(config.data)) for name in names}
    _require_valpx(config, found["valpx"])
    return {name: found.get(name, found["train"]) for name in Data._fields}


def open_split(config: Any, name: str, *, cropped: bool = False) -> splits.Split | None:
    """One split of a config's data, None where the data set has none of that name.

    Images are squares of `config.image_size` or, to be cropped, of `config.resize`. With
    `config.keep_aspect` their short side is `config.resize` for both, and truth is evaluated at its
    own size.
    """
    sizing = pictures.Sizing(config.resize) if cropped else evaluation_sizing(config)
    if config.keep_aspect:
        sizing = sizing._replace(keep_aspect=True, original_mask=not cropped)
    return sources.open_split(split=name, sizing=sizing, **keywords(config.data))


def evaluation_sizing(config: Any) -> pictures.Sizing:
    """How a run evaluates its images: as squares, or by their short side."""
    if config.keep_aspect:
        return pictures.Sizing(config.resize, keep_aspect=True)
    return pictures.Sizing(config.image_size)


def build(
    config: Any, section: Any, axis: str | None = None, *, training: bool = False
) -> method.Method:
    """The method that `section` names, on the config's backbone and head.

    Args:
      section: the part of the config that holds `name` and the keywords of the method.
      axis: devices that share batch statistics, see `parallel.Engine`.
      training: the encoder computes as `config.precision` says: in half precision on an
        accelerator, else in single. Evaluation never is in half, see `parallel.compile_evaluation`.
    """
    backbone = _given(config.backbone)
    name = backbone.pop("name")
    choices.require("backbone", name, BACKBONES)
    choices.require("precision", config.precision, PRECISIONS)
    usual = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    half = training and (config.precision or usual) == "bfloat16"
    dtype = jnp.dtype(jnp.bfloat16) if half else None
    make = BACKBONES[name].make
    choices.require_settings("backbone", name, backbone, make())
    encoder = make(dtype=dtype, axis_name=axis, **backbone)
    head = None
    if config.head:
        head = heads.build(num_classes=config.num_classes, **_given(config.head))
    for key in ("mean", "std"):
        for value in config.weights[key]:
            lowest = {"above": 0} if key == "std" else {}
            choices.require_number(f"weights.{key} (of values in [0, 1])", value, most=1, **lowest)
    built = method.build(encoder=encoder, head=head, **keywords(section))
    return built._replace(mean=tuple(config.weights.mean), std=tuple(config.weights.std))


def settings(backbone: str) -> dict[str, type]:
    """What a config may set of a backbone, see `choices.settings`."""
    choices.require("backbone", backbone, BACKBONES)
    return choices.settings(BACKBONES[backbone].make())


def map_names(section: Any) -> tuple[str, ...]:
    """The maps of the method that `section` names: a classifier's read-outs, else its own name."""
    known = {**method.defaults(section.name), **keywords(section)}
    return known.get("readouts", (section.name,))


def encoder_name(backbone: Any) -> str:
    """What a table calls an encoder, whose weights are in a file of their own."""
    return f"{backbone.name}_deep_stem" if backbone.get("deep_stem") else backbone.name


def stored_config(workdir: pathlib.Path) -> ConfigDict:
    """The config of the run at `workdir`; FileNotFoundError where there is none."""
    known = run_files.read_config(workdir)
    if not known:
        raise FileNotFoundError(f"{workdir} is not a run: there is no config.json in it")
    return ConfigDict(known)


def sections(config: Any) -> dict[str, Any]:
    """The parts of a config that describe its phases, by title, in the order of training."""
    first = {"baseline": config.baseline} if config.baseline else {}
    return {**first, config.method.name: config}


def first_phase(config: Any) -> Any:
    """The config of a run that ends with the first of two phases."""
    first = config.copy_and_resolve_references()
    for key in ("method", "optimizer", "epochs", "batch_size"):
        first[key] = config.baseline[key]
    first.baseline = None
    return first


def initialize(config: Any, built: method.Method) -> dict[str, Any]:
    """Fresh variables of a method, drawn from the config's seed, on the host."""
    return jax.device_get(_init(built.model)(jax.random.key(config.seed), _image(config)))


def zeros(config: Any, built: method.Method) -> dict[str, Any]:
    """Variables like those of `initialize`, for what a checkpoint replaces: nothing is compiled."""
    shapes = jax.eval_shape(built.model.init, jax.random.key(0), _image(config))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def transplant(variables: dict[str, Any], donor: dict[str, Any]) -> dict[str, Any]:
    """`variables` with every module that `donor` has too (encoder, head) taken from it."""
    return {
        k: {**modules, **_common(modules, donor.get(k, {}))} for k, modules in variables.items()
    }


def keywords(section: Any) -> dict[str, Any]:
    """A part of the config as keyword arguments; lists, as JSON has them, become tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in dict(section).items()}


@functools.cache
def _init(model):
    """Compiled once for all that begins with a model."""
    return jax.jit(model.init, compiler_options=cpu.run_once_options())


def _image(config):
    return jnp.zeros((1, config.image_size, config.image_size, 3))


def _require_classes(config, name, split):
    if split is not None and split.labels.max() >= config.num_classes:
        raise ValueError(
            f"the images of {name!r} have labels up to {split.labels.max()}, but num_classes is "
            f"{config.num_classes}; pass --config.num_classes={split.labels.max() + 1}"
        )


def _require_every_class(config, train):
    counts = np.bincount(train.labels, minlength=config.num_classes)
    if 0 in counts:
        raise ValueError(
            f"no training image is of class {np.argmin(counts)}: classes 0 to {len(counts) - 1} "
            f"have {counts.tolist()}; expected images of all {config.num_classes} classes, which "
            "are numbered from 0"
        )


def _require_object(config, name, split):
    """PxAP is not defined without an object, which is reported before training, not after.

    Of one's own images: to look for an object in a large published set may take long.
    """
    if config.metric != "pxap" or config.data.name != "folder" or split is None:
        return
    if splits.is_annotated(split) and not splits.has_object(split):
        raise ValueError(
            f"the masks of the {split.size} images of {name!r} show no object; expected one in "
            "some, or no masks, so that images are not scored by pixels"
        )


def _require_valpx(config, valpx):
    if valpx is None and config.baseline and config.baseline.cam_checkpoint == "b_loc":
        raise ValueError(
            f"{config.data.name} has no pixel-labelled validation images (split 'valpx'), by which "
            "B-LOC is chosen, whose CAMs the second phase learns from; pass "
            "--config.baseline.cam_checkpoint=b_cl to learn from those of B-CL"
        )


def _given(section):
    """Keywords of a part of the config, but for those left as they are, which are None."""
    return {key: value for key, value in keywords(section).items() if value is not None}


def _common(modules, donor):
    return {name: value for name, value in donor.items() if name in modules}
