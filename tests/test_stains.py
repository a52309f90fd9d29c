"""Stains and colours against NumPy, torchstain and the matrices that images are drawn from."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tissue import STAINS, tissue, turned
from torchstain import normalizers

from wsol_jax import stains
from wsol_jax.data import glas

SIDE = 64
IMAGES = np.stack([tissue(seed, turned(5 * seed), side=SIDE) for seed in range(3)])
REFERENCE = tissue(7, turned(25), strength=(2.0, 0.8), side=SIDE)[None]

estimate, macenko = jax.jit(stains.estimate), jax.jit(stains.macenko)
colours, reinhard = jax.jit(stains.colours), jax.jit(stains.reinhard)


def degenerate():
    """Tiles of glass, black, grey, one stain and one noisy colour; then specks of tissue.

    The first speck, on faint tissue, is too small. The second is just large enough, but the
    strength of its stains, a percentile over all pixels, is that of glass.
    """
    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE, 1)
    grey = np.broadcast_to(rng.integers(0, 256, shape), (SIDE, SIDE, 3))
    one = 240 * np.exp(-rng.uniform(0.3, 1.5, shape) * STAINS[0]) - 1
    noisy = np.array([180, 120, 170]) + rng.normal(0, 1.5, (SIDE, SIDE, 3))
    faint, bright = (
        np.tile(240 * np.exp(-amount * STAINS.sum(axis=0)) - 1, shape) for amount in (0.05, -0.06)
    )
    speck = IMAGES[0][np.all(IMAGES[0] < 200, axis=-1)]
    faint[0, :30], bright[0, :41] = speck[:30], speck[:41]
    tiles = [np.full_like(one, 255), np.zeros_like(one), grey, one, noisy, faint, bright]
    return np.stack(tiles).round().astype(np.uint8)


def stains_by_numpy(image):
    """Macenko's method as the paper describes it, in float64; stains are columns."""
    density = -np.log((image.reshape(-1, 3) + 1.0) / 240)
    tissue = density[(density >= 0.15).all(axis=1)]
    vectors = np.linalg.svd(tissue - tissue.mean(axis=0), full_matrices=False)[2][:2]
    vectors = vectors * np.sign(vectors @ tissue.mean(axis=0))[:, None]
    angles = np.arctan2(*(tissue @ vectors.T).T[::-1])
    ends = [np.cos(a) * vectors[0] + np.sin(a) * vectors[1] for a in np.percentile(angles, [1, 99])]
    matrix = np.stack(sorted(ends, key=lambda stain: -stain[0]), axis=1)
    amount = np.linalg.lstsq(matrix, density.T, rcond=None)[0]
    return matrix, amount, np.percentile(amount, 99, axis=1)


def macenko_by_numpy(image, reference):
    _, amount, own = stains_by_numpy(image)
    matrix, _, strength = stains_by_numpy(reference)
    shades = 240 * np.exp(-(matrix @ (amount * (strength / own)[:, None])))
    return np.minimum(shades, 255).T.reshape(image.shape).astype(int)


def reinhard_by_numpy(image, reference):
    """With the inverses that the paper prints, to four digits."""

    def opponents(image):
        red, green, blue = np.moveaxis(np.maximum(image, 1) / 255, -1, 0)
        long = np.log10(0.3811 * red + 0.5783 * green + 0.0402 * blue)
        middle = np.log10(0.1967 * red + 0.7244 * green + 0.0782 * blue)
        short = np.log10(0.0241 * red + 0.1288 * green + 0.8444 * blue)
        yellow = (long + middle - 2 * short) / np.sqrt(6)
        return [(long + middle + short) / np.sqrt(3), yellow, (long - middle) / np.sqrt(2)]

    pairs = zip(opponents(image), opponents(reference), strict=True)
    light, yellow, red = ((x - x.mean()) * (r.std() / x.std()) + r.mean() for x, r in pairs)
    light, yellow, red = light / np.sqrt(3), yellow / np.sqrt(6), red / np.sqrt(2)
    cones = 10 ** np.stack([light + yellow + red, light + yellow - red, light - 2 * yellow])
    inverse = [[4.4679, -3.5873, 0.1193], [-1.2186, 2.3809, -0.1624], [0.0497, -0.2439, 1.2045]]
    return np.clip(255 * np.einsum("dc,chw->hwd", inverse, cones), 0, 255)


def assert_close(images, others, *, levels=1, equal=0.98):
    """No grey value further off than `levels`, and so many of them equal."""
    difference = np.abs(np.asarray(images, int) - np.asarray(others, int))
    assert difference.max() <= levels
    assert np.mean(difference == 0) >= equal


def test_a_drawn_matrix_is_found_again():
    found = estimate(IMAGES)
    assert np.all(found.estimated)
    drawn = np.stack([turned(5 * seed) for seed in range(3)])
    assert np.all(stains.distance(np.asarray(found.matrix), drawn) < 0.7)
    np.testing.assert_allclose(found.strength, np.tile([1.5, 1.0], (3, 1)), rtol=0.03)
    np.testing.assert_allclose(np.linalg.norm(found.matrix, axis=-1), 1, rtol=1e-6)


def test_macenko_equals_numpy():
    style = estimate(REFERENCE)
    for image, matrix, strength in zip(IMAGES, *estimate(IMAGES)[:2], strict=True):
        expected, _, strong = stains_by_numpy(image)
        np.testing.assert_allclose(matrix, expected.T, atol=1e-4)
        np.testing.assert_allclose(strength, strong, rtol=1e-4)
    expected = np.stack([macenko_by_numpy(image, REFERENCE[0]) for image in IMAGES])
    assert_close(macenko(IMAGES, style), expected)
    assert np.abs(IMAGES.astype(int) - expected).mean() > 5


def test_macenko_equals_torchstain():
    normalizer = normalizers.MacenkoNormalizer(backend="numpy")
    normalizer.fit(REFERENCE[0])
    expected = [normalizer.normalize(image, stains=False)[0] for image in IMAGES]
    assert_close(macenko(IMAGES, estimate(REFERENCE)), np.stack(expected))


@pytest.mark.skipif("WSOL_GLAS" not in os.environ, reason="WSOL_GLAS names no GlaS folder")
def test_macenko_equals_torchstain_on_glas():
    examples = glas.examples("test", folder=pathlib.Path(os.environ["WSOL_GLAS"]))
    reference, *images = (example.read()[0] for example in examples[::16])
    normalizer = normalizers.MacenkoNormalizer(backend="numpy")
    normalizer.fit(reference)
    style = estimate(reference[None])
    for image in images:
        expected, _, _ = normalizer.normalize(image, stains=False)
        assert_close(macenko(image[None], style), expected[None])


def test_restained_images_have_the_stains_of_the_reference():
    style = estimate(REFERENCE)
    found = estimate(macenko(IMAGES, style))
    assert np.all(stains.distance(*map(np.asarray, (found.matrix, style.matrix))) < 0.7)
    np.testing.assert_allclose(found.strength, np.tile(style.strength, (3, 1)), rtol=0.03)


def test_the_own_style_changes_nothing():
    """But for the 1 that Macenko adds to grey values and never takes away."""
    assert_close(macenko(IMAGES, estimate(IMAGES)), IMAGES, levels=2, equal=0)
    assert_close(reinhard(IMAGES, colours(IMAGES)), IMAGES)


def test_reinhard_equals_numpy():
    found = reinhard(IMAGES, colours(REFERENCE))
    expected = np.stack([reinhard_by_numpy(image, REFERENCE[0]) for image in IMAGES])
    difference = np.abs(found - expected)
    assert difference.max() < 2.5  # four digits of an inverse say no more
    assert difference.mean() < 1
    assert np.abs(IMAGES - expected).mean() > 5


def test_reinhard_gives_the_colours_of_the_reference():
    tissue = IMAGES[:, SIDE // 8 :]  # glass may be lifted above 255
    style = colours(REFERENCE[:, SIDE // 8 :])
    found = colours(reinhard(tissue, style))
    np.testing.assert_allclose(found.mean, np.tile(style.mean, (3, 1)), atol=1e-3)
    np.testing.assert_allclose(found.deviation, np.tile(style.deviation, (3, 1)), atol=1e-3)


@pytest.mark.parametrize(
    ("describe", "restain"), [(estimate, macenko), (colours, reinhard)], ids=["macenko", "reinhard"]
)
def test_images_do_not_see_their_batch(describe, restain):
    style = describe(REFERENCE)
    together = restain(IMAGES, style)
    alone = np.concatenate([restain(image[None], style) for image in IMAGES])
    assert_close(together, alone)
    several = jax.tree.map(lambda x: np.repeat(x, len(IMAGES), axis=0), style)
    assert_close(together, restain(IMAGES, several))
    turned_over = restain(IMAGES[:, ::-1].transpose(0, 2, 1, 3), style)
    assert_close(together, np.asarray(turned_over).transpose(0, 2, 1, 3)[:, ::-1])


def test_compiled_equals_eager():
    image, reference = jnp.asarray(IMAGES[:1]), jnp.asarray(REFERENCE)
    style, colour = stains.estimate(reference), stains.colours(reference)
    np.testing.assert_allclose(style.matrix, estimate(reference).matrix, atol=1e-5)
    assert_close(stains.macenko(image, style), macenko(image, style))
    assert_close(stains.reinhard(image, colour), reinhard(image, colour))


@pytest.mark.parametrize(
    ("describe", "restain"), [(estimate, macenko), (colours, reinhard)], ids=["macenko", "reinhard"]
)
def test_tiles_without_two_stains_stay_as_they_are(describe, restain):
    tiles = degenerate()
    batch = np.concatenate([tiles, IMAGES])
    found = restain(batch, describe(REFERENCE))
    np.testing.assert_array_equal(found[: len(tiles)], tiles)
    assert np.all(np.any(found[len(tiles) :] != IMAGES, axis=(1, 2, 3)))
    known = estimate(batch)
    np.testing.assert_array_equal(known.estimated, [False] * len(tiles) + [True] * len(IMAGES))
    np.testing.assert_array_equal(np.isnan(known.matrix).all((1, 2)), ~known.estimated)
    np.testing.assert_array_equal(np.isnan(known.strength).all(1), ~known.estimated)


def test_distance_is_the_mean_angle():
    other = turned(20)
    angles = np.degrees(np.arccos(np.sum(STAINS * other, axis=1)))
    assert stains.distance(STAINS, other) == pytest.approx(angles.mean(), rel=1e-4)
    assert stains.distance(STAINS, STAINS) == pytest.approx(0, abs=1e-3)
    assert stains.distance(2 * STAINS, other) == pytest.approx(stains.distance(other, STAINS))
    orthogonal = np.eye(3)
    assert stains.distance(orthogonal[:2], orthogonal[1:]) == pytest.approx(90)
