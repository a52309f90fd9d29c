"""PN, ERASE and the small U-Net: what their papers say, and their published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SIZE, initialize, shapes

from wsol_jax import heads, method, ops, published
from wsol_jax.backbones import double_conv, resnet
from wsol_jax.methods import pn

IMAGE = jax.random.normal(jax.random.key(0), (3, SIZE, SIZE, 3))
LABEL = jnp.array([0, 1, 1])
DEEP = {"strides": resnet.STANDARD_STRIDES, "deep_stem": True}
WILDCAT = {"background_row": False, "kmax": 0.3, "kmin": 0.0, "alpha": 0.0}
CAM = {"readouts": ("cam",)}


def small(name, **keywords):
    encoder = resnet.ResNet((1, 1, 1, 1), bottleneck=False, width=8)
    head = heads.build("wildcat", 2, **WILDCAT)
    return method.build(name, encoder, head, **keywords)


@pytest.mark.parametrize(
    ("name", "row", "small"),
    [("pn", "pn", {}), ("erase", "erase", {"modalities": 1, "use_bias": False})],
)
def test_parameters_of_table_3(name, row, small):
    head = heads.build("wildcat", 2, **WILDCAT, **small)
    assert count(method.build(name, resnet.resnet18(**DEEP), head)) == parameters(row)


@pytest.mark.parametrize(
    ("row", "head", "keywords"),
    [
        ("cam_avg", "wgap", {"background_row": False}),
        ("wildcat", "wildcat", {"background_row": False, "modalities": 4}),
        ("deep_mil", "deep_mil", {"gated": False}),
    ],
)
def test_parameters_of_the_classifiers_of_table_3(row, head, keywords):
    encoder = resnet.resnet18(strides=resnet.STANDARD_STRIDES)
    built = method.build("classifier", encoder, heads.build(head, 2, **keywords))
    assert count(built) == parameters(row)


def test_parameters_of_the_small_unet():
    assert count(method.build("unet", double_conv.Pyramid(), None)) == parameters("unet")


def count(built):
    return sum(x.size for x in jax.tree.leaves(shapes(built, 64)["params"]))


def parameters(row):
    return published.maxmin.TABLE_3.rows[row][0]


def test_the_small_unet_maps_images_of_any_size():
    built = method.build("unet", double_conv.Pyramid((4, 8, 8)), None)
    variables = initialize(built)
    _, maps = jax.jit(built.localize)(variables, IMAGE[:, :29, :31])
    assert maps["unet"].shape == (3, 29, 31)


def test_the_penalty_asks_for_the_images_class_and_for_no_other():
    regions = jnp.zeros((2, 3, 3, 2)).at[0, 0, 0].set(jnp.array([0.25, 2.0])).at[1].set(1.0)
    found = pn.size_penalty(regions, jnp.array([0, 1]), 1.0)
    np.testing.assert_allclose(found, [[0.75**2, 2.0**2], [9.0**2, 0.0]])


def test_the_object_class_alone_is_constrained_and_localized():
    built = small("pn", object_class=1)
    variables = initialize(built)
    _, named = built.localize(variables, IMAGE, LABEL)
    _, ones = small("pn").localize(variables, IMAGE, jnp.ones(3, int))
    np.testing.assert_array_equal(named["pn"], ones["pn"])
    outputs = {"logits": jnp.zeros((2, 2)), "class_maps": jnp.zeros((2, 4, 4, 2))}
    batch = {"label": jnp.array([0, 1]), "valid": jnp.array([True, True])}
    terms = built.loss(outputs, batch)
    assert terms["size"][1].value == pytest.approx((8**2 + 0) / 2)  # absent, present


def test_every_round_erases_what_the_map_of_the_erased_image_shows():
    """Step by step, with the map of the classifier itself."""
    built = small("erase", rounds=3)
    variables = initialize(built)
    plain = small("classifier", readouts=("cam",))
    image, found = IMAGE, []
    for _ in range(3):
        features = plain.model.apply(variables, image, method="encode")
        maps = plain.model.apply(variables, features, method="class_maps")
        own = jnp.take_along_axis(maps, LABEL[:, None, None, None], axis=-1)[..., 0]
        heat = ops.min_max(ops.resize_maps(own, (SIZE, SIZE), align_corners=True))
        found.append(heat)
        image = jnp.where((heat >= 0.8)[..., None], 0, image)
    logits, maps = built.localize(variables, IMAGE, LABEL)
    union = np.max(found, axis=0) >= 0.8
    assert (maps["erase"] >= 0.5).sum() >= union.sum() > (found[0] >= 0.8).sum()
    np.testing.assert_array_equal(maps["erase"] >= 0.5, union)
    np.testing.assert_allclose(logits, plain.localize(variables, IMAGE, LABEL)[0], rtol=1e-6)


def test_training_erases_each_image_as_often_as_drawn():
    built = small("erase", rounds=3)
    variables = initialize(built)
    times = jnp.array([0, 1, 2])
    images = [built.model.apply(variables, IMAGE, LABEL, n, method="mine")[0] for n in range(3)]
    expected = jnp.stack([images[n][n] for n in range(3)])
    found, _ = built.model.apply(variables, IMAGE, LABEL, 2, times, method="mine")
    np.testing.assert_array_equal(found, expected)
    keys = jax.random.split(jax.random.key(1), 3000)
    drawn = built.prepare({}, keys)["times"]
    shares = np.bincount(drawn, minlength=3) / 3000
    np.testing.assert_allclose(shares, 1 / 3, atol=4 * np.sqrt(2 / 9 / 3000))


def test_training_sees_the_erased_images_and_has_no_gradient_through_the_erasing():
    built = small("erase", rounds=3)
    variables, times = initialize(built), jnp.array([0, 1, 2])
    erased, _ = built.model.apply(variables, IMAGE, LABEL, 2, times, method="mine")

    def logits(params, *inputs):
        changed = {**variables, "params": params}
        outputs, _ = built.model.apply(changed, *inputs, train=True, mutable=["batch_stats"])
        return outputs["logits"]

    def pull(*inputs):
        found, back = jax.vjp(lambda params: logits(params, *inputs), variables["params"])
        return found, back(jnp.ones_like(found))

    by_training, plainly = jax.jit(pull)(IMAGE, LABEL, times), jax.jit(pull)(erased)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), by_training, plainly
    )
    assert np.abs(by_training[0] - logits(variables["params"], IMAGE))[1:].max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds is 0; expected a number at least 1"),
        ({"top": 1.0}, "top is 1.0; expected a number above 0 and below 1"),
    ],
)
def test_impossible_rounds_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        small("erase", **wrong)


@pytest.mark.parametrize(("name", "keywords"), [("pn", {}), ("erase", {}), ("classifier", CAM)])
def test_the_object_is_of_one_class_where_there_is_one(name, keywords):
    """Whatever the label says; without a label and an object, the predicted class is mapped."""
    built = small(name, **keywords)
    variables = initialize(built)

    def maps(label, **options):
        _, found = small(name, **keywords, **options).localize(variables, IMAGE, label)
        (values,) = found.values()
        return np.asarray(values)

    of_class = [maps(jnp.full(3, c)) for c in range(2)]
    assert np.abs(of_class[0] - of_class[1]).max() > 1e-3
    for c in range(2):
        np.testing.assert_array_equal(maps(LABEL, object_class=c), of_class[c])
    predicted = jnp.argmax(built.localize(variables, IMAGE, LABEL)[0], axis=-1)
    np.testing.assert_array_equal(maps(None), maps(predicted))
    with pytest.raises(ValueError, match=r"unknown object_class 5; have \[None, 0, 1\]"):
        small(name, **keywords, object_class=5)


def test_the_penalty_of_pn_counts_by_its_weight():
    outputs = {"logits": jnp.zeros((3, 2)), "class_maps": jnp.ones((3, 4, 4, 2))}
    batch = {"label": LABEL, "valid": jnp.ones(3, bool)}
    assert small("pn").loss(outputs, batch)["size"][0] == 1e-5
    terms = small("pn", penalty_weight=0.5).loss(outputs, batch)
    assert (terms["image"][0], terms["size"][0]) == (1.0, 0.5)
    absent = (16 / (1 + np.exp(-1))) ** 2
    assert float(terms["size"][1].value) == pytest.approx(absent, rel=1e-5)
    for name in ("penalty_weight", "least"):
        with pytest.raises(ValueError, match=f"{name} is -1; expected a number at least 0"):
            small("pn", **{name: -1})
