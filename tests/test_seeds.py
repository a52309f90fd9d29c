"""Seeds: what every sampler promises, by identities and by the theory of drawing."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from wsol_jax import pixel_labels, seeds

SAMPLERS = ("complement", "lowest", "probability", "threshold")
SIDE, DRAWS = 6, 4000
FOREGROUND, BACKGROUND, FRACTION = 5, 3, 0.5


def _keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@functools.cache
def _sampler(sampler):
    """Compiled once; every test below draws batches of one shape."""

    @jax.jit
    def sample(keys, cam, background_only):
        return seeds.sample(
            keys,
            cam,
            sampler=sampler,
            foreground=FOREGROUND,
            background=BACKGROUND,
            fraction=FRACTION,
            erosion=1,
            background_only=background_only,
        )

    return sample


def _sample(sampler, cam, *, keys=None, background_only=False):
    """Seeds of DRAWS CAMs, or DRAWS draws from one."""
    cam = jnp.broadcast_to(jnp.asarray(cam, jnp.float32), (DRAWS, SIDE, SIDE))
    keys = _keys(DRAWS) if keys is None else keys
    only = jnp.broadcast_to(jnp.asarray(background_only), DRAWS)
    return jax.tree.map(np.asarray, _sampler(sampler)(keys, cam, only))


def _cams(seed=0):
    return np.random.default_rng(seed).uniform(size=(DRAWS, SIDE, SIDE)).astype(np.float32)


def _ramp():
    """A CAM with every activation once, scattered."""
    return np.random.default_rng(3).permutation(SIDE**2).reshape(SIDE, SIDE) / (SIDE**2 - 1)


def _count(points):
    """How often each pixel is among the points (... 2)."""
    rows, columns = points.reshape(-1, 2).T
    return np.bincount(SIDE * rows + columns, minlength=SIDE**2).reshape(SIDE, SIDE)


def _assert_distributed(counts, weights):
    counts, weights = np.ravel(counts), np.ravel(weights).astype(float)
    assert np.all(counts[weights == 0] == 0)
    counts, weights = counts[weights > 0], weights[weights > 0]
    assert stats.chisquare(counts, counts.sum() * (weights / weights.sum())).pvalue > 1e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_of_an_image_are_distinct_and_counted(sampler):
    drawn = _sample(sampler, _cams())
    assert drawn.points.shape == (DRAWS, FOREGROUND + BACKGROUND, 2)
    assert drawn.points.dtype == drawn.target.dtype == np.int32
    assert drawn.points.min() >= 0
    assert drawn.points.max() < SIDE
    np.testing.assert_array_equal(drawn.target, [[1] * FOREGROUND + [0] * BACKGROUND] * DRAWS)
    for points, known in zip(drawn.points[:300], drawn.known, strict=False):
        objects, others = np.split(points, [FOREGROUND])
        enough = sampler != "threshold" or known[:FOREGROUND].all()  # whose region may be small
        assert len(np.unique(objects, axis=0)) == FOREGROUND or not enough
        assert len(np.unique(others, axis=0)) == BACKGROUND
        assert len(np.unique(points[known], axis=0)) == known.sum()


@pytest.mark.parametrize("sampler", ["complement", "lowest", "probability"])
def test_pixels_drawn_for_both_classes_are_known_to_neither(sampler):
    drawn = _sample(sampler, _cams(seed=1))
    assert not drawn.known.all()
    for points, known in zip(drawn.points[:300], drawn.known, strict=False):
        objects, others = ({tuple(p) for p in half} for half in np.split(points, [FOREGROUND]))
        np.testing.assert_array_equal(known, [tuple(p) not in objects & others for p in points])


def test_first_foreground_seed_follows_the_activations():
    _assert_distributed(
        _count(_sample("lowest", _ramp()).points[:, 0])[_ramp() > 0], _ramp()[_ramp() > 0]
    )


@pytest.mark.parametrize(
    ("sampler", "weights"),
    [
        ("lowest", _ramp() < np.median(_ramp())),
        ("threshold", _ramp() < np.median(_ramp())),
        ("probability", 1 - (_ramp() + 1e-6) / np.sum(_ramp() + 1e-6)),
        ("complement", 1 - _ramp()),
    ],
)
def test_first_background_seed_follows_its_definition(sampler, weights):
    _assert_distributed(_count(_sample(sampler, _ramp()).points[:, FOREGROUND]), weights)


def test_draws_without_replacement_have_the_exact_joint_distribution():
    weights = np.asarray([[4.0, 0.0, 1.0], [2.0, 1.0, 0.5]])
    draw = jax.jit(jax.vmap(lambda key: seeds._draw(key, jnp.asarray(weights, jnp.float32), 2)))
    points, known = draw(_keys(40000))
    drawn = np.ravel_multi_index(np.asarray(points).transpose(2, 0, 1), weights.shape)
    assert known.all()
    observed, expected = [], []
    chance = weights.ravel() / weights.sum()
    for first, second in itertools.permutations(np.flatnonzero(chance), 2):
        observed.append(np.sum((drawn[:, 0] == first) & (drawn[:, 1] == second)))
        expected.append(chance[first] * chance[second] / (1 - chance[first]))
    assert sum(observed) == 40000
    _assert_distributed(observed, expected)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 1.0])
def test_lowest_area_is_that_of_a_sort(fraction):
    cam = _cams()[:50]
    count = int(fraction * SIDE**2)
    limit = np.sort(cam.reshape(50, -1), axis=1)[:, count - 1]
    area = seeds.lowest_area(jnp.asarray(cam), fraction)
    np.testing.assert_array_equal(area, cam <= limit[:, None, None])
    np.testing.assert_array_equal(area.sum(axis=(1, 2)), count)


def test_ties_at_the_limit_share_the_places_left():
    cam = np.asarray([[[0.5, 0.1, 0.5], [0.5, 0.9, 0.2], [0.5, 1.0, 0.7]]], np.float32)
    area = seeds.lowest_area(jnp.asarray(cam), 0.334)  # 3 of 9: two below, one place for four
    expected = np.asarray([[[0.25, 1, 0.25], [0.25, 0, 1], [0.25, 0, 0]]])
    np.testing.assert_allclose(area, expected)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_of_a_constant_cam_lie_anywhere(sampler, value):
    drawn = _sample(sampler, np.full((SIDE, SIDE), value))
    objects, others = np.split(drawn.known, [FOREGROUND], axis=1)
    assert objects.any() == (sampler != "threshold")
    assert others.any() == (sampler != "threshold" and (sampler, value) != ("complement", 1.0))
    for known, target in ((objects, 1), (others, 0)):
        if known.any():
            counts = _count(drawn.points[drawn.known & (drawn.target == target)])
            _assert_distributed(counts, np.ones((SIDE, SIDE)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nan_counts_as_zero(sampler):
    cam = _cams()
    cam[:, :3] = 0
    expected, drawn = (_sample(sampler, c) for c in (cam, np.where(cam == 0, np.nan, cam)))
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)


def _within_variance(levels, threshold):
    parts = levels[levels <= threshold], levels[levels > threshold]
    return sum(part.var() * part.size for part in parts if part.size)


@pytest.mark.parametrize("seed", range(4))
def test_otsu_region_has_the_least_variance_within_its_parts(seed):
    rng = np.random.default_rng(seed)
    low, high = rng.normal(0.3, 0.1, 400), rng.normal(0.7, 0.1, 400)
    cam = np.clip(np.where(rng.uniform(size=400) < 0.7, low, high), 0, 1).astype(np.float32)
    levels = np.floor(255 * cam).astype(int)
    region = np.asarray(seeds.otsu_region(jnp.asarray(cam.reshape(1, 20, 20)))).ravel()
    best = min(_within_variance(levels, threshold) for threshold in range(255))
    threshold = levels[~region].max()
    np.testing.assert_array_equal(region, levels > threshold)
    assert _within_variance(levels, threshold) <= best * (1 + 1e-6)


def test_otsu_threshold_is_at_least_one():
    cam = np.asarray([[[0, 1.01, 1.01], [0, 0, 1.01], [0, 1.01, 0]]]) / 255
    assert not seeds.otsu_region(jnp.asarray(cam, jnp.float32)).any()
    cam[0, 1] = 1
    np.testing.assert_array_equal(seeds.otsu_region(jnp.asarray(cam, jnp.float32)), cam == 1)


def test_erosion_spares_the_border_of_the_image():
    cam = np.ones((1, 9, 9), np.float32)
    cam[0, :, 5:] = 0
    region = np.asarray(seeds.otsu_region(jnp.asarray(cam), erosion=3))
    expected = np.zeros((1, 9, 9), bool)
    expected[0, :, :4] = True
    np.testing.assert_array_equal(region, expected)


def test_a_region_smaller_than_asked_gives_what_it_has():
    cam = np.zeros((SIDE, SIDE))
    cam[3, 2:5] = 1
    drawn = _sample("threshold", cam)
    assert np.all(drawn.known.sum(axis=1) == 3 + BACKGROUND)
    known = drawn.points[drawn.known & (drawn.target == 1)].reshape(DRAWS, 3, 2)
    assert np.all(known[..., 0] == 3)
    np.testing.assert_array_equal(np.sort(known[..., 1], axis=1), [[2, 3, 4]] * DRAWS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_images_without_object_give_background_anywhere(sampler):
    negative = np.arange(DRAWS) % 2 == 0
    drawn = _sample(sampler, _ramp(), background_only=negative)
    plain = _sample(sampler, _ramp())
    np.testing.assert_array_equal(drawn.known[negative], drawn.target[negative] == 0)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[~negative], b[~negative]), drawn, plain
    )
    _assert_distributed(_count(drawn.points[negative, FOREGROUND:]), np.ones((SIDE, SIDE)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_of_an_image_depend_on_its_own_key_alone(sampler):
    cam, keys = _cams(), _keys(DRAWS)
    drawn = _sample(sampler, cam)
    elsewhere = _sample(sampler, cam[::-1], keys=keys[::-1])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[::-1], b), elsewhere, drawn)
    assert not np.array_equal(_sample(sampler, cam, keys=_keys(DRAWS, seed=1)).points, drawn.points)


def test_an_image_alone_gives_the_seeds_it_gives_in_a_batch():
    cam, keys = jnp.asarray(_cams()[:3]), _keys(3)
    sample = jax.jit(lambda k, c: seeds.sample(k, c))
    together, alone = sample(keys, cam), sample(keys[2:], cam[2:])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b[2]), alone, together)
    half = cam.astype(jnp.float16)
    exact = sample(keys, half.astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, sample(keys, half), exact)


def _seeds(points, target, known):
    return seeds.Seeds(*(jnp.asarray([x]) for x in (points, target, known)))


def test_dense_marks_known_seeds_only():
    drawn = _seeds([[0, 1], [2, 2], [1, 0]], [1, 1, 0], [True, False, True])
    expected = [[[255, 1, 255], [0, 255, 255], [255, 255, 255]]]
    np.testing.assert_array_equal(seeds.dense(drawn, (3, 3)), expected)


def test_dense_knows_nothing_where_squares_of_both_classes_meet():
    drawn = _seeds([[0, 0], [1, 3]], [1, 0], [True, True])
    expected = [[[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [255, 255, 0, 0, 0]]]
    np.testing.assert_array_equal(seeds.dense(drawn, (3, 5), dilation=3), expected)
    expected = [[[1, 255, 255, 0, 0], [1, 255, 255, 0, 0], [1, 255, 255, 0, 0]]]
    np.testing.assert_array_equal(seeds.dense(drawn, (3, 5), dilation=5), expected)


def test_dense_agrees_with_the_points():
    drawn = jax.tree.map(lambda x: x[:50], _sample("lowest", _cams()))
    labels = np.asarray(seeds.dense(jax.tree.map(jnp.asarray, drawn), (SIDE, SIDE)))
    at_points = labels[np.arange(50)[:, None], drawn.points[..., 0], drawn.points[..., 1]]
    np.testing.assert_array_equal(at_points[drawn.known], drawn.target[drawn.known])
    assert np.sum(labels != pixel_labels.UNANNOTATED) == drawn.known.sum()


def test_threshold_draws_nothing_of_a_cam_that_is_constant_in_eight_bits():
    cam = jnp.full((1, 6, 6), 0.5).at[0, 0, 0].add(1e-4)
    assert not seeds.sample(_keys(1), cam, sampler="threshold").known.any()
    assert seeds.sample(_keys(1), cam, sampler="lowest").known.any()


def test_errors_name_the_value_and_the_choices():
    cam, keys = jnp.asarray(_cams()[:1]), _keys(1)
    with pytest.raises(ValueError, match=r"unknown sampler 'otsu'; have \['lowest', 'probability'"):
        seeds.sample(keys, cam, sampler="otsu")
    for fraction in (0.0, 1.01):
        with pytest.raises(
            ValueError, match=f"fraction is {fraction}; expected a number above 0 and"
        ):
            seeds.sample(keys, cam, fraction=fraction)
    with pytest.raises(ValueError, match=r"fraction=0.02 of 6x6 pixels"):
        seeds.sample(keys, cam, fraction=0.02)
    with pytest.raises(ValueError, match="square of 4 pixels has no centre"):
        seeds.sample(keys, cam, sampler="threshold", erosion=4)


@pytest.mark.parametrize("sampler", ["lowest", "threshold"])
def test_lowers_for_every_platform(sampler):
    function = jax.jit(
        lambda keys, cam: seeds.dense(seeds.sample(keys, cam, sampler=sampler), (9, 9))
    )
    exported = jax.export.export(function, platforms=("cpu", "cuda", "tpu"))
    assert exported(_keys(2), jnp.zeros((2, 9, 9))).platforms == ("cpu", "cuda", "tpu")
