"""What a config asks for is checked against the data before any work."""

import functools

import glas_folder
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from wsol_jax import augment, experiment, identity, pretrained
from wsol_jax.backbones import vit, weights
from wsol_jax.data import memory, sources, splits


@pytest.mark.parametrize("num_classes", [2, 3])
def test_labels_that_no_output_stands_for(monkeypatch, num_classes):
    seen = small.small_data().seen
    split = seen._replace(labels=np.arange(seen.size, dtype=np.int32) % 3)
    monkeypatch.setattr(sources, "open_split", lambda **_: split)
    config = small.small_config()
    config.num_classes = num_classes
    if num_classes == 3:
        assert experiment.open_data(config).seen is split
        return
    message = r"labels up to 2, but num_classes is 2; pass --config.num_classes=3"
    with pytest.raises(ValueError, match=message):
        experiment.open_data(config)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_sizes_of_the_splits(monkeypatch, keep_aspect):
    seen, sizings = small.small_data().seen, []

    def open_split(*, split, sizing, **_):
        sizings.append((split, sizing))
        return seen

    monkeypatch.setattr(sources, "open_split", open_split)
    config = small.small_config()
    config.resize, config.image_size, config.keep_aspect = 432, 416, keep_aspect
    config.baseline = None
    experiment.open_data(config)
    cropped, whole = (
        (432, keep_aspect, False),
        (432, True, True) if keep_aspect else (416, False, False),
    )
    splits = [
        ("train", whole),
        ("train", cropped),
        *[(n, whole) for n in ("valcl", "valpx", "test")],
    ]
    assert sizings == splits
    config.resize = 400
    with pytest.raises(ValueError, match=r"400 pixels .* crop of 416; pass --config.resize=416"):
        experiment.open_data(config)


def test_cams_need_images_of_one_shape(tmp_path):
    folder = glas_folder.write(tmp_path, sizes=((40, 44), (50, 40)))
    config = small.two_phases()
    config.data, config.keep_aspect = {"name": "glas", "folder": str(folder)}, True
    with pytest.raises(ValueError, match=r"differ in shape.* --config.keep_aspect=False"):
        experiment.open_data(config)
    config.baseline = None
    assert experiment.open_data(config).train.size == 67


def test_a_run_is_known_by_its_data_before_they_are_opened(tmp_path):
    config = small.two_phases()
    config.data = {"name": "glas", "folder": str(glas_folder.write(tmp_path))}
    listed, opened = experiment.list_data(config), experiment.open_data(config)._asdict()
    assert identity.fingerprint(listed) == identity.fingerprint(opened)


@pytest.mark.parametrize("look", [experiment.list_data, experiment.open_data])
def test_b_loc_needs_pixel_labels(monkeypatch, look):
    seen = small.small_data().seen
    found = {"open_split": seen, "list_split": splits.Listing(seen.names, seen.labels)}
    for name, given in found.items():
        of_split = dict.fromkeys(("train", "valcl", "test"), given)
        monkeypatch.setattr(sources, name, lambda *, split, of=of_split, **_: of.get(split))
    config = small.two_phases()
    with pytest.raises(ValueError, match=r"no pixel-labelled .*cam_checkpoint=b_cl"):
        look(config)
    config.baseline.cam_checkpoint = "b_cl"
    look(config)


def test_statistics_are_taken_from_every_training_image_of_any_shape(monkeypatch):
    rng, seen = np.random.default_rng(0), []
    shapes = [(32, 40), (40, 32), (32, 40)] * 7
    own = [(rng.integers(0, 256, (*s, 3), np.uint8), np.zeros(s, np.uint8)) for s in shapes]
    split = memory.serve(("",) * 21, np.zeros(21, np.int32), own, window=21)
    monkeypatch.setattr(weights, "load", lambda source: {})
    monkeypatch.setattr(weights, "assign", lambda encoder, *_, **__: encoder)
    monkeypatch.setattr(weights, "is_folded", lambda encoder: True)
    monkeypatch.setattr(
        weights, "recalibrate", lambda model, encoder, images: seen.extend(images) or encoder
    )
    config = small.small_config("classifier")
    config.weights.source = "folded.npz"
    built = experiment.build(config, config.method)
    on_device = split._replace(
        ordered=lambda size: (jax.tree.map(jnp.asarray, b) for b in split.ordered(size))
    )
    pretrained.encoder(config, built, on_device)
    images = [image for batch in seen for image in batch]
    order = sorted(range(21), key=lambda i: shapes[i] != shapes[0])
    for image, i in zip(images, order, strict=True):
        batch = {"image": jnp.asarray(own[i][0][None])}
        expected = augment.eval_view(batch, **built.normalization)["image"][0]
        np.testing.assert_array_equal(image, expected)


def test_zeros_are_shaped_as_initial_values_are():
    config = small.small_config()
    built = experiment.build(config, config.method)
    drawn, zeros = experiment.initialize(config, built), experiment.zeros(config, built)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(
        lambda x: (x.shape, x.dtype), zeros
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(zeros))


def test_unknown_backbones_list_the_known():
    config = small.small_config()
    config.backbone.name = "resnet34"
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet34'; have .*'inception_v3'"):
        experiment.build(config, config.method)


def test_settings_that_an_encoder_or_a_head_does_not_have():
    config = small.small_config()
    config.backbone.stride = 2
    with pytest.raises(
        ValueError, match=r"backbone 'resnet18' has no setting \['stride'\]; have \["
    ):
        experiment.build(config, config.method)
    config.backbone = {"name": "vgg16", "width": 8}
    config.head = {"name": "wgap", "kmax": 0.3}
    message = r"head 'wgap' has no setting \['kmax'\]; have \['background_row'\]"
    with pytest.raises(ValueError, match=message):
        experiment.build(config, config.method)


def test_half_precision_is_for_training_on_accelerators(monkeypatch):
    config = small.small_config()
    for platform, expected in (("cpu", None), ("gpu", jnp.bfloat16)):
        monkeypatch.setattr(jax, "default_backend", lambda name=platform: name)
        trained = experiment.build(config, config.method, training=True)
        assert trained.model.encoder.dtype == trained.model.pixel_head.dtype == expected
        assert experiment.build(config, config.method).model.encoder.dtype is None
        for config.precision, given in (
            ("float32", None),
            ("bfloat16", jnp.bfloat16),
            ("", expected),
        ):
            trained = experiment.build(config, config.method, training=True)
            assert trained.model.encoder.dtype == given
    config.precision = "half"
    with pytest.raises(
        ValueError, match=r"unknown precision 'half'; have \['', 'bfloat16', 'float"
    ):
        experiment.build(config, config.method)


@pytest.fixture
def few_backbones(monkeypatch):
    """Some backbones in place of all, which take seconds to look at."""
    few = {name: experiment.BACKBONES[name] for name in ("resnet18", "resnet50", "double_conv")}
    monkeypatch.setattr(experiment, "BACKBONES", few)
    return few


@pytest.mark.usefixtures("few_backbones")
def test_a_checkpoint_of_another_architecture_is_named_with_the_backbone(tmp_path):
    wide = {"conv1.weight": np.zeros((64, 1, 7, 7), np.float32), "blocks.0.gamma": np.zeros(3)}
    np.savez(tmp_path / "vit.npz", **wide)
    config = small.small_config("classifier")
    config.weights.source = str(tmp_path / "vit.npz")
    with pytest.raises(
        ValueError, match=r"vit.npz does not fit the backbone 'resnet18', see"
    ) as told:
        pretrained.encoder(config, experiment.build(config, config.method), small.small_data().seen)
    assert "--config.backbone.name= and --config.weights.source=; is it one of" in str(told.value)
    assert "extra (1): blocks.0.gamma" in str(told.value)
    assert "conv1.weight (64, 1, 7, 7), expected (8, 3, 7, 7)" in str(told.value)  # O I H W


def test_a_checkpoint_is_told_which_backbones_it_fits(few_backbones, monkeypatch, tmp_path):
    deit = functools.partial(vit.build, "deit_tiny_patch16_224", depth=1)
    few_backbones["another"] = few_backbones["deit"] = few_backbones["double_conv"]._replace(
        make=deit, extra=vit.EXTRA_TENSORS, new=vit.NEW_TENSORS
    )
    config = small.small_config("classifier")
    config.backbone = {"name": "deit"}
    tensors = small.encoder_tensors(config)
    assert pretrained.fitting({**tensors, "head.bias": np.zeros(3)}) == ["another", "deit"]
    assert pretrained.fitting({**tensors, "more": np.zeros(3)}) == []
    config.weights.source = str(tmp_path / "weights.npz")
    np.savez(config.weights.source, **tensors)
    config.backbone = {"name": "double_conv", "widths": (4, 8)}
    built = experiment.build(config, config.method)
    with pytest.raises(ValueError, match=r"'double_conv' \(it fits \['another', 'deit'\]\), see "):
        pretrained.encoder(config, built, small.small_data().seen)


@pytest.mark.parametrize(
    ("backbone", "method"),
    [
        ({"name": "vgg16", "width": 4}, {"name": "negev", "channels": (8, 8, 8, 4)}),
        ({"name": "vgg16", "width": 4}, {"name": "maxmin"}),
        ({"name": "vgg16", "width": 4}, {"name": "pixelcam", "pixel_head": "multi_layer"}),
        (
            {"name": "deit_tiny_patch16_224", "width": 8, "heads": 2, "depth": 2, "location": True},
            {"name": "pixelcam", "pixel_batch_norm": True},
        ),
    ],
)
def test_an_encoder_without_batch_norm_goes_with_methods_that_have_some(
    monkeypatch, backbone, method
):
    config = small.small_config()
    config.backbone, config.method = backbone, method
    config.image_size = config.resize = 64 if backbone["name"] == "vgg16" else 224
    kind = experiment.BACKBONES[backbone["name"]]
    monkeypatch.setitem(experiment.BACKBONES, backbone["name"], kind._replace(renamed=dict))
    monkeypatch.setattr(experiment, "initialize", experiment.zeros)  # which compiles nothing
    tensors = small.encoder_tensors(config)
    monkeypatch.setattr(weights, "load", lambda source: dict(tensors))
    config.weights.source = "weights.npz"
    built = experiment.build(config, config.method)
    zeros = experiment.zeros(config, built)
    assert "encoder" not in zeros["batch_stats"]
    loaded, facts = pretrained.encoder(config, built, small.small_data().seen)
    assert facts["folded"] is False
    filled = experiment.transplant(zeros, loaded)
    assert all(np.all(leaf >= 0.5) for leaf in jax.tree.leaves(filled["params"]["encoder"]))
    assert {module for tree in loaded.values() for module in tree} == {"encoder"}


def test_the_folded_bias_of_a_missing_kernel_is_dropped(monkeypatch):
    """It was made for that kernel, and says nothing of a random one."""
    file = {"layer4.0.conv1.bias": np.ones(8), "layer4.0.conv2.bias": np.ones(8)}
    given = {}
    monkeypatch.setattr(weights, "load", lambda source: dict(file))
    monkeypatch.setattr(weights, "is_folded", lambda encoder: False)
    monkeypatch.setattr(
        weights, "assign", lambda encoder, tensors, **_: given.update(tensors) or encoder
    )
    config = small.small_config("classifier")
    config.weights.source, config.weights.allow_missing = "a.npz", ("layer4.0.conv1.weight",)
    pretrained.encoder(config, experiment.build(config, config.method), small.small_data().seen)
    assert given["layer4.0.bn1.bias"].tolist() == [0] * 8
    assert given["layer4.0.bn2.bias"].tolist() == [1] * 8
