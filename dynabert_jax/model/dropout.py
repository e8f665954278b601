"""Dropout whose random numbers depend on the example and the place in the network, and cost little."""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np


def drop(x: jax.Array, rate: float, keys: jax.Array | None) -> jax.Array:
    """Zeroes each number with probability `rate`, and scales the others up to keep the mean.

    Every example has its own key: what is dropped does not depend on the example's device or on the other examples of
    the batch. A draw is 32 bits, so the rate is a multiple of 2^-32.

    Args:
        x: `[B, ...]`.
        rate: in [0, 1).
        keys: `[B]`, of this place in the network (`keys_at`); None leaves x unchanged.
    """
    dropped = int(rate * 2**32)  # of 2^32 equally likely draws
    if keys is None or not dropped:
        return x
    draws = jax.vmap(lambda key: random_bits(key, x.shape[1:]))(keys)
    return jnp.where(draws < jnp.uint32(dropped), 0.0, x * (2**32 / (2**32 - dropped)))


def keys_at(keys: jax.Array | None, place: str) -> jax.Array | None:
    """The keys `[B]` of one place in the network, by its name; None (no dropout) stays None."""
    return None if keys is None else _folded(keys, np.uint32(zlib.crc32(place.encode())))


@jax.jit  # to be traced once
def _folded(keys: jax.Array, number: np.uint32) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """32 random bits per element of an array, `shape` uint32: a hash of the key's two words and the element's index.

    `jax.random.bits` draws better numbers than dropout needs, in several passes over memory; a hash is computed where
    it is used. The key itself must be random, as from `split` and `fold_in`: two keys with the same second word may
    give the same numbers in another order.
    """
    first, second = jax.random.key_data(key)[:2]  # the other two words of an rbg key are drawn in the same way
    place = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return _mixed(_mixed(place ^ first) ^ second)


def _mixed(x: jax.Array) -> jax.Array:
    """A one-to-one map of 32 bits in which every bit depends on all: `lowbias32` of Wellons' hash-prospector (2018)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
