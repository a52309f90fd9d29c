"""Blocks that configs share, as plain functions; what a config changes, it assigns visibly."""

from ml_collections import ConfigDict


def base(name: str) -> ConfigDict:
    """What every run has: seed, engine, sizes, and a WGAP head on a stride-8 ResNet-50.

    `baseline` is None for a run of one phase, else a section like the top level's `method`,
    `optimizer`, `epochs` and `batch_size`; see `with_baseline`.
    """
    config = ConfigDict()
    config.name = name
    config.notes = ()
    config.seed = 0
    config.parallel = "jit"
    config.num_classes = 2
    config.resize = 256
    config.image_size = 224
    config.backbone = ConfigDict({"name": "resnet50", "stride_in": "conv2"})
    config.weights = ConfigDict(
        {"source": "timm/resnet50.tv_in1k", "allow_missing": (), "recalibrate": True}
    )
    config.head = ConfigDict({"name": "wgap"})
    config.baseline = None
    config.batch_size = 32
    config.evaluation_batch_size = 64
    return config


def glas(config: ConfigDict, fold: int = 0) -> ConfigDict:
    """The GlaS set, read from a folder with the official files."""
    config.data = ConfigDict(
        {"name": "glas", "source": "memory", "fold": fold, "folder": "data/glas"}
    )
    return config


def released_optimizer() -> ConfigDict:
    """The published GlaS commands: 1e-3, a tenth every 5 epochs, 10x on layer4 and the heads.

    After epoch 20 every group is at the floor of 1e-6.
    """
    return ConfigDict(
        {
            "learning_rate": 1e-3,
            "decay_epochs": (5, 10, 15, 20),
            "fast": ("encoder/layer4", "head", "pixel_head"),
        }
    )


def classifier(*readouts: str) -> ConfigDict:
    """The image classifier and the read-outs that make its maps."""
    return ConfigDict({"name": "classifier", "readouts": readouts, "dropout": 0.1})


def pixelcam() -> ConfigDict:
    """PixelCAM as trained on GlaS: five pixels of each kind, lambda 1."""
    return ConfigDict({"name": "pixelcam", "dropout": 0.1})


def with_baseline(config: ConfigDict, cam: str = "layer_cam") -> ConfigDict:
    """Trains the classifier first: its B-LOC CAMs by the read-out `cam`, its B-CL weights.

    The one classifier is judged by both read-outs of Table 1, so that the runs of both rows can
    share it: `workdir` names a finished run whose classifier is used instead of training one.
    """
    others = [name for name in ("layer_cam", "grad_cam_pp") if name != cam]
    config.baseline = ConfigDict(
        {
            "method": classifier(cam, *others),
            "optimizer": config.optimizer.copy_and_resolve_references(),
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "workdir": "",
            "cam": cam,
            "cam_checkpoint": "b_loc",
            "weights_checkpoint": "b_cl",
        }
    )
    return config


def short(config: ConfigDict) -> ConfigDict:
    """The same run with a schedule that a CPU finishes: 14 epochs a phase at batch 8.

    63 steps at the published learning rate before its first decay, where the published schedule has
    15: what follows there is long, and moves little.
    """
    config.notes = ("schedule: 14 epochs a phase at batch 8, in place of 1000 at batch 32",)
    config.evaluation_batch_size = 8  # a CPU maps few images at a time faster than many
    for phase in (config, config.baseline):
        if phase is not None:
            phase.epochs, phase.batch_size = 14, 8
            phase.optimizer.decay_epochs = (7, 11)
    return config


def named(name: str, variant: str) -> str:
    """Name of a config's variant; that of the usual one is the config's own."""
    return name if variant == "layer_cam" else f"{name}_{variant}"
