"""Small models and batches for the tests: every method, seconds on a laptop."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from wsol_jax import experiment, heads, method, optimizer, train
from wsol_jax.backbones import double_conv, resnet, vit, weights
from wsol_jax.data import memory, splits

BATCH, RAW, SIZE = 16, 40, 32
SPLITS = {"train": 8, "valcl": 6, "valpx": 2, "test": 5}
METHODS = {
    "classifier": {"readouts": ("cam", "grad_cam", "grad_cam_pp", "layer_cam"), "dropout": 0.1},
    "pixelcam": {"pixel_head": "multi_layer", "foreground": 3, "background": 3, "dropout": 0.1},
    "negev": {"channels": (8, 8, 4), "dilation": 3, "negatives": "background", "size_weight": 0.1},
    "sat": {},
    "unet": {"channels": (8, 8, 4)},
    "maxmin": {"normalize": "batch", "background_weight": 0.1},
    "maxmin_camelyon16": {"modalities": 2},
    "pn": {"penalty_weight": 0.1},
    "erase": {"rounds": 2},
}
MAXMIN = ("maxmin", "maxmin_camelyon16")
DICE = (*MAXMIN, "pn", "erase")  # on WILDCAT, and judged by Dice
WILDCAT = {"name": "wildcat", "modalities": 3, "dropout": 0.1, "background_row": False}
FRESH = {"bias": 0, "scale": 1, "mean": 0, "var": 1, "sigma": 0.15}  # values of fresh variables
SHALLOW = (1, 1, 0, 0)  # blocks of a ResNet: its last two layers are the second one's features


def small_method(name: str, axis: str | None = None, **keywords) -> method.Method:
    """A method on a ResNet of two stages' width, or on a transformer of four blocks."""
    encoder = resnet.ResNet(SHALLOW, bottleneck=True, width=8, axis_name=axis)
    if name == "sat":
        encoder = vit.ViT(width=16, heads=2, depth=4, patch=8, grid=(4, 4), location=True)
    return _method(name, encoder, keywords)


def tiny_method(name: str, axis: str | None = None, **keywords) -> method.Method:
    """A method on an encoder of four convolutions."""
    return _method(name, double_conv.Pyramid((4, 8), axis_name=axis), keywords)


def _method(name, encoder, keywords):
    head = {"sat": {"name": "conv_gap"}}.get(name, WILDCAT if name in DICE else {"name": "wgap"})
    pooling = heads.build(num_classes=2, **head)
    return method.build(name, encoder, pooling, **{**METHODS[name], **keywords})


def transform(built: method.Method | None = None, **options):
    """SGD as in training."""
    return optimizer.sgd(
        learning_rate=0.01,
        steps_per_epoch=2,
        decay_epochs=(1,),
        fast=("head", "pixel_head"),
        frozen=built.frozen if built else (),
        **options,
    )


def begin(built: method.Method) -> train.State:
    """A fresh state."""
    return state_of(built, initialize(built))


def state_of(built: method.Method, variables: dict) -> train.State:
    """The state that training begins with, at some variables."""
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    return train.State(jnp.int32(0), params, stats, transform(built).init(params))


def shapes(built: method.Method, size: int = SIZE) -> dict:
    """Shapes of the variables, without values."""
    return _shapes(built.model, size)


@functools.cache
def _shapes(model, size):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))


def initialize(built: method.Method, size: int = SIZE) -> dict:
    """Fresh variables, drawn by NumPy: nothing is compiled."""
    rng = np.random.default_rng(0)
    return jax.tree.map_with_path(
        lambda path, leaf: _fresh(path[-1].key, leaf, rng), shapes(built, size)
    )


def _fresh(name, leaf, rng):
    if name in FRESH:
        return jnp.full(leaf.shape, FRESH[name], leaf.dtype)
    fan_in = math.prod(leaf.shape[:-1])
    return jnp.asarray(rng.normal(0, math.sqrt(2 / fan_in), leaf.shape), leaf.dtype)


def batch(number: int) -> dict[str, np.ndarray]:
    """A random batch, with CAMs; one row of it is padding."""
    rng = np.random.default_rng(number)
    return {
        "image": rng.integers(0, 256, (BATCH, RAW, RAW, 3), np.uint8),
        "mask": rng.integers(0, 2, (BATCH, RAW, RAW), np.uint8),
        "label": rng.integers(0, 2, BATCH).astype(np.int32),
        "index": np.arange(BATCH, dtype=np.int32),
        "valid": np.arange(BATCH) < BATCH - 1,
        "cam": rng.random((BATCH, 4, 4)).astype(np.float16),
    }


def small_config(method_name: str = "pixelcam"):
    """A config of seconds: two epochs of each phase on eight images."""
    config = common.base("small")
    config.data = {"name": "squares"}
    config.resize, config.image_size = RAW, SIZE
    config.backbone = {"name": "resnet18", "width": 8, "blocks": SHALLOW}
    config.weights.source = ""
    config.method = {"name": method_name, **METHODS[method_name]}
    if method_name == "sat":
        size = {"width": 16, "heads": 2, "depth": 4, "patch": 8, "grid": (4, 4)}
        config.backbone = {"name": "deit_tiny_patch16_224", "location": True, **size}
        config.head = {"name": "conv_gap"}
    if method_name == "unet":
        config.head = None
    if method_name in DICE:
        config.head, config.metric = WILDCAT, "dice"
    config.optimizer = {"learning_rate": 0.01, "decay_epochs": (1,)}
    config.epochs, config.batch_size, config.evaluation_batch_size = 2, 4, 8
    return config


def two_phases(method_name: str = "pixelcam"):
    """The same with a baseline before it."""
    return common.with_baseline(small_config(method_name), "layer_cam")


def tiny_phases():
    """Two phases of an encoder of four convolutions, judged by Dice: what compiles in seconds."""
    config = small_config()
    config.backbone = {"name": "double_conv", "widths": (4, 8)}
    config.method, config.metric = {"name": "pixelcam"}, "dice"
    common.with_baseline(config, "cam")
    config.baseline.method.readouts = ("cam",)
    return config


def encoder_tensors(config) -> dict[str, np.ndarray]:
    """A checkpoint of a config's encoder, in PyTorch's names and layouts."""
    built, rng = experiment.build(config, config.method), np.random.default_rng(0)
    tensors = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(experiment.zeros(config, built))[0]:
        kind, module, *names = (key.key for key in path)
        if module == "encoder":
            values = rng.uniform(0.5, 1, leaf.shape).astype(np.float32)
            order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, range(leaf.ndim))
            tensors[weights.torch_name((kind, *names))] = values.transpose(order)
    return tensors


def small_data(config=None) -> experiment.Data:
    """Splits of noise with a bright square as the object; its colour is the class."""
    del config
    splits = {name: squares(n, seed) for seed, (name, n) in enumerate(SPLITS.items())}
    return experiment.Data(
        train=split_of(splits["train"], RAW),
        seen=split_of(splits["train"], SIZE),
        **{name: split_of(splits[name], SIZE) for name in ("valcl", "valpx", "test")},
    )


def squares(count: int, seed: int) -> dict[str, np.ndarray]:
    """Images (n RAW RAW 3) with one square each, masks and labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, RAW, RAW, 3)).astype(np.uint8)
    masks = np.zeros((count, RAW, RAW), np.uint8)
    labels = (np.arange(count) % 2).astype(np.int32)
    for image, mask, label in zip(images, masks, labels, strict=True):
        row, column = rng.integers(0, RAW // 2, 2)
        image[row : row + 20, column : column + 20, label] = 255
        mask[row : row + 20, column : column + 20] = 1
    return {"image": images, "mask": masks, "label": labels}


def split_of(arrays: dict[str, np.ndarray], size: int) -> splits.Split:
    """A split over arrays, cut to `size`."""
    names = tuple(f"square_{i}" for i in range(len(arrays["label"])))
    pictures = zip(
        *(list(arrays[name][:, :size, :size]) for name in ("image", "mask")), strict=True
    )
    return memory.serve(names, arrays["label"], pictures, window=len(names))
