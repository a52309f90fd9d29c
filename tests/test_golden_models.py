"""Backbones, heads, CAMs and PixelCAM against recorded outputs of the original code."""

import functools

import flax.traverse_util
import golden_cases
import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import close, nchw

from wsol_jax import cams, ops, seeds
from wsol_jax.backbones import weights

LABELS = jnp.array([0, 1])
ZERO = 1e-12  # a bias before a normalisation has no gradient; what is recorded is rounding
READOUTS = {
    "CAM": cams.cam,
    "GradCam": cams.grad_cam,
    "GradCAMpp": cams.grad_cam_pp,
    "LayerCAM": cams.layer_cam,
}
PIXEL_HEADS = {"multiple_layer": "multi_layer", "one_layer": "one_layer"}


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def known(prefix, *parts):
    """The cases of a kind on the backbones and heads that are here."""
    found = [c for c in golden_cases.cases(prefix) if any(p in c.name for p in parts)]
    return pytest.mark.parametrize("case", found, ids=[c.name for c in found])


@functools.cache
def images(dtype="float32"):
    return jnp.asarray(golden_cases.inputs()[0], dtype)


@known("01_", "resnet")
def test_feature_levels(case):
    built = golden_models.ENCODERS[golden_models.encoder_name(case)]()
    fresh = jax.eval_shape(built.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    variables = weights.assign(fresh, case.state())
    levels = jax.jit(built.apply)(variables, images())
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == case.spec["n_params"]
    for number, level in enumerate(levels, start=1):
        close(nchw(level)[case.strides(f"f{number}")], case.arrays[f"f{number}"], 5e-5)
    wide = ops.resize(images()[:1], (256, 192))
    for number, level in enumerate(jax.jit(built.apply)(variables, wide), start=1):
        name = f"hw256x192/f{number}_mean_over_space"
        means = np.mean(nchw(level), axis=(2, 3))
        close(means[case.strides(name)], case.arrays[name], 5e-5)


@known("02_", "_WGAP", "_GAP")
def test_pooling_heads(case):
    if not golden_models.encoder_name(case).startswith("resnet"):
        pytest.skip(f"{case.name}: this backbone is not here yet")
    built = golden_models.build(case, "classifier")
    variables = golden_models.variables(built, case)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == case.spec["n_params"]
    features = jax.jit(functools.partial(built.model.apply, method="encode"))(variables, images())
    score = functools.partial(built.model.apply, variables, method="classify")
    close(score(features), case.arrays["logits"], 5e-5)
    close(nchw(features)[case.strides("features_last")], case.arrays["features_last"], 5e-5)
    close(jnp.mean(features, (1, 2)), case.arrays["lin_ft_gap"], 5e-5)
    for image in range(2):
        for label in range(2):
            stem = f"cam/img{image}/class{label}"
            if f"{stem}/raw" in case.arrays:
                raw = cams.cam(score, features[image : image + 1], jnp.array([label]))
                bias = variables["params"]["head"]["linear"]["bias"][label - 2]
                check_map(case, stem, raw + bias)


@known("02_", "_WGAP", "_GAP")
def test_pooling_heads_in_float64(case):
    if not golden_models.encoder_name(case).startswith("resnet"):
        pytest.skip(f"{case.name}: this backbone is not here yet")
    with jax.enable_x64(True):
        built = golden_models.build(case, "classifier")
        variables = golden_models.variables(built, case, jnp.float64)
        logits = jax.jit(built.model.apply)(variables, float64_images())["logits"]
        close(logits, case.arrays["f64/logits"], 1e-8)


@known("03_", "resnet50")
def test_readouts(case):
    built = golden_models.build(case, "classifier")
    variables = golden_models.variables(built, case)
    features = jax.jit(functools.partial(built.model.apply, method="encode"))(variables, images())
    score = functools.partial(built.model.apply, variables, method="classify")
    for label in range(2):
        classes = jnp.full(2, label)
        gradient = nchw(cams.gradient(score, features, classes))
        for image in range(2):
            name = f"gradient_dYc_dA_img{image}_class{label}"
            if name in case.arrays:
                close(gradient[image][case.strides(name)], case.arrays[name], 2e-4)
        for title, readout in READOUTS.items():
            maps = readout(score, features, classes)
            for image in range(2):
                stem = f"img{image}/{title}/class{label}"
                if title == "CAM":  # the released row belongs to another class; this one is right
                    close(maps[image], case.arrays[f"{stem}/raw_with_plus1_offset"], 2e-4)
                else:
                    check_map(case, stem, maps[image : image + 1])
        published = cams.grad_cam_pp_published(score, features, classes)
        for image in range(2):
            name = f"img{image}/GradCAMpp/class{label}/raw_intended_formula"
            close(published[image], case.arrays[name], 2e-4)


def check_map(case, stem, raw):
    """A raw map, its normalised form, and that resized to the image."""
    close(raw[0], case.arrays[f"{stem}/raw"], 2e-4)
    normalized = ops.min_max(raw)
    assert np.abs(normalized[0] - case.arrays[f"{stem}/normalized"]).max() <= 5e-4
    final = ops.resize_maps(normalized, (224, 224))[0][case.strides(f"{stem}/final224")]
    assert np.abs(final - case.arrays[f"{stem}/final224"]).max() <= 5e-4


def pixelcam(case, dtype=jnp.float32, **keywords):
    """PixelCAM of a recorded case, and its variables."""
    options = case.spec["spec"]["aux"]
    depth = next((PIXEL_HEADS[k] for k in options if k in PIXEL_HEADS), "linear")
    norm = options.get("batch_norm", False)
    built = golden_models.build(
        case, "pixelcam", pixel_head=depth, pixel_batch_norm=norm, **keywords
    )
    return built, golden_models.variables(built, case, dtype)


@known("04_", "resnet50_WGAP")
def test_pixelcam_maps(case):
    built, variables = pixelcam(case)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == case.spec["n_params"]
    outputs = jax.jit(built.model.apply)(variables, images())
    close(outputs["logits"], case.arrays["logits"], 5e-5)
    close(nchw(outputs["pixel_logits"]), case.arrays["pixel_logits"], 5e-5)
    logits, maps = jax.jit(built.localize)(variables, images())
    close(logits, case.arrays["logits"], 5e-5)
    final = ops.resize_maps(maps["pixelcam"], (224, 224))
    for image in range(2):
        stem = f"loc/img{image}"
        low = case.arrays[f"{stem}/softmax_fg_lowres"]
        assert np.abs(maps["pixelcam"][image] - low).max() <= 5e-4
        kept = final[image][case.strides(f"{stem}/final224")]
        assert np.abs(kept - case.arrays[f"{stem}/final224"]).max() <= 5e-4


def drawn(case, grid):
    """The recorded seed pixels of both images, as our seeds."""
    positions = case.arrays[f"seeds/{grid}"]
    targets = case.arrays[f"seeds/{grid}_values"]
    return as_seeds(positions, targets)


def as_seeds(positions, targets, images=2):
    count = max(np.bincount(positions[:, 0], minlength=images))
    points = np.zeros((images, count, 2), np.int32)
    target = np.zeros((images, count), np.int32)
    known = np.zeros((images, count), bool)
    for image in range(images):
        rows = positions[:, 0] == image
        points[image, : rows.sum()] = positions[rows][:, 1:]
        target[image, : rows.sum()] = targets[rows]
        known[image, : rows.sum()] = True
    return seeds.Seeds(jnp.asarray(points), jnp.asarray(target), jnp.asarray(known))


def combine(terms):
    """Total loss and its parts, as a training step forms them."""
    values = {
        name: ratio.total / jnp.maximum(ratio.weight, 1) for name, (_, ratio) in terms.items()
    }
    return sum(weight * values[name] for name, (weight, _) in terms.items()), values


def objective(built, variables, batch, train=False):
    """Total loss, (outputs, batch statistics), and the gradients of all parameters."""

    def loss(params):
        outputs, updates = built.model.apply(
            {**variables, "params": params}, batch["image"], None, train, mutable=["batch_stats"]
        )
        return combine(built.loss(outputs, batch))[0], (outputs, updates.get("batch_stats", {}))

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


def batch_of(seed_pixels, image):
    return {"image": image, "label": LABELS, "valid": jnp.ones(2, bool), "seeds": seed_pixels}


@known("04_", "resnet50_WGAP")
def test_pixelcam_losses(case):
    recorded = case.spec["losses"]
    built, variables = pixelcam(case)
    weak, _ = pixelcam(case, pixel_weight=0.1)
    coarse, _ = pixelcam(case, seed_grid=28)
    outputs = jax.jit(built.model.apply)(variables, images())
    fine = drawn(case, "224")
    positive = fine._replace(known=fine.known & (LABELS == 1)[:, None])
    for name, method, pixels in [
        ("lambda1_224", built, fine),
        ("lambda0.1_224", weak, fine),
        ("lambda1_lowres", coarse, drawn(case, "lowres")),
        ("lambda1_224_camelyon_neg_images_skipped", built, positive),
    ]:
        if name in recorded:
            total, _ = combine(method.loss(outputs, batch_of(pixels, images())))
            assert float(total) == pytest.approx(recorded[name]["total"], rel=2e-5, abs=1e-6)


@known("04_", "resnet50_WGAP_linear")
def test_without_seeds_only_the_image_counts(case):
    built, _ = pixelcam(case)
    fine = drawn(case, "224")
    batch = batch_of(fine._replace(known=jnp.zeros_like(fine.known)), images())
    outputs = {"logits": jnp.ones((2, 2)), "pixel_logits": jnp.ones((2, 28, 28, 2))}
    # The released mean over no pixel is NaN; ours adds nothing, and no gradient either.
    total, terms = combine(built.loss(outputs, batch))
    gradient = jax.grad(lambda o: combine(built.loss(o, batch))[0])(outputs)
    assert float(total) == float(terms["image"])
    np.testing.assert_array_equal(gradient["pixel_logits"], 0)


@known("04_", "resnet50_WGAP")
def test_pixelcam_gradients_in_float64(case):
    modes = {"lambda1_224": False, "train_mode": True}
    with jax.enable_x64(True):
        built, variables = pixelcam(case, jnp.float64)
        batch = batch_of(drawn(case, "224"), float64_images())
        for mode, train in modes.items():
            if f"f64/grad_l2:{mode}" not in case.spec["losses"]:
                continue
            (total, (outputs, stats)), gradients = objective(built, variables, batch, train)
            expected = case.spec["losses"][f"f64/{mode}"][0]
            assert float(total) == pytest.approx(expected, rel=1e-9)
            check_gradients(case, f"f64/grad/{mode}", gradients)
            lengths = norms(gradients, case)
            for name, value in case.spec["losses"][f"f64/grad_l2:{mode}"].items():
                assert lengths[name] == pytest.approx(value, rel=1e-7, abs=ZERO), name
            if train:
                close(outputs["logits"], case.arrays["f64/train_mode/logits"], 1e-8)
                running = named({"batch_stats": stats}, case)
                for name in [n for n in case.arrays if n.startswith("train_mode/encoder.")]:
                    value = running[name.removeprefix("train_mode/")][case.strides(name)]
                    close(value, case.arrays[name], 5e-5)


def check_gradients(case, prefix, gradients):
    ours = named({"params": gradients}, case)
    names = [n for n in case.arrays if n.startswith(f"{prefix}/")]
    assert names, f"{case.name} records no gradients under {prefix}"
    for name in names:
        gradient = ours[name.removeprefix(f"{prefix}/")][case.strides(name)]
        if np.abs(case.arrays[name]).max() < ZERO:
            assert np.abs(gradient).max() < ZERO
        else:
            close(gradient, case.arrays[name], 1e-8)


def norms(gradients, case):
    return {k: np.linalg.norm(v) for k, v in named({"params": gradients}, case).items()}


def named(collections, case):
    """Our leaves under the recorded names, in PyTorch's layout."""
    shapes = case.spec["state"]
    blank = golden_models.renamed({name: np.zeros(shape) for name, shape in shapes.items()})
    originals = dict(zip(blank, shapes, strict=True))
    leaves = {}
    for path, leaf in flax.traverse_util.flatten_dict(collections).items():
        name = originals[weights.torch_name(path)]
        leaves[name] = golden_models.torch_layout(np.asarray(leaf), shapes[name])
    return leaves


def float64_images():
    """The recorded network input: float32 values, upcast."""
    return jnp.asarray(golden_cases.inputs()[0].astype(np.float32), jnp.float64)
