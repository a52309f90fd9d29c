"""PixelCAM, SAT, NEGEV and U-Net against recorded outputs of the original code."""

import functools

import golden_cases
import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import (
    LABELS,
    check_gradients,
    check_lengths,
    close,
    compiled,
    images,
    known,
    named,
    nchw,
)

from configs import common
from wsol_jax import ops, pixel_labels, seeds

PIXEL_HEADS = {"multiple_layer": "multi_layer", "one_layer": "one_layer"}


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module", autouse=True)
def _forget_activations():
    yield
    golden_models.ENCODED.clear()


def pixelcam(case, **keywords):
    """PixelCAM of a recorded case."""
    options = case.spec["spec"]["aux"]
    depth = next((PIXEL_HEADS[k] for k in options if k in PIXEL_HEADS), "linear")
    norm = options.get("batch_norm", False)
    return golden_models.build(
        case, "pixelcam", golden_models.Given(), pixel_head=depth, pixel_batch_norm=norm, **keywords
    )


@functools.cache
def outputs_of(name):
    """What the model of a recorded case says of the images, and its read-out of that."""
    case = next(case for case in golden_cases.cases(name) if case.name == name)
    built = decoded(case)[1] if name.startswith("06_") else pixelcam(case)
    return golden_models.said(built, variables_of(built, case))


def variables_of(built, case, dtype="float32"):
    """The weights of a method on the features that the case's encoder has of the images."""
    return golden_models.given(built, case, golden_models.encoded(case, dtype))


def number_of_parameters(variables, case):
    """Of the method with its encoder."""
    parts = (variables["params"], golden_models.encoded(case).params)
    return sum(x.size for x in jax.tree.leaves(parts))


@known("04_", "")
def test_pixelcam_maps(case):
    built = pixelcam(case)
    variables = variables_of(built, case)
    assert number_of_parameters(variables, case) == case.spec["n_params"]
    outputs, (logits, maps) = outputs_of(case.name)
    close(outputs["logits"], case.arrays["logits"], 5e-5)
    close(nchw(outputs["pixel_logits"]), case.arrays["pixel_logits"], 5e-5)
    close(logits, case.arrays["logits"], 5e-5)
    final = ops.resize_maps(maps["pixelcam"], (224, 224))
    for image in range(2):
        stem = f"loc/img{image}"
        low = case.arrays[f"{stem}/softmax_fg_lowres"]
        assert np.abs(maps["pixelcam"][image] - low).max() <= 5e-4
        kept = final[image][case.strides(f"{stem}/final224")]
        assert np.abs(kept - case.arrays[f"{stem}/final224"]).max() <= 5e-4


@known("04_", "")
def test_pixelcam_losses(case):
    recorded = case.spec["losses"]
    built, weak = pixelcam(case), pixelcam(case, pixel_weight=0.1)
    side = case.spec["tensors"]["pixel_logits"]["shape"][-1]
    coarse = pixelcam(case, seed_grid=side)
    outputs, _ = outputs_of(case.name)
    fine = drawn(case, "224")
    positive = fine._replace(known=fine.known & (LABELS == 1)[:, None])
    for name, method, pixels in [
        ("lambda1_224", built, fine),
        ("lambda0.1_224", weak, fine),
        ("lambda1_lowres", coarse, drawn(case, "lowres")),
        ("lambda1_224_camelyon_neg_images_skipped", built, positive),
    ]:
        if name in recorded:
            total, _ = combine(method.loss(outputs, batch_of(images(), seeds=pixels)))
            assert float(total) == pytest.approx(recorded[name]["total"], rel=2e-5, abs=1e-6)


@known("04_", "resnet50_WGAP_linear")
def test_without_seeds_only_the_image_counts(case):
    built = pixelcam(case)
    fine = drawn(case, "224")
    batch = batch_of(images(), seeds=fine._replace(known=jnp.zeros_like(fine.known)))
    outputs = {"logits": jnp.ones((2, 2)), "pixel_logits": jnp.ones((2, 28, 28, 2))}
    # The released mean over no pixel is NaN; ours adds nothing, and no gradient either.
    total, terms = combine(built.loss(outputs, batch))
    gradient = jax.grad(lambda o: combine(built.loss(o, batch))[0])(outputs)
    assert float(total) == float(terms["image"])
    np.testing.assert_array_equal(gradient["pixel_logits"], 0)


@known("04_", "")
@pytest.mark.parametrize(("mode", "train"), [("lambda1_224", False), ("train_mode", True)])
def test_pixelcam_gradients_in_float64(case, mode, train):
    if f"f64/grad_l2:{mode}" not in case.spec["losses"]:
        pytest.skip(f"{case.name} records no gradients of {mode}")
    with jax.enable_x64(True):
        built = pixelcam(case)
        batch = batch_of(images("float64"), seeds=drawn(case, "224"))
        (total, (_, outputs, stats)), gradients = objective(built, case, batch, train)
        assert float(total) == pytest.approx(case.spec["losses"][f"f64/{mode}"][0], rel=1e-9)
        check_gradients(case, f"f64/grad/{mode}", gradients)
        check_lengths(case, f"f64/grad_l2:{mode}", gradients)
        if train:
            close(outputs["logits"], case.arrays["f64/train_mode/logits"], 1e-8)
            running = named({"batch_stats": stats}, case)
            for name in [n for n in case.arrays if n.startswith("train_mode/encoder.")]:
                value = running[name.removeprefix("train_mode/")][case.strides(name)]
                close(value, case.arrays[name], 5e-5)


@known("05_", "")
def test_sat(case):
    name = "pixelcam" if "pixelcam" in case.name else "sat"
    built = golden_models.build(case, name)
    variables = golden_models.variables(built, case)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count + 9 == case.spec["n_params"]  # the published count has the fixed smoothing kernel

    @jax.jit
    def everything(variables, image):
        encoder = {"params": variables["params"]["encoder"]}
        levels = built.model.encoder.apply(encoder, image)
        return levels, built.model.apply(variables, image), built.localize(variables, image)

    (masks, features), outputs, (logits, maps) = everything(variables, images())
    close(outputs["logits"], case.arrays["logits"], 5e-5)
    tokens = features.reshape(2, -1, 192)[case.strides("patch_tokens_normed")]
    close(tokens, case.arrays["patch_tokens_normed"], 5e-5)
    recorded = case.arrays["mask_all_layers_img0"][-3:, 1:-1]
    close(jnp.moveaxis(masks[0], -1, 0).reshape(3, -1), recorded, 5e-5)
    close(logits, case.arrays["logits"], 5e-5)
    final = ops.resize_maps(maps[name], (224, 224))
    for image in range(2):
        stem = f"loc/img{image}"
        kept = final[image][case.strides(f"{stem}/final224")]
        assert np.abs(kept - case.arrays[f"{stem}/final224"]).max() <= 5e-4
        if name == "sat":
            close(outputs["map"][image], case.arrays[f"{stem}/raw"], 5e-5)


@known("05_", "sat_deit_tiny")
def test_sat_losses_and_gradients(case):
    recorded = case.spec["losses"]
    if "area_th_0.35" not in recorded:
        pytest.skip(f"{case.name} records no losses")

    @compiled
    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective(params):
        batch = batch_of(images("float64"))
        outputs = built.model.apply({"params": params}, batch["image"])
        other = golden_models.build(case, "sat", area=0.35).loss(outputs, batch)
        total, values = combine(built.loss(outputs, batch))
        return total, (values, combine(other))

    with jax.enable_x64(True):
        built = golden_models.build(case, "sat", area=0.25)
        params = golden_models.variables(built, case, jnp.float64)["params"]
        (total, (values, other)), gradients = objective(params)
    check_sat(recorded["area_th_0.25"], total, values)
    check_sat(recorded["area_th_0.35"], *other)
    assert total == pytest.approx(recorded["f64/area_th_0.25_total"], rel=1e-8)
    check_gradients(case, "f64/grad/area_th_0.25", gradients)
    check_lengths(case, "f64/grad_l2", gradients)


def check_sat(recorded, total, values):
    """The loss, and its three terms."""
    assert total == pytest.approx(recorded["total"], rel=2e-5)
    for ours, theirs in [("image", "ce"), ("area", "ba_term"), ("binarisation", "norm_term")]:
        assert values[ours] == pytest.approx(recorded[theirs], rel=2e-5)


def decoded(case, **keywords):
    """NEGEV or U-Net of a recorded case, with its name."""
    name = "unet" if "_unet_" in case.name else "negev"
    encoder = case.spec["encoder"].replace("inceptionv3", "inception_v3")
    shape = common.ENCODERS[encoder].decoder
    assert list(shape["channels"]) == case.spec["decoder_channels"]
    return name, golden_models.build(case, name, golden_models.Given(), **shape, **keywords)


@known("06_", "")
def test_decoders(case):
    name, built = decoded(case)
    variables = variables_of(built, case)
    assert number_of_parameters(variables, case) == case.spec["n_params"]
    outputs, (logits, maps) = outputs_of(case.name)
    strides = case.strides("map_logits")
    close(nchw(outputs["pixel_logits"])[strides], case.arrays["map_logits"], 5e-5)
    if name == "unet":
        assert logits is None
    else:
        close(logits, case.arrays["logits"], 5e-5)
    for image in range(2):
        title = f"loc/img{image}/softmax_fg224"
        kept = maps[name][image][case.strides(title)]
        assert np.abs(kept - case.arrays[title]).max() <= 5e-4
        chosen = np.unpackbits(case.arrays[f"loc/img{image}/argmax_packed"]).reshape(224, 224)
        assert np.mean((maps[name][image] > 0.5) != chosen) < 1e-4  # but for ties


@known("06_", "")
def test_decoder_losses_and_gradients(case):
    recorded = case.spec["losses"]
    with jax.enable_x64(True):
        if "_unet_" in case.name:
            _, built = decoded(case)
            target = jnp.asarray(golden_cases.masks(), jnp.int32)
            batch = batch_of(images("float64"), mask=target)
            (total, (values, *_)), gradients = objective(built, case, batch)
            assert values["pixel"] == pytest.approx(recorded["seg_ce"], rel=2e-5)
        else:
            _, built = decoded(case, size_weight=1.0)
            target = seeds.dense(drawn(case, "224"), (224, 224))
            batch = batch_of(images("float64"), target=target)
            (total, (values, *_)), gradients = objective(built, case, batch)
            every = recorded["self_learning_negev(apply_negative_samples=True)"]
            assert values["pixel"] == pytest.approx(every, rel=2e-5)
            size = recorded["max_sizepos_negev(elb t=1.0)"]
            assert values["size"] == pytest.approx(size, rel=2e-5)
            frozen = {k: v for k, v in gradients.items() if k in built.frozen}
            assert set(frozen) == {"encoder", "head"}
            assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen))
        assert total == pytest.approx(recorded["f64/total"], rel=1e-8)
        check_gradients(case, "f64/grad", gradients)
        check_lengths(case, "f64/grad_l2", gradients)


@known("06_", "negev")
def test_negev_terms_of_negative_images(case):
    recorded = case.spec["losses"]
    _, built = decoded(case, negatives="background", size_weight=1.0, t=5.0)
    target = seeds.dense(drawn(case, "224"), (224, 224))
    target = jnp.where((LABELS > 0)[:, None, None], target, pixel_labels.UNANNOTATED)
    batch = batch_of(images(), target=target)
    _, values = combine(built.loss(outputs_of(case.name)[0], batch))
    positive = recorded["self_learning_negev(apply_negative_samples=False)"]
    assert values["pixel"] == pytest.approx(positive, rel=2e-5)
    assert values["background"] == pytest.approx(recorded["negative_samples_negev"], rel=2e-5)
    assert values["size"] == pytest.approx(recorded["max_sizepos_negev(elb t=5.0)"], rel=2e-5)


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
    values = {name: term.value for name, (_, term) in terms.items()}
    return sum(weight * values[name] for name, (weight, _) in terms.items()), values


def objective(built, case, batch, train=False):
    """Total loss, (its terms, outputs, batch statistics), and the gradients of all parameters.

    Those of the encoder follow from those of its features.
    """
    frozen = "encoder" in built.frozen
    encoder = golden_models.encoded(case, "float64", train=train, gradients=not frozen)
    variables = golden_models.given(built, case, encoder)

    def loss(learned):
        outputs, updates = built.model.apply(
            {**variables, **learned}, batch["image"], None, train, mutable=["batch_stats"]
        )
        total, values = combine(built.loss(outputs, batch))
        return total, (values, outputs, updates.get("batch_stats", {}))

    learned = {name: variables[name] for name in ("params", "levels")}
    (total, (values, outputs, stats)), gradients = compiled(jax.value_and_grad(loss, has_aux=True))(
        learned
    )
    of_levels = gradients["levels"]["encoder"]["given"]
    if frozen:
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_levels))
        of_encoder = jax.tree.map(jnp.zeros_like, encoder.params)
    else:
        of_encoder = encoder.gradients(of_levels)
    stats = {**stats, "encoder": encoder.stats}
    return (total, (values, outputs, stats)), {**gradients["params"], "encoder": of_encoder}


def batch_of(image, **targets):
    return {"image": image, "label": LABELS, "valid": jnp.ones(2, bool), "epoch": 0, **targets}
