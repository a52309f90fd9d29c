"""Max-min uncertainty: what the mask is, what its sigma does, and what each term counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MAXMIN, SIZE, batch, begin, initialize, shapes, small_method, transform

from wsol_jax import heads, method, ops, parallel, train
from wsol_jax.backbones import resnet
from wsol_jax.methods import maxmin

OMEGA, SIGMA = 5.0, 0.15


@pytest.fixture(scope="module")
def built():
    return small_method("maxmin")


@pytest.fixture(scope="module")
def variables(built):
    return initialize(built)


@pytest.fixture(scope="module")
def image():
    return jax.random.normal(jax.random.key(1), (3, SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def trained(built, variables, image):
    """What the model says while training, and the batch statistics that it leaves."""

    @jax.jit
    def apply(image):
        keys = parallel.image_keys(jax.random.key(2), len(image), None)
        options = {"sigma": 0.17, "keys": keys, "train": True, "mutable": ["batch_stats"]}
        return built.model.apply(variables, image, **options)

    outputs, updates = apply(image)
    return outputs, updates["batch_stats"]


def maps(count=4, size=6):
    return jax.random.normal(jax.random.key(0), (count, size, size))


def outputs_of(count, seed=0):
    """What a model might say of images, and their batch."""
    rng = np.random.default_rng(seed)
    names = ("image_logits", "logits", "background_logits")
    said = {name: jnp.asarray(rng.standard_normal((count, 2)), jnp.float32) for name in names}
    pixels = jnp.asarray(rng.random((count, 8, 8)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 2, count), jnp.int32)
    facts = {"label": labels, "valid": jnp.ones(count, bool), "epoch": 3}
    return {**said, "mask": pixels, "mask_logits": pixels}, facts


@pytest.mark.parametrize(
    ("deep", "count"), [(True, 11_324_992), (False, 11_176_512)], ids=["deep", "plain"]
)
def test_parameters_of_the_encoder(deep, count):
    encoder = resnet.resnet18(deep_stem=deep)
    params = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    ("name", "modalities", "count"),
    [("maxmin", 5, 11_335_252), ("maxmin_camelyon16", 4, 11_335_765)],
)
def test_parameters_of_the_model(name, modalities, count):
    encoder = resnet.resnet18(deep_stem=True, strides=resnet.STANDARD_STRIDES)
    head = heads.build("wildcat", 2, modalities=modalities, background_row=False)
    params = shapes(method.build(name, encoder, head), 64)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_mask_of_an_image_does_not_depend_on_the_others():
    alone = [maxmin.mask(one[None], omega=OMEGA, sigma=SIGMA)[0] for one in maps()]
    np.testing.assert_array_equal(maxmin.mask(maps(), omega=OMEGA, sigma=SIGMA), jnp.stack(alone))
    extremes = jax.nn.sigmoid(OMEGA * (jnp.array([0.0, 1.0]) - SIGMA))
    for one in alone:
        np.testing.assert_allclose([one.min(), one.max()], extremes, rtol=1e-6)


def test_mask_by_the_batch_has_the_extremes_of_all_devices():
    def total(maps, axis):
        options = {"omega": OMEGA, "sigma": SIGMA, "normalize": "batch", "axis_name": axis}
        masks = maxmin.mask(maps, **options)
        return jnp.sum(jnp.sin(masks)), masks

    (_, whole), gradient = jax.value_and_grad(total, has_aux=True)(maps(), None)
    parts = maps().reshape(2, 2, 6, 6)
    both = jax.vmap(jax.value_and_grad(lambda m: total(m, "data"), has_aux=True), axis_name="data")(
        parts
    )
    np.testing.assert_allclose(both[0][1].reshape(whole.shape), whole, rtol=1e-6)
    np.testing.assert_allclose(both[1].reshape(whole.shape), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalize", maxmin.NORMALIZE)
def test_constant_maps_have_a_mask_and_a_finite_gradient(normalize):
    def total(maps):
        return maxmin.mask(maps, omega=OMEGA, sigma=SIGMA, normalize=normalize).mean()

    value, gradient = jax.value_and_grad(total)(jnp.full((2, 4, 4), 3.0))
    assert float(value) == pytest.approx(float(jax.nn.sigmoid(-OMEGA * SIGMA)))
    np.testing.assert_array_equal(gradient, 0)


def test_the_classifier_sees_both_sides_of_the_mask(built, variables, image):
    @jax.jit
    def apply(variables, image, kept):
        return built.model.apply(variables, image, kept, method="classify")

    outputs = jax.jit(lambda v, x: built.model.apply(v, x))(variables, image)
    for name, kept in [("logits", outputs["mask"]), ("background_logits", 1 - outputs["mask"])]:
        np.testing.assert_allclose(apply(variables, image, kept), outputs[name], atol=1e-5)
    # The mean colour is zero: what is not kept cannot be told from an image without anything.
    nothing = apply(variables, image, jnp.zeros(image.shape[:3]))
    empty = apply(variables, jnp.zeros_like(image), jnp.ones(image.shape[:3]))
    np.testing.assert_allclose(nothing, empty, atol=1e-6)


def test_batch_statistics_move_with_the_image_then_with_both_sides(
    built, variables, image, trained
):
    """The image at its own size, then X M+ and X M- at 0.8 of it, and in this order."""
    outputs, stats = trained
    encoder, size = built.model.encoder, (int(0.8 * SIZE), int(0.8 * SIZE))
    sides = [outputs["mask"], 1 - outputs["mask"]]
    parts = [ops.resize(image * m[..., None], size, align_corners=True) for m in sides]
    params, expected = variables["params"]["encoder"], variables["batch_stats"]["encoder"]

    @jax.jit
    def move(stats, part):
        start = {"params": params, "batch_stats": stats}
        return encoder.apply(start, part, None, True, mutable=["batch_stats"])[1]["batch_stats"]

    for part in (image, *parts):
        expected = move(expected, part)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        stats["encoder"],
        expected,
    )


def test_the_last_sigma_is_kept_with_the_weights(built):
    """It grows by epochs, to its maximum, and evaluation takes it from the state."""
    step = jax.jit(train.make_step(built, transform(built), SIZE))
    state = begin(built)
    assert float(state.batch_stats["sigma"]) == pytest.approx(0.15)
    for epoch, sigma in [(0, 0.15), (7, 0.157), (90, 0.2)]:
        state, losses = step(state.replace(step=jnp.int32(epoch)), batch(0), jax.random.key(0))
        assert float(state.batch_stats["sigma"]) == pytest.approx(sigma)
        assert all(np.isfinite(value) for value in losses.values())


def test_maps_are_those_of_the_stored_sigma(built, variables, image):
    """For the image alone, though this model trains on extremes of the batch."""
    stats = {**variables["batch_stats"], "sigma": jnp.float32(0.4)}
    localize = jax.jit(built.localize)
    logits, found = localize({**variables, "batch_stats": stats}, image)
    before = localize(variables, image)[1]["maxmin"]
    shifted = jax.nn.sigmoid(jax.scipy.special.logit(before) - OMEGA * (0.4 - 0.15))
    np.testing.assert_allclose(found["maxmin"], shifted, atol=1e-5)
    alone = jax.jit(built.localize)({**variables, "batch_stats": stats}, image[:1])
    np.testing.assert_allclose(alone[0], logits[:1], atol=1e-5)
    np.testing.assert_allclose(alone[1]["maxmin"], found["maxmin"][:1], atol=1e-6)


@pytest.mark.parametrize("name", MAXMIN)
def test_terms_add_up_over_devices_and_leave_out_padding(name):
    built = small_method(name)
    outputs, facts = outputs_of(6)
    facts["valid"] = jnp.arange(6) < 5
    whole = built.loss(outputs, facts)
    pieces = []
    for rows in (slice(0, 2), slice(2, 5)):
        part = {k: v if k == "epoch" else v[rows] for k, v in facts.items()}
        pieces.append(built.loss({k: v[rows] for k, v in outputs.items()}, part))
    for name, (_, term) in whole.items():
        total, weight = (sum(piece[name][1][i] for piece in pieces) for i in (0, 1))
        np.testing.assert_allclose([term.total, term.weight], [total, weight], rtol=1e-5)


def test_sizes_hold_both_regions_open():
    """In the feasible region the size term is -(1/t) log |M+| |M-|."""
    outputs, facts = outputs_of(2)
    weight, term = small_method("maxmin").loss(outputs, facts)["size"]
    pixels = np.asarray(outputs["mask"], np.float64).sum((1, 2))
    expected = -np.log(pixels * (64 - pixels)).mean() / (5 * 1.01**3)
    assert weight == 1
    assert float(term.value) == pytest.approx(expected, rel=1e-5)


def test_terms_of_the_ablation():
    outputs, facts = outputs_of(3)
    plain = small_method("maxmin", background=None, size=False).loss(outputs, facts)
    assert set(plain) == {"image", "foreground"}
    values = {
        name: small_method("maxmin", background=name).loss(outputs, facts)["background"]
        for name in maxmin.BACKGROUND
    }
    for name, (weight, term) in values.items():
        assert weight == 0.1
        expected = maxmin.BACKGROUND[name](outputs["background_logits"]).mean()
        assert float(term.value) == pytest.approx(float(expected), rel=1e-6)


def test_the_released_camelyon16_objective(image):
    """Normal images empty the mask, metastatic ones fill it, and the second head does not learn."""
    built = small_method("maxmin_camelyon16")
    variables = initialize(built)
    label = jnp.array([0, 0, 1])

    def total(params, term):
        outputs = built.model.apply({**variables, "params": params}, image)
        facts = {"label": label, "valid": jnp.ones(3, bool), "epoch": 0}
        return built.loss(outputs, facts)[term][1].value, outputs["mask_logits"]

    gradient = jax.jit(jax.jacrev(total, has_aux=True), static_argnums=1)
    for term, direction in [("background", 1), ("size", -1)]:
        slopes, _ = gradient(variables["params"], term)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(slopes["classifier"]))
        bias = slopes["mask_head"]["to_modalities"]["bias"]
        assert (np.sign(bias) == direction).all()


def test_refusals():
    for name, message in [
        ("background", r"unknown background 'other'; have \[None, 'eem', 'sem'\]"),
        ("normalize", r"unknown normalize 'other'; have \['image', 'batch'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            small_method("maxmin", **{name: "other"})
    with pytest.raises(ValueError, match=r"sigma=0\.3 lies above sigma_max=0\.2, which it"):
        small_method("maxmin", sigma=0.3)
    with pytest.raises(ValueError, match=r"t=20\.0 lies above t_max=10\.0"):
        small_method("maxmin", t=20.0)
    for name, value, expected in [
        ("background_weight", -1.0, "at least 0"),
        ("background_weight", float("nan"), "at least 0"),
        ("omega", 0.0, "above 0"),
        ("sigma", 1.5, "at least 0 and at most 1"),
        ("sigma_step", -0.1, "at least 0"),
        ("t", 0.0, "above 0"),
        ("t_growth", 0.5, "at least 1"),
        ("scale", 0.0, "above 0 and at most 1"),
        ("scale", 2.0, "above 0 and at most 1"),
    ]:
        with pytest.raises(ValueError, match=f"{name} is {value}; expected a number {expected}$"):
            small_method("maxmin", **{name: value})
    with pytest.raises(ValueError, match=r"got the head WGAP; .* --config.head.name=wildcat"):
        method.build("maxmin_camelyon16", resnet.resnet18(), heads.build("wgap", 2))
    with pytest.raises(ValueError, match="modalities is 0; expected a number at least 1"):
        small_method("maxmin_camelyon16", modalities=0)
    with pytest.raises(ValueError, match=r"t=20\.0 lies above t_max=10\.0"):
        small_method("maxmin_camelyon16", t=20.0)
