"""Methods: found by name, build, localize within [0, 1]; and the rules of PixelCAM's pixel term."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import BATCH, MAXMIN, METHODS, SIZE, batch, initialize, shapes, small_method, tiny_method

from wsol_jax import augment, heads, method, parallel, pixel_labels, seeds
from wsol_jax.backbones import resnet, vit


@pytest.mark.parametrize("name", METHODS)
def test_maps_are_in_zero_to_one(name):
    built = small_method(name)
    image = jax.random.normal(jax.random.key(0), (3, SIZE, SIZE, 3))
    variables = initialize(built)
    logits, maps = jax.jit(built.localize)(variables, image, jnp.array([0, 1, 0]))
    assert logits is None if name == "unet" else logits.shape == (3, 2)
    at_full_size = ("negev", "unet", "erase", *MAXMIN)  # decoders, and masks of images
    size = SIZE if name in at_full_size else SIZE // 8
    for values in maps.values():
        assert values.shape == (3, size, size)
        assert float(values.min()) >= 0
        assert float(values.max()) <= 1


def test_without_a_label_the_predicted_class_is_mapped():
    built = small_method("classifier")
    image = jax.random.normal(jax.random.key(0), (4, SIZE, SIZE, 3))
    variables = initialize(built)
    logits, predicted = jax.jit(built.localize)(variables, image)
    _, named = jax.jit(built.localize)(variables, image, jnp.argmax(logits, axis=-1))
    jax.tree.map(np.testing.assert_array_equal, predicted, named)


def test_all_readouts_cost_one_pass_of_the_encoder():
    def convolutions(*readouts):
        built = small_method("classifier", readouts=readouts)
        image = jnp.zeros((1, SIZE, SIZE, 3))
        traced = jax.make_jaxpr(built.localize)(shapes(built), image, jnp.array([0]))
        return str(traced).count("conv_general_dilated[")

    known = ("cam", "grad_cam", "grad_cam_pp", "layer_cam", "mean_features")
    assert convolutions(*known) == convolutions("cam") > 0


def test_unknown_names_list_the_known():
    encoder = resnet.resnet18()
    with pytest.raises(
        ValueError, match=r"unknown method 'pixlcam'; have \['classifier', .*'pixelcam'"
    ):
        method.build("pixlcam", encoder, heads.build("wgap", 2))
    with pytest.raises(ValueError, match=r"unknown head 'gem'; have .*'deep_mil'.*'wgap'"):
        heads.build("gem", 2)
    with pytest.raises(ValueError, match="unknown pixel_head 'deep'; have"):
        small_method("pixelcam", pixel_head="deep")
    with pytest.raises(ValueError, match="unknown negatives 'none'; have"):
        small_method("pixelcam", negatives="none")
    with pytest.raises(
        ValueError,
        match=r"method 'pixelcam' has no setting \['pixel_wait'\]; have \['pixel_weight'",
    ):
        small_method("pixelcam", pixel_wait=1.0)
    with pytest.raises(ValueError, match=r"method 'sat' has no head; expected a pooling head"):
        method.build("sat", encoder, None)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("pixelcam", {"sampler": "highest"}, r"unknown sampler 'highest'; have \['lowest', 'prob"),
        ("negev", {"sampler": "highest"}, r"unknown sampler 'highest'; have"),
        ("pixelcam", {"foreground": -1}, "foreground is -1; expected a number at least 0"),
        ("pixelcam", {"fraction": 0.0}, "fraction is 0.0; expected a number above 0 and at most 1"),
        ("pixelcam", {"pixel_weight": -1.0}, "pixel_weight is -1.0; expected a number at least 0"),
        ("pixelcam", {"dropout": 2.0}, "dropout is 2.0; expected a number at least 0 and below 1"),
        ("classifier", {"dropout": 1.0}, "dropout is 1.0; expected"),
        ("negev", {"size_weight": -1.0}, "size_weight is -1.0; expected a number at least 0"),
        ("negev", {"t": 20.0}, "t=20.0 lies above t_max=10.0"),
        ("negev", {"dilation": 2}, "a square of 2 pixels has no centre; expected an odd side"),
        ("sat", {"area": 2.0}, "area is 2.0; expected a number at least 0 and at most 1"),
        ("sat", {"area_weight": -1.0}, "area_weight is -1.0; expected a number at least 0"),
    ],
)
def test_what_cannot_be_trained_is_told_when_it_is_built(name, keywords, message):
    with pytest.raises(ValueError, match=message):
        small_method(name, **keywords)


@pytest.mark.parametrize("name", ["unet", "negev"])
def test_decoders_go_with_encoders_of_several_levels(name):
    encoder, head = vit.ViT(width=8, heads=2), heads.build("conv_gap", 2)
    with pytest.raises(ValueError, match=r"joins the levels of an encoder.*ViT has one.*resnet50"):
        method.build(name, encoder, head)


def test_sat_needs_a_location_token():
    with pytest.raises(ValueError, match="SAT needs a location token; pass --config"):
        method.build("sat", vit.ViT(width=8, heads=2), heads.build("conv_gap", 2))


def test_pixelcam_on_sat_keeps_the_terms_of_the_mask_when_asked():
    """They are dropped in the released code, and by default; kept, they are those of SAT."""
    encoder = vit.ViT(width=8, heads=2, depth=4, patch=8, grid=(4, 4), location=True)
    built = {
        name: method.build(name, encoder, heads.build("conv_gap", 2), **keywords)
        for name, keywords in [("sat", {}), ("pixelcam", {"sat_terms": True})]
    }
    prepared = {**jax.tree.map(jnp.asarray, batch(0)), "image": jnp.zeros((BATCH, SIZE, SIZE, 3))}
    prepared |= {"cam": jnp.ones((BATCH, SIZE, SIZE))}
    prepared["image"] += jax.random.normal(jax.random.key(1), prepared["image"].shape)
    keys = parallel.image_keys(jax.random.key(0), BATCH, None)
    variables = initialize(built["pixelcam"])
    terms = {}
    for name, one in built.items():
        params = {k: variables["params"][k] for k in shapes(one)["params"]}
        outputs = jax.jit(one.model.apply)({"params": params}, prepared["image"])
        terms[name] = one.loss(outputs, jax.jit(one.prepare)(prepared, keys))
    for term in ("area", "binarisation"):
        (weight, ours), (of_sat, theirs) = (terms[name][term] for name in ("pixelcam", "sat"))
        assert weight == of_sat == 1
        assert 0 < float(ours.value) == pytest.approx(float(theirs.value), rel=1e-6)
    assert set(terms["pixelcam"]) == {"image", "pixel", "area", "binarisation"}
    released = method.build("pixelcam", encoder, heads.build("conv_gap", 2))
    outputs = jax.jit(released.model.apply)(variables, prepared["image"])
    drawn = jax.jit(released.prepare)(prepared, keys)
    assert set(released.loss(outputs, drawn)) == {"image", "pixel"}
    with pytest.raises(ValueError, match="SAT needs a location token"):
        small_method("pixelcam", sat_terms=True)


def test_readouts_that_the_head_does_not_have():
    encoder, attention = resnet.resnet18(), heads.build("deep_mil", 2)
    for head, readouts, expected in [
        (heads.build("wgap", 2), ("deep_mil",), "with a head that is WGAP, no 'deep_mil'"),
        (attention, ("cam",), "with a head that is DeepMIL, no 'cam', whose class scores"),
        (attention, (), "expected one or more"),
    ]:
        with pytest.raises(ValueError, match=expected):
            method.build("classifier", encoder, head, readouts=readouts)
    method.build("classifier", encoder, attention, readouts=("deep_mil", "grad_cam"))


@pytest.mark.parametrize("grid", [None, 4])
@pytest.mark.parametrize("negatives", ["foreground", "background", "drop"])
def test_what_images_of_class_0_teach(negatives, grid):
    built = small_method("pixelcam", negatives=negatives, seed_grid=grid)
    keys = parallel.image_keys(jax.random.key(0), BATCH, None)
    views = augment.train_view(jax.tree.map(jnp.asarray, batch(0)), keys, size=SIZE)
    prepared = built.prepare(views, keys)
    drawn, label = prepared["seeds"], prepared["label"]
    assert not drawn.known[~prepared["valid"]].any()
    rows = (label == 0) & prepared["valid"]
    kept = drawn.known[rows].sum() if negatives != "background" else 0
    if negatives == "foreground":
        assert kept > 0
        assert (drawn.known[rows] & (drawn.target[rows] == 1)).any()
    if negatives == "background":
        assert not (drawn.known[rows] & (drawn.target[rows] == 1)).any()
        assert (drawn.known[rows] & (drawn.target[rows] == 0)).any()
    if negatives == "drop":
        assert kept == 0
    assert int(drawn.points.max()) < (grid or SIZE)


def test_pixel_weight_zero_leaves_the_classifiers_gradient():
    """The encoder of lambda = 0 moves exactly as the plain classifier's does."""
    pixelcam = small_method("pixelcam", pixel_weight=0.0)
    classifier = small_method("classifier")
    image = jax.random.normal(jax.random.key(0), (BATCH, SIZE, SIZE, 3))
    variables = initialize(pixelcam)
    prepared = jax.tree.map(jnp.asarray, batch(0))
    prepared |= {"image": image, "cam": jnp.ones((BATCH, SIZE, SIZE))}
    keys = parallel.image_keys(jax.random.key(0), BATCH, None)
    gradients = []
    for built in (pixelcam, classifier):
        params = {
            k: v for k, v in variables["params"].items() if k != "pixel_head" or built is pixelcam
        }
        stats = {
            k: v for k, v in variables["batch_stats"].items() if k == "encoder" or built is pixelcam
        }

        def total(params, built=built, stats=stats):
            outputs, _ = built.model.apply(
                {"params": params, "batch_stats": stats}, image, keys, True, mutable=["batch_stats"]
            )
            terms = built.loss(outputs, built.prepare(prepared, keys))
            return sum(weight * term.value for weight, term in terms.values())

        gradients.append(jax.jit(jax.grad(total))(params)["encoder"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *gradients)


def test_a_unet_learns_nothing_of_pixels_without_labels():
    built = small_method("unet")
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 2)), jnp.float32)
    mask = jnp.asarray(np.random.default_rng(1).integers(0, 2, (2, 8, 8)), jnp.uint8)
    batch = {"mask": mask.at[0, 2:].set(255), "valid": jnp.ones(2, bool)}

    def loss(logits):
        return built.loss({"pixel_logits": logits}, batch)["pixel"][1].value

    gradient = jax.grad(loss)(logits)
    np.testing.assert_array_equal(gradient[0, 2:], 0)
    assert np.all(np.abs(gradient[0, :2]) > 0)
    expected = -jax.nn.log_softmax(logits)[jnp.arange(2)[:, None, None], *np.indices((8, 8)), mask]
    assert float(loss(logits)) == pytest.approx(
        float(np.mean(expected[np.asarray(batch["mask"]) != 255])), rel=1e-6
    )


def test_dropout_reaches_the_image_head_alone():
    built, image = small_method("pixelcam", pixel_head="linear"), batch(0)["image"] / 255
    variables, keys = (
        initialize(built, image.shape[1]),
        jax.random.split(jax.random.key(0), len(image)),
    )

    def outputs(dropout):
        model = built.model.clone(dropout=dropout)
        apply = functools.partial(model.apply, keys=keys, train=True, mutable=["batch_stats"])
        return jax.jit(apply)(variables, jnp.asarray(image, jnp.float32))[0]

    dropped, whole = outputs(0.5), outputs(0.0)
    np.testing.assert_array_equal(dropped["pixel_logits"], whole["pixel_logits"])
    assert not np.allclose(dropped["logits"], whole["logits"])


@pytest.mark.parametrize("negatives", seeds.NEGATIVES)
def test_what_images_of_class_0_teach_a_decoder(negatives):
    options = {"negatives": negatives, "foreground": 2, "background": 2, "fraction": 0.5}
    given = {k: jnp.asarray(v) for k, v in batch(0).items()}
    given["cam"] = jnp.asarray(np.random.default_rng(0).random((len(given["label"]), 32, 32)))
    keys = jax.random.split(jax.random.key(0), len(given["label"]))
    counts = []
    for dilation in (1, 3):
        built = tiny_method("negev", dilation=dilation, channels=(8, 4), **options)
        target = np.asarray(jax.jit(built.prepare)(given, keys)["target"])
        known = target != pixel_labels.UNANNOTATED
        taught = np.asarray(given["valid"] & ((given["label"] > 0) | (negatives == "foreground")))
        assert not known[~taught].any()
        assert known[taught].any((1, 2)).all()
        counts.append(known.sum())
    assert counts[0] == 4 * taught.sum()
    assert counts[1] > 4 * counts[0]
