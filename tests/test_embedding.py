"""Pixel features in the plane: which pixels, of which image, and a figure that shows them all."""

import sys
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
import small

from wsol_jax import augment, embedding, figures

SPLIT = small.small_data().test


def chosen(name, split=SPLIT):
    return embedding.example(split, name)


def with_masks(change):
    """The split with its masks changed, batch by batch."""

    def ordered(size, **options):
        for batch in SPLIT.ordered(size, **options):
            yield {**batch, "mask": change(batch["mask"], batch["index"][0])}

    return SPLIT._replace(ordered=ordered)


def test_an_image_is_found_by_name_else_the_first_with_both_classes():
    assert chosen("square_3")["index"].tolist() == [3]
    assert chosen(None)["index"].tolist() == [0]
    later = with_masks(lambda mask, index: mask if index == 2 else np.zeros_like(mask))
    assert chosen(None, later)["index"].tolist() == [2]
    with pytest.raises(ValueError, match=r"'a.png'; the 5 names are 'square_0' ... 'square_4'"):
        chosen("a.png")
    with pytest.raises(ValueError, match="choose one: --image=NAME"):
        chosen(None, with_masks(lambda mask, _: np.zeros_like(mask)))


@pytest.mark.parametrize("name", ["pixelcam", "unet"])
def test_pixels_are_those_with_a_label(name):
    built = small.tiny_method(name) if name == "pixelcam" else small.small_method(name)
    variables = small.initialize(built)
    batch = chosen(None)
    batch["mask"] = batch["mask"].copy()
    batch["mask"][:, : small.SIZE // 2] = 255
    features, truth, logits = embedding.make_pixels(built)(variables, batch)
    view = augment.eval_view({"image": jnp.asarray(batch["image"])})["image"]
    whole = np.asarray(built.features(variables, view))[0]
    kept = whole[len(whole) // 2 :].reshape(-1, whole.shape[-1])
    np.testing.assert_allclose(features, kept, atol=1e-5)
    assert set(truth) == {0, 1}
    assert len(truth) == len(kept)
    if name == "unet":  # whose logits are of other pixels
        assert logits is None
        return
    maps = built.model.apply(variables, view)["pixel_logits"][0]
    np.testing.assert_allclose(logits, maps[len(maps) // 2 :].reshape(-1, 2), atol=1e-5)
    unlabelled = {**batch, "mask": np.full_like(batch["mask"], 255)}
    with pytest.raises(ValueError, match="no pixel labels"):
        embedding.make_pixels(built)(variables, unlabelled)


def test_far_clusters_stay_apart():
    features = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
    features[12:] += 50
    points = embedding.embed(features, 1)
    centres = points[:12].mean(axis=0), points[12:].mean(axis=0)
    nearest = [np.argmin([np.linalg.norm(p - c) for c in centres]) for p in points]
    assert nearest == [0] * 12 + [1] * 12


def test_without_scikit_learn_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"the extra 'figures' .*: pip install scikit-learn"):
        embedding.run(None, tmp_path)


@pytest.mark.parametrize("panels", [1, 2])
def test_the_figure_has_every_pixel_in_its_colour(panels):
    rng = np.random.default_rng(0)
    points, logits = rng.standard_normal((2, 12, 2))
    foreground = np.arange(12) < 5
    image = figures.Embedded(points, foreground, logits if panels == 2 else None)
    several = {"testA_1": image, "testA_2": image}
    drawn = figures.embedding_figure(several, title="epoch 3").decode()
    for color, count in zip(figures.LIGHT.maps, (7, 5), strict=False):
        uses = [e for e in ElementTree.fromstring(drawn).iter() if e.tag.endswith("use")]
        marks = [e for e in uses if color in e.get("style", "")]
        assert len(marks) == 2 * panels * count
    assert all(title in drawn for title in ("testA_1", "testA_2", "epoch 3"))
