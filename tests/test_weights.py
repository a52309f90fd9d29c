"""Import of checkpoints: strict, by name, folded normalisation included."""

import functools
import json
import re

import flax.traverse_util
import golden_cases
import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import small
from golden_cases import draw

from wsol_jax import batch_norm, experiment, pretrained
from wsol_jax.backbones import resnet, vgg, vit, weights

SMALL = resnet.ResNet((1, 1, 1, 1), bottleneck=True, width=8)
IMAGES = jax.random.normal(jax.random.key(5), (6, 32, 32, 3))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(SMALL.init)(jax.random.key(0), IMAGES[:1])


@pytest.fixture(scope="module")
def tensors(variables):
    """A checkpoint in PyTorch's names and layouts, with the ImageNet classifier it always has."""
    shapes = {}
    for path, leaf in _leaves(variables):
        shape = leaf.transpose(3, 2, 0, 1).shape if leaf.ndim == 4 else leaf.shape
        shapes[weights.torch_name(path)] = list(shape)
    shapes |= {"fc.weight": [10, 256], "fc.bias": [10], "bn1.num_batches_tracked": []}
    return {name: draw(name, shapes, seed=0) for name in shapes}


def _leaves(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(tuple(key.key for key in path), leaf) for path, leaf in flat]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_and_layouts(tmp_path, variables, tensors, suffix):
    path = tmp_path / f"weights{suffix}"
    halves = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in tensors.items()}
    if suffix == ".npz":
        np.savez(path, **halves)
    else:
        safetensors.numpy.save_file(halves, path)
    filled = weights.assign(variables, weights.load(str(path)), extra=resnet.EXTRA_TENSORS)
    kernel = filled["params"]["layer1.0"]["conv2"]["kernel"]
    assert kernel.dtype == np.float32
    expected = halves["layer1.0.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected.astype(np.float32))
    var = filled["batch_stats"]["layer4.0"]["downsample.1"]["var"]
    np.testing.assert_array_equal(var, halves["layer4.0.downsample.1.running_var"])


def test_every_mismatch_is_listed(variables, tensors):
    broken = dict(tensors)
    del broken["conv1.weight"]
    broken["layer9.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    broken["bn1.bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="is it one of another") as error:
        weights.assign(variables, broken, extra=resnet.EXTRA_TENSORS)
    for part in (
        "missing (1): conv1.weight",
        "extra (1): layer9.0.conv1",
        "bn1.bias (3,), expected",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_truncated_file_is_named(tmp_path, tensors, suffix):
    path = tmp_path / f"weights{suffix}"
    save = np.savez if suffix == ".npz" else lambda p, **k: safetensors.numpy.save_file(k, p)
    save(path, **tensors)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    message = rf"weights{suffix} \({len(whole) // 2} bytes\) is not a whole .* fetch it again"
    with pytest.raises(ValueError, match=message):
        weights.load(str(path))


def test_another_architecture_is_suspected_in_a_few_lines(variables):
    others = {f"blocks.{i}.attn.qkv.weight": np.zeros((3, 1), np.float32) for i in range(24)}
    with pytest.raises(ValueError, match="is it one of another architecture") as error:
        weights.assign(variables, others)
    assert "extra (24): blocks.0.attn.qkv.weight" in str(error.value)
    assert "and 12 more" in str(error.value)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize("case", golden_cases.cases("01_"), ids=lambda case: case.name)
def test_published_checkpoints_have_the_names_expected(case):
    """Every tensor of torchvision's or timm's file finds its place; nothing else is missing."""
    name = {"01_backbone_deit_tiny_timm": "deit_tiny_patch16_224"}.get(case.name)
    name = name or case.spec["encoder"].replace("inceptionv3", "inception_v3")
    shapes = case.spec.get("torchvision_state", case.spec["state"])
    assert _absent(name, shapes) <= {*experiment.BACKBONES[name].new}


def test_timm_has_other_names_for_the_classifier_of_a_vgg():
    timm = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2"}
    timm["classifier.6"] = "head.fc"
    (case,) = (c for c in golden_cases.cases("01_") if c.spec.get("encoder") == "vgg16")
    shapes = {}
    for name, shape in case.spec["torchvision_state"].items():
        module, leaf = name.rsplit(".", 1)
        shapes[f"{timm.get(module, module)}.{leaf}"] = shape
    assert _absent("vgg16", shapes) == {*vgg.NEW_TENSORS}


def _absent(backbone, shapes):
    """Tensors of a backbone that a file with tensors of these shapes does not have."""
    kind = experiment.BACKBONES[backbone]
    fresh = jax.eval_shape(kind.make().init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    file = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    filled = weights.assign(fresh, kind.renamed(file), extra=kind.extra, allow_missing=kind.new)
    return {
        weights.torch_name(path)
        for path, leaf in flax.traverse_util.flatten_dict(dict(filled)).items()
        if isinstance(leaf, jax.ShapeDtypeStruct)
    }


def test_the_classifier_is_extra_unless_said(variables, tensors):
    with pytest.raises(ValueError, match=r"extra \(2\): fc.weight, fc.bias"):
        weights.assign(variables, tensors)


def test_missing_is_allowed_by_name_only(variables, tensors):
    without = {k: v for k, v in tensors.items() if not k.startswith("layer4.0.conv")}
    names = [f"layer4.0.conv{n}.weight" for n in (1, 2, 3)]
    with pytest.raises(ValueError, match=r"missing \(2\)"):
        weights.assign(variables, without, extra=("fc.",), allow_missing=names[:1])
    filled = weights.assign(variables, without, extra=("fc.",), allow_missing=names)
    kept = variables["params"]["layer4.0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(filled["params"]["layer4.0"]["conv1"]["kernel"], kept)


def test_pickles_and_missing_files_are_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"convert_weights.py model.pth model.safetensors"):
        weights.load("model.pth")
    with pytest.raises(FileNotFoundError, match=r"no weights at .*Hugging Face id"):
        weights.load(str(tmp_path / "absent.npz"))


def test_a_hub_out_of_reach_is_named_with_the_way_round(monkeypatch):
    def unreachable(repository, name):
        raise huggingface_hub.errors.LocalEntryNotFoundError(f"no route to {repository}")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    expected = r"model.safetensors of 'a/b' .*no route to a/b.*--config.weights.source="
    with pytest.raises(FileNotFoundError, match=expected):
        weights.load("a/b")


def test_stride_in_conv1_or_conv2_is_another_function(variables, tensors):
    filled = weights.assign(variables, tensors, extra=("fc.",))
    first = jax.jit(SMALL.clone(stride_in="conv1").apply)(filled, IMAGES)[-1]
    second = jax.jit(SMALL.apply)(filled, IMAGES)[-1]
    assert first.shape == second.shape
    assert np.abs(first - second).max() > 1e-3
    with pytest.raises(ValueError, match=r"unknown stride_in 'conv3'; have \['conv1', 'conv2'\]"):
        SMALL.clone(stride_in="conv3").apply(filled, IMAGES)


@pytest.fixture(scope="module")
def folded(variables):
    """The same network with its normalisations folded away, and random biases."""
    params = jax.tree.map(lambda x: x, variables["params"])
    stats = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    stats = jax.tree_util.tree_map_with_path(
        lambda path, x: x + (1 - 1e-5 if path[-1].key == "var" else 0), stats
    )
    keys = iter(jax.random.split(jax.random.key(3), 100))
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.random.normal(next(keys), x.shape) if path[-1].key == "bias" else x,
        params,
    )
    return {"params": params, "batch_stats": stats}


def test_biases_of_convolutions_are_normalisations_folded_away(variables, folded):
    """A checkpoint that has no normalisation gives what the identity ones give."""
    leaves = {
        **flax.traverse_util.flatten_dict(folded["params"]),
        **flax.traverse_util.flatten_dict(folded["batch_stats"]),
    }
    without = {}
    for path, value in leaves.items():
        name = weights.torch_name(("params", *path))
        if name.endswith(("conv1.weight", "conv2.weight", "conv3.weight", "downsample.0.weight")):
            without[name] = np.asarray(value).transpose(3, 2, 0, 1)
        elif name.endswith(".bias"):
            of = re.sub(r"bn(\d)\.", r"conv\1.", name).replace("downsample.1.", "downsample.0.")
            without[of] = np.asarray(value)
    assert not any("bn" in name or "running" in name for name in without)
    filled = weights.assign(variables, resnet.renamed(without))
    assert weights.is_folded(filled)
    apply = jax.jit(SMALL.apply)
    expected, found = (apply(v, IMAGES[:2])[-1] for v in (folded, filled))
    np.testing.assert_array_equal(found, expected)
    again = resnet.renamed(resnet.renamed(without))
    jax.tree.map(np.testing.assert_array_equal, again, resnet.renamed(without))


def test_biases_beside_normalisations_are_told_and_not_taken_for_them(variables, tensors):
    given = {**tensors, "layer1.0.conv2.bias": tensors["layer1.0.bn2.bias"]}
    with pytest.raises(ValueError, match=r"extra \(1\): layer1.0.conv2.bias"):
        weights.assign(variables, resnet.renamed(given), extra=resnet.EXTRA_TENSORS)


def test_half_precision_and_names_of_parallel_training(tmp_path):
    path, halves = tmp_path / "a.safetensors", jnp.arange(3, dtype=jnp.bfloat16)
    safetensors.numpy.save_file({"module.fc.weight": np.asarray(halves)}, path)
    loaded = weights.load(str(path))["fc.weight"]
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, [0, 1, 2])


def test_positions_of_another_grid_are_told_with_the_setting_for_them():
    encoder = vit.build("deit_tiny_patch16_224", depth=1)
    fresh = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    file = {"pos_embed": np.zeros((1, 577, 192), np.float32)}
    with pytest.raises(
        ValueError, match=r"pos_embed .*577, 192.*--config.backbone.grid='\(24,24\)'"
    ):
        weights.assign(fresh, file)


def test_recalibration_leaves_the_function_alone(variables, folded):
    assert weights.is_folded(folded)
    tensors_like = jax.tree.map(lambda x: x + 0.1, variables)
    assert not weights.is_folded(tensors_like)
    renewed = weights.recalibrate(SMALL, folded, [IMAGES[:4], IMAGES[4:]])
    before, after = (jax.jit(SMALL.apply)(v, IMAGES)[-1] for v in (folded, renewed))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3 * float(jnp.abs(before).max()))
    assert not weights.is_folded(renewed)


def test_recalibration_knows_the_epsilon_of_a_normalisation():
    model, inputs = batch_norm.BatchNorm(epsilon=0.5), 3 * IMAGES
    fresh = model.init(jax.random.key(0), inputs)
    renewed = weights.recalibrate(model, fresh, [inputs])
    assert np.abs(renewed["batch_stats"]["mean"]).max() > 0
    expected, found = (model.apply(v, inputs) for v in (fresh, renewed))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_after_recalibration_training_starts_level(folded):
    renewed = weights.recalibrate(SMALL, folded, [IMAGES[:4], IMAGES[4:]])
    training = jax.jit(functools.partial(SMALL.apply, train=True, mutable=["batch_stats"]))
    evaluated = jax.jit(SMALL.apply)(renewed, IMAGES)[-1]
    trained, _ = training(renewed, IMAGES)
    np.testing.assert_allclose(
        trained[-1], evaluated, rtol=1e-3, atol=1e-3 * float(jnp.abs(evaluated).max())
    )
    raw, _ = training(folded, IMAGES)
    assert np.abs(raw[-1] - evaluated).max() > 0.1 * np.abs(evaluated).max()


@pytest.mark.parametrize(
    ("said", "warnings"),
    [
        ({"architecture": "resnet18", "pretrained_cfg": {"mean": [0.485, 0.456, 0.406]}}, []),
        ({"architecture": "resnetaa18"}, ["is a resnetaa18, which has the tensors of a resnet18"]),
        (
            {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}},
            ["mean='(0.5, 0.5, 0.5)' --config.weights.std='(0.5, 0.5, 0.5)', and has"],
        ),
        ("no JSON", []),
        (None, []),
    ],
)
def test_other_architectures_and_inputs_are_warned_of(
    tmp_path, monkeypatch, caplog, said, warnings
):
    config = small.small_config("classifier")
    tensors = small.encoder_tensors(config)

    def download(repository, name):
        assert (repository, name) == ("timm/some.tag", "config.json")
        if said is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError("offline")
        (tmp_path / name).write_text(said if isinstance(said, str) else json.dumps(said))
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(weights, "load", lambda source: dict(tensors))
    config.weights.source = "timm/some.tag"
    built = experiment.build(config, config.method)
    pretrained.encoder(config, built, small.small_data().seen)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == len(warnings)
    assert all(part in message for part, message in zip(warnings, told, strict=True))
