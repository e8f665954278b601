"""A CPU works through a batch in parts of about a thousand tokens.

Its caches hold a part's activations, and the allocator need not fetch new pages for them: that is faster than all at
once (docs/measurements.md). Accelerators want all at once, and so do the devices that one CPU is divided into.
"""

import math
from collections.abc import Callable

import jax

from dynabert_jax.batches import Array

TOKENS = 1024


def count_parts(rows: int, length: int, least: int = 1) -> int:
    """How many equal parts one device works through `rows` sentences of `length` tokens in.

    Args:
        rows: of this device; a multiple of `least`.
        least: at least so many.

    Returns:
        A divisor of `rows`: the one by which a part comes nearest to `TOKENS` tokens, or `least` on an accelerator.
    """
    if not is_one_cpu():
        return least
    divisors = [parts for parts in range(least, rows + 1) if rows % parts == 0]
    return min(divisors, key=lambda parts: abs(math.log(rows // parts * length / TOKENS)))


def in_parts(function: Callable[..., jax.Array], *arrays: Array) -> jax.Array:
    """`function` of arrays `[B, S]`, whose result `[B, ...]` has a row for each of theirs, part by part."""
    rows, length = arrays[0].shape
    parts = count_parts(rows, length)
    if parts == 1:
        return function(*arrays)
    divided = tuple(a.reshape(parts, rows // parts, length) for a in arrays)
    result = jax.lax.map(lambda part: function(*part), divided)  # [parts, B / parts, ...]
    return result.reshape(rows, *result.shape[2:])


def is_one_cpu() -> bool:
    """Whether all that this process computes runs on one CPU device."""
    return jax.default_backend() == "cpu" and jax.local_device_count() == 1
