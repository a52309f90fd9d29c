"""The settings of the papers' rows, against the papers' own words: schedules, pooling, inputs.

Written out here, and not taken from `configs/`, so that a slip there is seen.
"""

import dataclasses
import inspect

import golden_cases
import jax
import jax.numpy as jnp
import pytest

from configs import common, maxmin
from wsol_jax import heads, optimizer
from wsol_jax.backbones import inception, vgg, vit

RAW, HALF = ((0, 0, 0), (1, 1, 1)), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TENS, FORTIES = (10, 20, 30, 40, 50, 60, 70), (40, 80, 120, 160, 200, 240, 280, 320, 360)
GLAS_POOL = {"modalities": 5, "kmax": 0.3, "kmin": 0.0, "alpha": 0.0, "dropout": 0.1}
CAMELYON16_POOL = {"modalities": 4, "kmax": 0.1, "kmin": 0.1, "alpha": 0.6}
ONE = {"modalities": 1, "use_bias": False}  # ERASE's 1,024 weights
SCHEDULES = {  # epochs, batch, learning rate, epochs of decay, factor; the rows of both tables
    ("glas", "eem"): (80, 4, 1e-3, TENS, 0.9),
    ("glas", "pn"): (400, 8, 1e-3, FORTIES, 0.1),
    ("glas", "wildcat"): (853, 32, 0.01, (427,), 0.1),  # 160 epochs of 16 batches, half at 0.01
    ("glas", "unet"): (960, 16, 0.1, (320, 640), 0.1),
    ("camelyon16", "eem"): (20, 8, 1e-3, (10,), 0.1),
    ("camelyon16", "pn"): (400, 8, 1e-3, FORTIES, 0.1),
    ("camelyon16", "wildcat"): (20, 8, 1e-3, (10,), 0.1),
    ("camelyon16", "unet"): (90, 16, 0.1, (30, 60), 0.1),
}
AS = {"sem": "eem", "erase": "pn", **dict.fromkeys(maxmin.READOUTS, "wildcat")}  # one schedule
HEADS = {
    ("glas", "eem"): GLAS_POOL,
    ("glas", "pn"): GLAS_POOL,
    ("glas", "erase"): GLAS_POOL | ONE,
    ("camelyon16", "eem"): CAMELYON16_POOL,
    ("camelyon16", "pn"): CAMELYON16_POOL,
    ("camelyon16", "erase"): CAMELYON16_POOL | ONE,
    **{
        (data, row): head
        for data in maxmin.DATA
        for row, head in {
            "cam_avg": {"name": "wgap"},
            "cam_max": {"name": "max"},
            "cam_lse": {"name": "lse", "sharpness": 10},
            "grad_cam": {"name": "wgap"},
            "wildcat": CAMELYON16_POOL,
            "deep_mil": {"name": "deep_mil", "gated": False},
        }.items()
    },
}


@pytest.mark.parametrize("row", maxmin.ROWS)
@pytest.mark.parametrize("data", maxmin.DATA)
def test_rows_of_max_min(data, row):
    config = maxmin.row("name", data, row)
    told = optimizer_of(config)
    own = (config.epochs, config.batch_size, told["learning_rate"], told["decay_epochs"])
    assert (*own, told["decay"]) == SCHEDULES[data, AS.get(row, row)]
    assert told["floor"] == 1e-7
    assert told["momentum"] == 0.9
    assert told["weight_decay"] == (1e-5 if row in ("pn", "erase") else 1e-4)
    ten_times = row in maxmin.MAXMIN and data == "camelyon16"
    assert told["fast"] == (("classifier",) if ten_times else ())
    survey = row in (*maxmin.READOUTS, "unet")
    raw = survey or data == "camelyon16"
    assert (tuple(config.weights.mean), tuple(config.weights.std)) == (RAW if raw else HALF)
    assert config.augment.turn == raw
    assert (config.resize, config.image_size) == (432 if data == "glas" else 512, 416)
    assert (config.keep_aspect, config.metric) == (True, "dice")
    assert config.backbone.get("deep_stem", False) == (not survey)
    if row == "unet":
        assert config.backbone.name == "double_conv"
        assert config.head is None
        return
    assert config.backbone.strides == (1, 2, 2, 2)
    head = {key: value for key, value in config.head.items() if value is not None}
    expected = HEADS[data, AS[row] if row == "sem" else row]
    known = {**defaults_of(heads.HEADS[head["name"]]), **head}
    assert {key: known[key] for key in expected} == expected
    assert head.get("start", "xavier") == ("xavier" if survey else "uniform")
    if row in maxmin.READOUTS:
        assert config.method.bounded is True
    if row in maxmin.MAXMIN:
        assert config.method.background == row
    else:
        assert config.method.object_class == (1 if data == "camelyon16" else None)


def test_terms_of_max_min():
    """lambda 1e-7, sigma .15 to .2 on GlaS (as released), omega 5, scale .8; t 5 to 10, or 30."""
    glas, camelyon16 = (maxmin.row("name", data, "eem").method for data in maxmin.DATA)
    for method in (glas, camelyon16):
        assert (method.background_weight, method.omega, method.scale) == (1e-7, 5, 0.8)
        assert (method.sigma, method.size) == (0.15, True)
    assert (glas.sigma_step, glas.sigma_max) == (0.001, 0.2)
    assert (glas.t, glas.t_growth, glas.t_max) == (5, 1.01, 10)
    assert camelyon16.sigma_step == 0
    assert (camelyon16.t, camelyon16.t_growth, camelyon16.t_max) == (10, 1.1, 30)
    released = maxmin.released_camelyon16("name")
    assert released.method.name == "maxmin_camelyon16"
    assert (released.method.t, released.method.t_growth, released.method.t_max) == (5, 1.01, 10)
    assert (released.epochs, released.batch_size, released.head.alpha) == (20, 4, 0)
    assert released.optimizer.decay == 0.9
    assert (released.method.modalities, released.head.modalities) == (5, 4)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("glas/layer_cam", (1000, 1e-3, (5, 10, 15, 20), "wgap")),
        ("glas/deep_mil+pixelcam", (1000, 1e-3, (5, 10, 15, 20), "deep_mil")),
        ("camelyon16/layer_cam", (20, 1e-3, (5, 10, 15), "wgap")),
        ("glas/grad_cam_pp+negev", (1000, 0.1, (250, 500, 750), "wgap")),
        ("camelyon16/layer_cam+pixelcam", (20, 1e-3, (2, 4, 6, 8), "wgap")),
        ("camelyon16/grad_cam_pp+pixelcam", (20, 1e-3, (2, 4, 6, 8), "wgap")),
        ("camelyon16/deep_mil+pixelcam", (20, 1e-3, (5, 10, 15), "deep_mil")),
    ],
)
def test_rows_of_pixelcam(variant, expected):
    config = common.row("name", "resnet50", variant)
    told = optimizer_of(config)
    own = (config.epochs, told["learning_rate"], told["decay_epochs"], config.head.name)
    assert own == expected
    assert (config.batch_size, told["decay"], told["floor"]) == (32, 0.1, 1e-6)
    assert (told["momentum"], told["weight_decay"], told["fast_ratio"]) == (0.9, 1e-4, 10)
    assert (config.resize, config.image_size, config.augment.turn) == (256, 224, False)
    camelyon16 = variant.startswith("camelyon16")
    first = config.baseline or config
    assert first.method.dropout == (0.0 if camelyon16 else 0.1)
    assert config.data.get("division") == ("slide_disjoint" if camelyon16 else None)
    if variant.endswith("pixelcam"):
        method = config.method
        assert (method.pixel_weight, method.foreground, method.background) == (1, 5, 5)
        assert (method.sampler, method.fraction) == ("lowest", 0.2)
        assert method.dropout == (0.0 if camelyon16 else 0.1)
        assert method.seed_grid == (28 if camelyon16 else None)
        assert method.negatives == ("background" if camelyon16 else "foreground")
    if variant.endswith("negev"):
        method = config.method
        drawn = (method.sampler, method.foreground, method.background, method.dilation)
        assert drawn == ("probability", 10, 10, 1)


@pytest.mark.parametrize("encoder", ["resnet50", "vgg16", "inception_v3"])
@pytest.mark.parametrize(("data", "rate"), [("glas", 0.1), ("camelyon16", 0.01)])
def test_negevs_decoder_learns_equally_fast_on_every_encoder(encoder, data, rate):
    told = optimizer_of(common.row("name", encoder, f"{data}/layer_cam+negev"))
    fast = any("decoder".startswith(prefix) for prefix in told["fast"])
    assert told["learning_rate"] * told["fast_ratio"] ** fast == pytest.approx(rate)


def test_sat_has_one_learning_rate_and_patches_for_pixels_on_camelyon16():
    for data, grid in (("glas", None), ("camelyon16", 14)):
        config = common.row("name", "resnet50", f"{data}/sat+pixelcam")
        assert config.backbone.name == "deit_tiny_patch16_224"
        assert config.optimizer.fast == ()
        assert config.optimizer.learning_rate == config.baseline.optimizer.learning_rate == 2e-3
        assert (config.method.seed_grid, config.method.dropout) == (grid, 0)
        assert config.method.sat_terms is False
        first = config.baseline.method
        assert (first.name, first.area) == ("sat", 0.35)
        assert config.backbone.drop_path is None
    assert defaults_of(vit.ViT)["drop_path"] == 0.1


@pytest.mark.parametrize(
    ("encoder", "model", "recorded"),
    [
        ("vgg16", vgg.VGG16(), "layercam_vgg16"),
        ("inception_v3", inception.InceptionV3(), "layercam_inceptionv3"),
    ],
)
def test_what_learns_ten_times_as_fast(encoder, model, recorded):
    """ResNet-50's are in `test_golden_training.py`."""
    (case,) = golden_cases.cases("12_")
    params = {
        "encoder": jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))[
            "params"
        ],
        "head": {"linear": {"kernel": jnp.zeros((1024, 3)), "bias": jnp.zeros(3)}},
    }
    labels = jax.tree.leaves(optimizer.groups(params, common.ENCODERS[encoder].fast))
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    for group, expected in zip(("slow", "fast"), case.spec["groups"][recorded], strict=True):
        counted = [n for label, n in zip(labels, sizes, strict=True) if label == group]
        assert (len(counted), sum(counted)) == (expected["n_tensors"], expected["n_params"])


def optimizer_of(config):
    """All that `optimizer.sgd` is told, defaults included."""
    parameters = inspect.signature(optimizer.sgd).parameters.values()
    return {**{p.name: p.default for p in parameters}, **config.optimizer}


def defaults_of(module):
    """The settings that a flax module has where nothing is said, and its name among the heads."""
    names = {kind: name for name, kind in heads.HEADS.items()}
    fields = {field.name: field.default for field in dataclasses.fields(module)}
    return {**fields, "name": names.get(module)}
