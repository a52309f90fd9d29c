"""The order of examples: permutations, resuming, filled-up batches, shares of hosts."""

import itertools

import numpy as np
import pytest

from wsol_jax.data import splits


def rows(size, batch_size, *, steps, seed=0, start=0, window=splits.WINDOW):
    order = splits.shuffled_rows(size, batch_size, seed=seed, start=start, window=window)
    return list(itertools.islice(order, steps))


@pytest.mark.parametrize("window", [splits.WINDOW, 10])
def test_every_epoch_holds_every_example(window):
    epochs = np.stack(rows(67, 32, steps=6, window=window)).reshape(2, 96)
    for epoch in epochs:
        assert sorted(epoch[:67]) == list(range(67))
    assert not np.array_equal(*epochs)


def test_last_batch_repeats_its_own_samples():
    # The released loader: 67 images at 32 are 3 batches, the last one filled from its 3 images.
    last = rows(67, 32, steps=3)[2]
    np.testing.assert_array_equal(last, [last[i % 3] for i in range(32)])
    assert splits.steps_per_epoch(67, 32) == 3


def test_batch_larger_than_the_split():
    (only,) = rows(3, 8, steps=1)
    assert sorted(only[:3]) == [0, 1, 2]
    assert len(only) == 8


def test_windows_keep_their_examples():
    epoch = np.concatenate(rows(25, 5, steps=5, window=10))
    for first in (0, 10, 20):
        assert sorted(epoch[first : first + 10]) == list(range(first, min(first + 10, 25)))


def test_resuming_anywhere_goes_on_exactly():
    whole = rows(10, 4, steps=12)
    for start in range(8):
        np.testing.assert_array_equal(rows(10, 4, steps=4, start=start), whole[start : start + 4])


def test_order_depends_on_the_seed():
    assert not np.array_equal(rows(50, 50, steps=1, seed=0), rows(50, 50, steps=1, seed=1))


def test_a_late_start_costs_nothing():
    late = rows(67, 32, steps=1, start=3_000_000_000)
    order = splits.permutation(67, seed=0, epoch=1_000_000_000, number=0)
    np.testing.assert_array_equal(late, [order[:32]])


def test_ordered_rows_pad_the_last_batch():
    batches = list(splits.ordered_rows(["square"] * 7, 3))
    np.testing.assert_array_equal(np.concatenate([r for r, _ in batches]), [*range(7), 0, 0])
    np.testing.assert_array_equal(np.concatenate([v for _, v in batches]), [True] * 7 + [False] * 2)


def test_ordered_rows_keep_shapes_apart():
    batches = [(r[v].tolist(), v.sum()) for r, v in splits.ordered_rows("cabbcbb", 3)]
    assert batches == [([0, 4], 2), ([1], 1), ([2, 3, 5], 3), ([6], 1)]
    for rows, _ in splits.ordered_rows("cabbcbb", 3):
        assert len({"cabbcbb"[row] for row in rows}) == 1  # those of the padding, too


def test_hosts_share_a_batch():
    shares = [np.arange(12)[splits.host_rows(12, (host, 3))] for host in range(3)]
    np.testing.assert_array_equal(np.concatenate(shares), np.arange(12))


@pytest.mark.parametrize(
    ("batch_size", "hosts", "message"),
    [
        (10, (0, 4), "batch_size 10 .* multiple of 4; try 8"),
        (0, (0, 1), "batch_size 0"),
        (8, (2, 2), "numbered from 0 to 1"),
    ],
)
def test_unfit_shares_are_refused(batch_size, hosts, message):
    with pytest.raises(ValueError, match=message):
        splits.host_rows(batch_size, hosts)
