"""Vision transformers: token layouts, sizes, and their import against timm's own models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsol_jax.backbones import vit, weights

NOT_WHOLE = {"exc_type": (ImportError, RuntimeError)}  # an import that fails is a skip, too
SMALL = {"width": 24, "heads": 3, "depth": 4, "patch": 8, "grid": (4, 4)}
KINDS = {  # keywords of ours, keywords of timm's
    "deit": ({}, {}),
    "registers": (
        {"registers": 4, "prefix_position": False, "layer_scale": True},
        {"reg_tokens": 4, "no_embed_class": True, "init_values": 1e-5},
    ),
    "deit3": (
        {"prefix_position": False, "layer_scale": True},
        {"no_embed_class": True, "init_values": 1e-6},
    ),
    "gated": ({"gated": True, "hidden": 40}, {"mlp_ratio": 80 / 24}),
}


@pytest.fixture
def image():
    return jax.random.normal(jax.random.key(0), (2, 32, 32, 3))


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_every_variant_is_its_table_row(variant):
    model = vit.build(variant, depth=1)
    size = 2 * model.patch
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, 3 * model.patch, 3)))
    tokens = shapes["params"]["pos_embed"].shape[1]
    without = "reg4" in variant or "deit3" in variant
    assert tokens == model.grid[0] * model.grid[1] + (0 if without else 1)
    assert ("reg_token" in shapes["params"]) == ("reg4" in variant)
    out = jax.eval_shape(model.apply, shapes, jnp.zeros((1, size, 3 * model.patch, 3)))
    assert [level.shape for level in out] == [(1, 2, 3, model.width)]


def test_deit_tiny_has_the_published_number_of_parameters():
    model = vit.build("deit_tiny_patch16_224")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 5_524_416


def test_a_location_token_adds_a_level_of_maps(image):
    model = vit.ViT(**SMALL, location=True)
    variables = model.init(jax.random.key(1), image)
    maps, features = model.apply(variables, image)
    assert maps.shape == (2, 4, 4, 3)
    assert features.shape == (2, 4, 4, 24)
    assert 0 < float(maps.min()) < float(maps.max()) < 1


def test_stochastic_depth_drops_whole_branches_while_training(image):
    model = vit.ViT(**SMALL, drop_path=0.9)
    variables = model.init(jax.random.key(1), image)
    keys = jax.random.split(jax.random.key(2), 2)
    evaluated = model.apply(variables, image, keys)[-1]
    np.testing.assert_array_equal(evaluated, model.apply(variables, image)[-1])
    trained = model.apply(variables, image, keys, train=True)[-1]
    assert np.abs(trained - evaluated).max() > 1e-3
    alone = model.apply(variables, image[1:], keys[1:], train=True)[-1]
    np.testing.assert_allclose(alone[0], trained[1], rtol=1e-5, atol=1e-5)


def test_images_must_divide_into_patches():
    model = vit.ViT(**SMALL)
    with pytest.raises(ValueError, match=r"30 x 40 does not divide into patches of 8; .* 32 x 40"):
        model.init(jax.random.key(0), jnp.zeros((1, 30, 40, 3)))


def test_unknown_variants_list_the_known():
    with pytest.raises(ValueError, match=r"unknown ViT variant 'vit_nano'; have \['deit3_base"):
        vit.build("vit_nano")


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_every_variant_has_the_tensors_of_timms(variant):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    timm = pytest.importorskip("timm", reason="timm comes with the extra 'bench'", **NOT_WHOLE)
    with torch.device("meta"):  # shapes without values
        theirs = timm.create_model(variant).state_dict()
    tensors = {name: np.broadcast_to(np.float32(0), value.shape) for name, value in theirs.items()}
    model = vit.build(variant)
    image = jnp.zeros((1, 2 * model.patch, 2 * model.patch, 3))
    fresh = jax.eval_shape(model.init, jax.random.key(0), image)
    weights.assign(fresh, tensors, extra=vit.EXTRA_TENSORS)


@pytest.mark.parametrize("size", [(32, 32), (48, 24)], ids=["square", "not square"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_timm(kind, size):
    torch = pytest.importorskip("torch", reason="PyTorch comes with the extra 'bench'")
    reason = "timm comes with the extra 'bench'"
    timm = pytest.importorskip("timm.models.vision_transformer", reason=reason, **NOT_WHOLE)
    ours, theirs = KINDS[kind]
    if kind == "gated":
        theirs = {**theirs, "mlp_layer": timm.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    torch.manual_seed(0)
    reference = timm.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=4,
        num_heads=3,
        num_classes=0,
        dynamic_img_size=True,
        **theirs,
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(0, 0.3)
    model = vit.ViT(**SMALL, **ours)
    image = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    fresh = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    tensors = {name: value.numpy() for name, value in reference.state_dict().items()}
    variables = weights.assign(fresh, tensors)
    with torch.no_grad():
        tokens = reference.forward_features(torch.as_tensor(image.transpose(0, 3, 1, 2)))
    expected = tokens[:, reference.num_prefix_tokens :].numpy()
    with jax.default_matmul_precision("highest"):
        found = model.apply(variables, jnp.asarray(image))[-1].reshape(expected.shape)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
