"""Vision transformers: token layouts, sizes, and their import against timm's own models."""

import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import timm_models

from wsol_jax.backbones import vit, weights

NOT_WHOLE = {"exc_type": (ImportError, RuntimeError)}  # an import that fails is a skip, too
SMALL = {"width": 24, "heads": 3, "depth": 4, "patch": 8, "grid": (4, 4)}


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
    variables = jax.jit(model.init)(jax.random.key(1), image)
    maps, features = jax.jit(model.apply)(variables, image)
    assert maps.shape == (2, 4, 4, 3)
    assert features.shape == (2, 4, 4, 24)
    assert 0 < float(maps.min()) < float(maps.max()) < 1


def test_stochastic_depth_drops_whole_branches_while_training(image):
    model = vit.ViT(**SMALL, drop_path=0.9)
    variables = jax.jit(model.init)(jax.random.key(1), image)
    apply = jax.jit(model.apply, static_argnames="train")
    keys = jax.random.split(jax.random.key(2), 2)
    evaluated = apply(variables, image, keys)[-1]
    np.testing.assert_array_equal(evaluated, apply(variables, image)[-1])
    trained = apply(variables, image, keys, train=True)[-1]
    assert np.abs(trained - evaluated).max() > 1e-3
    alone = apply(variables, image[1:], keys[1:], train=True)[-1]
    np.testing.assert_allclose(alone[0], trained[1], rtol=1e-5, atol=1e-5)


def test_images_must_divide_into_patches():
    model = vit.ViT(**SMALL)
    with pytest.raises(ValueError, match=r"30 x 40 does not divide into patches of 8; .* 32 x 40"):
        model.init(jax.random.key(0), jnp.zeros((1, 30, 40, 3)))


def test_unknown_variants_list_the_known():
    with pytest.raises(ValueError, match=r"unknown ViT variant 'vit_nano'; have \['deit3_base"):
        vit.build("vit_nano")


def tensors_of(model):
    """Names and shapes of a model's tensors, in PyTorch's layout, and its fresh variables."""
    image = jnp.zeros((1, model.grid[0] * model.patch, model.grid[1] * model.patch, 3))
    fresh = jax.eval_shape(model.init, jax.random.key(0), image)
    leaves = flax.traverse_util.flatten_dict(dict(fresh)).items()
    layouts = {2: (1, 0), 4: (3, 2, 0, 1)}  # of matrices and of kernels
    return fresh, {
        weights.torch_name(path): tuple(leaf.shape[i] for i in layouts[leaf.ndim])
        if leaf.ndim in layouts
        else leaf.shape
        for path, leaf in leaves
    }


@pytest.mark.parametrize("variant", vit.VARIANTS)
def test_every_variant_has_the_tensors_of_timms(variant):
    recorded = json.loads(timm_models.TENSORS.read_text())["tensors"]
    _, shapes = tensors_of(vit.build(variant))
    assert [len(shapes), timm_models.digest(shapes)] == recorded[variant]


@pytest.mark.parametrize("size", timm_models.SIZES, ids=["square", "not square"])
@pytest.mark.parametrize("kind", timm_models.KINDS)
def test_tokens_are_those_of_timm(kind, size):
    model = vit.ViT(**SMALL, **timm_models.KINDS[kind][0])
    fresh, shapes = tensors_of(model)
    drawn = {n: v.astype(np.float32) for n, v in timm_models.drawn(shapes).items()}
    variables = weights.assign(fresh, drawn)
    with np.load(timm_models.TOKENS) as recorded:
        expected = recorded[f"{kind}/{size[0]} x {size[1]}"]
    with jax.default_matmul_precision("highest"):
        found = jax.jit(model.apply)(variables, jnp.asarray(timm_models.images(size)))[-1]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mlp", [("0", "3"), ("linear_1", "linear_2")], ids=["1.0", "later"])
def test_torchvisions_names_find_their_places(mlp):
    """Its model has, of one shape and in one order, the tensors of timm's; only names differ."""
    block = "encoder.layers.encoder_layer_{}."
    parts = ["ln_1.", "self_attention.in_proj_", "self_attention.out_proj.", "ln_2."]
    parts += [f"mlp.{layer}." for layer in mlp]
    names = ["class_token", "conv_proj.weight", "conv_proj.bias", "encoder.pos_embedding"]
    for index in range(12):
        names += [block.format(index) + p + leaf for p in parts for leaf in ("weight", "bias")]
    names += ["encoder.ln.weight", "encoder.ln.bias", "heads.head.weight", "heads.head.bias"]
    parts = ["norm1.", "attn.qkv.", "attn.proj.", "norm2.", "mlp.fc1.", "mlp.fc2."]
    ours = ["cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"]
    for index in range(12):
        ours += [f"blocks.{index}.{p}{leaf}" for p in parts for leaf in ("weight", "bias")]
    ours += ["norm.weight", "norm.bias"]
    found = list(vit.renamed(dict.fromkeys(names, np.zeros(1))))
    assert found[:-2] == ours
    assert all(name.startswith(vit.EXTRA_TENSORS) for name in found[-2:])
    assert set(ours) == set(tensors_of(vit.build("vit_base_patch16_224"))[1])
    assert list(vit.renamed(dict.fromkeys(ours, np.zeros(1)))) == ours


def test_the_records_are_what_timm_gives():
    pytest.importorskip("timm", reason="timm comes with the extra 'bench'", **NOT_WHOLE)
    recorded = json.loads(timm_models.TENSORS.read_text())["tensors"]
    own = {
        name: shape
        for name, shape in timm_models.tensors("deit_tiny_patch16_224").items()
        if not name.startswith(vit.EXTRA_TENSORS)
    }
    assert [len(own), timm_models.digest(own)] == recorded["deit_tiny_patch16_224"]
    with np.load(timm_models.TOKENS) as stored:
        np.testing.assert_allclose(
            timm_models.tokens("gated", (48, 24)), stored["gated/48 x 24"], atol=1e-4
        )
