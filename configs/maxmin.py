"""Blocks of the max-min paper's configs: its inputs, its encoders, its schedules, and its rows.

Belharbi et al., "Deep Interpretable Classification and Weakly-Supervised Segmentation of Histology
Images via Max-Min Uncertainty", IEEE TMI 2022. Inputs, normalisation and metric differ from those
of PixelCAM, and the numbers are not to be compared with its.
"""

from ml_collections import ConfigDict

from configs import common, tables

# Converted from http://sceneparsing.csail.mit.edu/model/pretrained_resnet/resnet18-imagenet.pth
DEEP_STEM = "weights/resnet18_deep_stem.safetensors"
PLAIN = "timm/resnet18.tv_in1k"
DATA = ("glas", "camelyon16")
MAXMIN = ("eem", "sem")
READOUTS = {  # row -> head and read-out
    "cam_avg": ({"name": "wgap"}, "cam"),
    "cam_max": ({"name": "max"}, "cam"),
    "cam_lse": ({"name": "lse"}, "cam"),
    "grad_cam": ({"name": "wgap"}, "grad_cam"),
    "wildcat": ({"name": "wildcat", "modalities": 4, "kmax": 0.1, "kmin": 0.1}, "cam"),
    "deep_mil": ({"name": "deep_mil", "gated": False}, "deep_mil"),
}
ROWS = (*MAXMIN, "pn", "erase", *READOUTS, "unet")
WILDCAT = {  # of the localizer and of the classifier
    "glas": {"modalities": 5, "kmax": 0.3, "kmin": 0.0, "alpha": 0.0, "dropout": 0.1},
    "camelyon16": {"modalities": 4, "kmax": 0.1, "kmin": 0.1, "alpha": 0.6},
}
HALF, RAW = ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3)  # mean and deviation of images
BARRIER = {"glas": {}, "camelyon16": {"t": 10.0, "t_growth": 1.1, "t_max": 30.0, "sigma_step": 0.0}}


def table(name: str, data: str, variant: str) -> ConfigDict:
    """Table 1 (GlaS) or 2 (CAMELYON16), or one row's run, see `tables.choose`.

    All-ones is no run, but the floor "all_foreground" of each of the others.
    """

    def make(method, data):
        return None if method == "all_ones" else row(name, data, method)

    options = {"data": (data,), "shorten": short}
    return tables.choose(name, "maxmin.TABLES_1_2", variant, make, **options)


def row(name: str, data: str, method: str) -> ConfigDict:
    """One row of Table 1 (GlaS) or 2 (CAMELYON16)."""
    if data not in DATA or method not in ROWS:
        raise ValueError(
            f"unknown row {data}/{method}; expected DATA/METHOD with DATA in {list(DATA)} and "
            f"METHOD in {list(ROWS)}"
        )
    if method in MAXMIN:
        return maxmin(name, data, background=method)
    if method in ("pn", "erase"):
        return constrained(name, data, method)
    return unet(name, data) if method == "unet" else classifier(name, data, method)


def maxmin(name: str, data: str, **keywords) -> ConfigDict:
    """EEM or SEM, by `background`; other keywords are those of `methods/maxmin.py`.

    On CAMELYON16 the paper's "classification part", which learns ten times as fast, is taken to be
    the classifier of the masked images; the released code has 10 CE of the whole image instead.
    """
    config = base(name, data, deep_stem=True)
    config.published = keywords.get("background") or "foreground"
    config.head = head({"name": "wildcat", **WILDCAT[data], "start": "uniform"})
    config.method = common.method("maxmin", **{**BARRIER[data], **keywords})
    if data == "glas":
        return schedule(config, 80, 4, tuple(range(10, 80, 10)), learning_rate=1e-3, decay=0.9)
    return schedule(config, 20, 8, (10,), learning_rate=1e-3, fast=("classifier",))


def released_camelyon16(name: str) -> ConfigDict:
    """What the released code trains on CAMELYON16, for EEM and SEM alike, with its schedule.

    The classes have WILDCAT's 4 modalities, the mask 5; the lowest scores do not count (alpha 0).
    """
    config = base(name, "camelyon16", deep_stem=True)
    pooling = {**WILDCAT["camelyon16"], "alpha": 0.0}
    config.head = head({"name": "wildcat", **pooling, "start": "uniform"})
    config.method = common.method("maxmin_camelyon16")
    return schedule(config, 20, 4, (10,), learning_rate=1e-3, decay=0.9)


def constrained(name: str, data: str, method: str) -> ConfigDict:
    """PN or ERASE, which share the pooling of EEM and SEM, and a schedule."""
    config = base(name, data, deep_stem=True)
    config.published = method
    small = {"modalities": 1, "use_bias": False} if method == "erase" else {}
    config.head = head({"name": "wildcat", **WILDCAT[data], "start": "uniform", **small})
    config.method = common.method(method, **object_class(data))
    decays = tuple(range(40, 400, 40))
    return schedule(config, 400, 8, decays, learning_rate=1e-3, weight_decay=1e-5)


def classifier(name: str, data: str, method: str) -> ConfigDict:
    """A classifier and the read-out that localizes: the rows of the survey's code.

    There a GlaS epoch was 16 whole batches of the training images, eight times over; its 160 epochs
    are 853 of 3 here. Its images were not brought to a size, and those of CAMELYON16 not cropped;
    here they are as in the other rows. On CAMELYON16 it had a Deep MIL of one attention map and one
    logit; here it has two of each, as on GlaS. It chose checkpoints by the validation loss.
    Its heads began as PyTorch's layers do, those here as Xavier has it, of twice the deviation.
    """
    config = base(name, data)
    config.published = method
    pooling, readout = READOUTS[method]
    config.head = head(pooling)
    keywords = {"readouts": (readout,), "bounded": True, **object_class(data)}
    config.method = common.method("classifier", **keywords)
    _survey(config)
    if data == "glas":
        return schedule(config, 853, 32, (427,), learning_rate=0.01)
    return schedule(config, 20, 8, (10,), learning_rate=1e-3)


def unet(name: str, data: str) -> ConfigDict:
    """The survey's small U-Net, from scratch, with all masks.

    Whether its 960 epochs on GlaS had the training images eight times over, as those of its
    classifiers had, is not said; here they have them once.
    """
    config = base(name, data)
    config.published = "unet"
    config.backbone = common.backbone("double_conv")
    config.weights.source, config.head = "", None
    config.method = common.method("unet")
    _survey(config)
    if data == "glas":
        return schedule(config, 960, 16, (320, 640), learning_rate=0.1)
    return schedule(config, 90, 16, (30, 60), learning_rate=0.1)


def base(name: str, data: str, *, deep_stem: bool = False) -> ConfigDict:
    """Crops of 416² of images whose short side is 432, evaluated whole, judged by Dice.

    CAMELYON16's patches stay at 512² and are turned, and are not normalised.
    """
    config = common.base(name, "resnet18")
    (common.glas if data == "glas" else common.camelyon16)(config)
    config.metric = "dice"
    config.keep_aspect = True
    config.resize, config.image_size = (432 if data == "glas" else 512), 416
    config.backbone.strides = (1, 2, 2, 2)
    config.backbone.stride_in = "conv2"  # of a ResNet-50, should one take its place
    config.backbone.deep_stem = deep_stem
    config.weights.source = DEEP_STEM if deep_stem else PLAIN
    config.weights.mean, config.weights.std = HALF if data == "glas" else RAW
    config.augment.turn = data == "camelyon16"
    config.evaluation_batch_size = 8
    return config


def head(pooling: dict) -> ConfigDict:
    """A pooling head without PixelCAM's unused background row."""
    row = {} if pooling["name"] == "deep_mil" else {"background_row": False}
    return common.head(**row, **pooling)


def object_class(data: str) -> dict:
    """On GlaS glands of either class are the object; on CAMELYON16 the tumour is."""
    return {"object_class": 1} if data == "camelyon16" else {}


def schedule(
    config: ConfigDict, epochs: int, batch_size: int, decay_epochs: tuple[int, ...], **optimizer
) -> ConfigDict:
    """Step decay to 1e-7, one learning rate for all but what is called fast."""
    config.epochs, config.batch_size = epochs, batch_size
    config.optimizer = ConfigDict({"decay_epochs": decay_epochs, "floor": 1e-7, **optimizer})
    return config


def short(config: ConfigDict, epochs: int = 20) -> ConfigDict:
    """The same with `epochs` at batch 4 for a CPU: decays, sigma and t in proportion."""
    config.notes = (
        f"schedule: {epochs} epochs at batch 4, in place of {config.epochs} at "
        f"batch {config.batch_size}",
    )
    scaled = [round(epoch * epochs / config.epochs) for epoch in config.optimizer.decay_epochs]
    config.optimizer.decay_epochs = tuple(scaled)
    if "sigma_step" in config.method:
        config.method.sigma_step *= config.epochs / epochs
    if "t_growth" in config.method:
        config.method.t_growth **= config.epochs / epochs
    config.epochs, config.batch_size = epochs, 4
    return config


def _survey(config):
    """Images turned by quarters, and not normalised, on both data sets."""
    config.augment.turn = True
    config.weights.mean, config.weights.std = RAW
