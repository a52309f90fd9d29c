"""Max-min uncertainty against recorded outputs of the original code."""

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
    named,
    nchw,
)
from test_golden_methods import combine

from wsol_jax import heads, losses, method, ops
from wsol_jax.methods import maxmin

BATCH = {"label": LABELS, "valid": jnp.ones(2, bool), "epoch": 0}
REGULARISERS = {"sem": "KLUniformLoss", "eem": "NegativeEntropy"}


@pytest.fixture(autouse=True)
def _highest_precision():
    with jax.default_matmul_precision("highest"):
        yield


def known(name):
    found = golden_cases.cases(f"09_maxmin_{name}")
    return pytest.mark.parametrize("case", found, ids=[c.name for c in found])


def build(case, **keywords):
    """The method of a recorded case; the original normalises over the batch."""
    options = case.spec.get("kwargs", {"modalities": 5, "kmax": 0.5})
    released = "camelyon16" in case.name
    if "original" in case.name and not released:
        keywords = {"normalize": "batch", **keywords}
    head = heads.build(
        "wildcat",
        2,
        modalities=4 if released else options["modalities"],
        kmax=options["kmax"],
        alpha=0.0,  # the term that the released code loses
        background_row=False,
    )
    encoder = golden_models.ENCODERS[golden_models.encoder_name(case)]()
    if released:
        return method.build("maxmin_camelyon16", encoder, head, modalities=options["modalities"])
    return method.build("maxmin", encoder, head, **keywords)


def variables_of(built, case, dtype=jnp.float32):
    """The recorded weights, and the first sigma where there is one."""
    constants = {"sigma": np.float32(0.15)} if "sigma" in built.inputs else {}
    return golden_models.variables(built, case, dtype, **constants)


@functools.cache
def evaluated(name, **keywords):
    """The method of a recorded case, what its model says of the images, and its read-out."""
    case = next(case for case in golden_cases.cases(name) if case.name == name)
    built = build(case, **keywords)
    variables = variables_of(built, case)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == case.spec["n_params"]
    return built, *golden_models.said(built, variables)


def check(case, name, values):
    """NCHW values at the recorded positions."""
    close(np.asarray(values)[case.strides(name)], case.arrays[name], 5e-5)


def at_image_size(maps):
    """Class maps at the size of the image, NCHW."""
    return nchw(ops.resize(maps, (224, 224), align_corners=True))


@known("original_resnet18_glas")
def test_outputs_on_glas(case):
    _, outputs, (logits, maps) = evaluated(case.name)
    check(case, "cl_scores_seg", outputs["image_logits"])
    check(case, "scores_pos", outputs["logits"])
    check(case, "scores_neg", outputs["background_logits"])
    check(case, "mask", outputs["mask"][:, None])
    check(case, "cams", at_image_size(outputs["maps"]))
    # The original maps images one by one; ours is the same among others.
    check(case, "single_img1/scores_pos", logits[1:])
    check(case, "single_img1/mask", maps["maxmin"][1:, None])


@known("original_resnet18_camelyon16")
def test_outputs_on_camelyon16(case):
    _, outputs, (logits, maps) = evaluated(case.name)
    check(case, "cl_scores_seg", outputs["logits"])
    check(case, "cams", outputs["mask_logits"][:, None])
    check(case, "cl_scores_seg", logits)
    check(case, "mask", maps["maxmin_camelyon16"][:, None])
    check(case, "single_img1/mask", maps["maxmin_camelyon16"][1:, None])


@known("pixelcam_repo")
def test_outputs_of_the_form_in_the_pixelcam_repository(case):
    """On ResNet-50 at stride 8, normalised by image; CE(s, y) is all that its loss keeps."""
    built, outputs, _ = evaluated(case.name, omega=8.0, scale=1.0)
    check(case, "logits_dict/logits", outputs["image_logits"])
    check(case, "logits_dict/logits_pos", outputs["logits"])
    check(case, "logits_dict/logits_neg", outputs["background_logits"])
    check(case, "logits_dict/cam", outputs["mask"][:, None])
    stretched = ops.min_max(outputs["mask"])
    for image in range(2):
        check(case, f"loc/img{image}/raw", outputs["mask"][image])
        normalized = case.arrays[f"loc/img{image}/normalized"]
        kept = stretched[image][case.strides(f"loc/img{image}/normalized")]
        assert np.abs(kept - normalized).max() <= 5e-4
    _, terms = combine(built.loss(outputs, BATCH))
    for ours, theirs in [
        ("image", "ce"),
        ("foreground", "ce_pos"),
        ("background", "t1.0/kl_uniform"),
    ]:
        assert float(terms[ours]) == pytest.approx(case.spec["losses"][theirs], rel=2e-5)


@known("original_resnet18_glas")
@pytest.mark.parametrize("background", REGULARISERS)
def test_losses_on_glas(case, background):
    recorded = case.spec["losses"][REGULARISERS[background]]
    built = build(case, background=background)
    total, terms = combine(built.loss(evaluated(case.name)[1], BATCH))
    assert float(total) == pytest.approx(recorded["total"], rel=2e-5, abs=1e-6)
    for ours, theirs in {
        "image": "loss_cl_seg",
        "foreground": "loss_pos",
        "background": "loss_neg",
        "size": "size",
    }.items():
        assert float(terms[ours]) == pytest.approx(recorded[theirs], rel=2e-5, abs=1e-6)


@known("original_resnet18_camelyon16")
@pytest.mark.parametrize("background", REGULARISERS)
def test_losses_on_camelyon16(case, background):
    """Their "size" is GlaS's two barriers, which are no part of the total."""
    recorded = case.spec["losses"][REGULARISERS[background]]
    built = build(case, background=background)
    total, terms = combine(built.loss(evaluated(case.name)[1], BATCH))
    assert float(total) == pytest.approx(recorded["total"], rel=2e-5, abs=1e-6)
    assert 10 * float(terms["image"]) == pytest.approx(recorded["loss_cl_seg"], rel=2e-5)


@known("original")
def test_gradients_in_float32(case):
    ours = named({"params": gradient(case, images(), jax.jit)[1]}, case)
    for name in [n for n in case.arrays if n.startswith("grad/")]:
        tensor = name.removeprefix("grad/")
        got, expected = ours[tensor][case.strides(name)], case.arrays[name]
        if "to_modalities" in name:
            close(got, expected, 5e-5)
        else:
            cosine = np.vdot(got, expected) / np.linalg.norm(got) / np.linalg.norm(expected)
            assert cosine > 0.999


@known("original_resnet18_glas")
def test_gradients_in_float64(case):
    inverse_t = np.float32(0.2)  # the original keeps t, and so 1/t, in single precision
    with jax.enable_x64(True):
        t = 1 / float(inverse_t)
        (total, outputs), gradients = gradient(case, images("float64"), compiled, t=t)
    close(outputs["image_logits"], case.arrays["f64/cl_scores_seg"], 1e-8)
    close(outputs["logits"], case.arrays["f64/scores_pos"], 1e-8)
    close(outputs["background_logits"], case.arrays["f64/scores_neg"], 1e-8)
    masks = np.asarray(outputs["mask"])[:, None][case.strides("f64/mask")]
    close(masks, case.arrays["f64/mask"], 1e-8)
    recorded = case.spec["losses"]
    assert float(total) == pytest.approx(recorded["f64/grad_case_total"], rel=1e-8)
    check_gradients(case, "f64/grad", gradients)
    check_lengths(case, "f64/grad_l2", gradients)


def gradient(case, image, jit, **keywords):
    """((loss, outputs), gradients) in evaluation mode, with lambda = 1e-3, as recorded."""
    built = build(case, background_weight=1e-3, **keywords)
    variables = variables_of(built, case, image.dtype)
    given = {"sigma": 0.15} if "sigma" in built.inputs else {}

    def objective(params):
        outputs = built.model.apply({**variables, "params": params}, image, **given)
        return combine(built.loss(outputs, BATCH))[0], outputs

    return jit(jax.value_and_grad(objective, has_aux=True))(variables["params"])


@known("primitives")
@pytest.mark.parametrize("t", [1.0, 2.5, 5.0, 10.0])
def test_log_barrier(case, t):
    values = jnp.asarray(case.arrays["elb/fx"])
    barrier = losses.log_barrier(values, t)
    np.testing.assert_allclose(barrier, case.arrays[f"elb/t{t}/value_per_element"], rtol=1e-5)
    assert float(barrier.sum()) == pytest.approx(case.spec["elb"][f"t{t}"]["sum_maxmin"], rel=1e-5)
    slopes = jax.grad(lambda v: losses.log_barrier(v, t).sum())(values)
    np.testing.assert_allclose(slopes, case.arrays[f"elb/t{t}/grad_per_element"], rtol=1e-5)
    shares = case.arrays[f"elb/t{t}/grad_mean_version"]
    np.testing.assert_allclose(slopes / len(values), shares, rtol=1e-5)


@known("primitives")
@pytest.mark.parametrize(("first", "updates"), [(1.0, 300), (5.0, 100)])
def test_schedule_of_t(case, first, updates):
    recorded = case.arrays[f"elb/t_schedule_{updates}_updates_from{first:.0f}"]
    ours = jax.vmap(losses.barrier_schedule(first, 1.01, 10.0))(jnp.arange(updates))
    np.testing.assert_allclose(ours, recorded, rtol=1e-5)


@known("primitives")
@pytest.mark.parametrize(("classes", "logits"), [(2, "reg/logits"), (4, "reg/logits_4classes")])
@pytest.mark.parametrize("background", REGULARISERS)
def test_regularisers(case, background, classes, logits):
    title = f"{background.upper()}_{REGULARISERS[background]}/{classes}c"
    function = maxmin.BACKGROUND[background]
    value, slope = jax.value_and_grad(lambda x: function(x).mean())(
        jnp.asarray(case.arrays[logits])
    )
    assert float(value) == pytest.approx(case.spec["results"][title], rel=1e-5)
    close(slope, case.arrays[f"reg/{title}/grad"], 1e-5)


@known("primitives")
def test_sizes_in_pixels(case):
    """Summed over the images; the original divides by their number afterwards.

    In float64: both regions cover half of these images, so that their slopes nearly cancel.
    """
    recorded, title = case.spec["results"], "normalize_False/eps_0.0"
    with jax.enable_x64(True):
        masks = jnp.asarray(case.arrays["size/masks"][:, 0], jnp.float64)

        def total(masks):
            sizes = [-side.sum((1, 2)) for side in (masks, 1 - masks)]
            foreground, background = (losses.log_barrier(size, 5.0).sum() for size in sizes)
            return foreground + background, (foreground, background)

        (both, (foreground, background)), slopes = jax.value_and_grad(total, has_aux=True)(masks)
        values = {"size_const": both, "size_const_cancer": foreground}
        values |= {"size_const_background": background}
        for name, value in values.items():
            assert float(value) == pytest.approx(recorded[f"{name}/{title}"], rel=1e-5)
        expected = recorded[f"size_const/{title}/grad_sum"]
        assert float(slopes.sum()) == pytest.approx(expected, rel=1e-5)


@known("primitives")
def test_mask(case):
    maps = jnp.asarray(case.arrays["mask_sigmoid/in"])[:, 0]
    options = {"omega": 5.0, "sigma": 0.15}
    batch = maxmin.mask(maps, normalize="batch", **options)
    close(batch[:, None], case.arrays["mask_sigmoid/out_batch2(sigma.15,w5)"], 1e-5)
    images = maxmin.mask(maps, **options)
    close(images[:1, None], case.arrays["mask_sigmoid/out_single0(sigma.15,w5)"], 1e-5)
