"""Dropout, and how random its numbers are."""

import jax
import numpy as np
import pytest
from scipy import stats

from dynabert_jax.model.dropout import drop, keys_at, random_bits

LENGTH = 128
SHAPE = (4, LENGTH, LENGTH)  # of the attention weights of one example
UNLIKELY = 1e-5  # that a test of good numbers gives less; the numbers are always the same ones


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.999])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    """By torch's definition: what is kept is divided by what is kept on average."""
    x = np.ones((8, 300, 101), np.float32)
    keys = jax.random.split(jax.random.key(0), len(x))
    dropped = np.asarray(drop(x, rate, keys))
    kept = dropped != 0
    assert stats.binomtest(int(kept.sum()), kept.size, 1 - rate).pvalue > UNLIKELY
    np.testing.assert_allclose(dropped[kept], 1 / (1 - rate), rtol=1e-6)


def test_every_place_of_a_network_draws_anew() -> None:
    x, keys = np.ones((4, 64), np.float32), jax.random.split(jax.random.key(0), 4)
    first, second = (drop(x, 0.5, keys_at(keys, place)) for place in ("layer_0/fed_dropout", "layer_1/fed_dropout"))
    assert 0.3 < np.mean(np.asarray(first) != np.asarray(second)) < 0.7


def test_every_byte_is_uniform() -> None:
    for key in jax.random.split(jax.random.key(1), 8):
        words = np.asarray(random_bits(key, SHAPE)).reshape(-1, 1)
        for column in words.view(np.uint8).T:
            assert stats.chisquare(np.bincount(column, minlength=256)).pvalue > UNLIKELY


@pytest.mark.parametrize("distance", [1, 2, 3, 64, LENGTH, LENGTH + 1, LENGTH**2, 2 * LENGTH**2])
def test_places_are_independent(distance: int) -> None:
    words = np.asarray(random_bits(jax.random.key(2), SHAPE)).reshape(-1)
    assert_unrelated(words[:-distance], words[distance:])


@pytest.mark.parametrize("number", range(16))
def test_keys_next_to_each_other_give_unrelated_numbers(number: int) -> None:
    """Of two examples, or two modules: keys folded with one number and the next."""
    keys = (jax.random.fold_in(jax.random.key(3), n) for n in (number, number + 1))
    one, two = (np.asarray(random_bits(key, SHAPE)).reshape(-1) for key in keys)
    assert_unrelated(one, two)
    assert np.isin(one, two).sum() < 20  # nor are they the same ones at other places; by chance it is one


def assert_unrelated(one: np.ndarray, two: np.ndarray) -> None:
    """Every bit is as often equal as not, and both are small together as often as chance has it."""
    differs = np.unpackbits((one ^ two).view(np.uint8).reshape(-1, 4), axis=1).sum(0, dtype=np.int64)  # [32]
    assert stats.chi2.sf(np.sum((differs - len(one) / 2) ** 2 / (len(one) / 4)), 32) > UNLIKELY
    tenth = np.uint32(2**32 // 10)
    assert stats.binomtest(int(np.sum((one < tenth) & (two < tenth))), len(one), 0.01).pvalue > UNLIKELY
