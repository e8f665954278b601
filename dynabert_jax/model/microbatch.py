"""A CPU works through a batch in parts of about a thousand tokens, one after the other, instead of all at once.

So it is faster, in training and in forward passes; docs/measurements.md has how much, and on which machine.
Accelerators take a batch at once, and so do the devices that one CPU is divided into.

Letters in shapes: B examples, S tokens, C labels.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dynabert_jax.data.batches import Array, Batch, take
from dynabert_jax.system import devices

TOKENS_PER_PART = 1024


def count_parts(rows: int, length: int, at_least: int = 1) -> int:
    """How many equal parts a device works through `rows` sentences of `length` tokens in.

    Args:
        at_least: so many that the user asked for; they divide the rows.

    Returns:
        On one CPU device the divisor of `rows` that makes the ratio of a part's tokens to `TOKENS_PER_PART`, or its
        inverse, smallest (of two, the smaller divisor); else `at_least`.

    Raises:
        ValueError: the rows cannot be divided into so many parts.
    """
    if rows % at_least:
        raise ValueError(f"{rows} rows do not divide into {at_least} equal parts; take a multiple of {at_least}")
    if not is_one_cpu():
        return at_least
    divisors = [parts for parts in range(at_least, rows + 1) if rows % parts == 0]
    return min(divisors, key=lambda parts: abs(math.log(rows // parts * length / TOKENS_PER_PART)))


def is_one_cpu() -> bool:
    """Whether all that this process computes runs on one CPU device."""
    return jax.default_backend() == "cpu" and jax.local_device_count() == 1


def in_parts(function: Callable[..., Any], *arrays: Array) -> Any:
    """`function` of arrays `[B, S]`, part by part; the arrays of its result are `[B, ...]`."""
    rows, length = arrays[0].shape
    parts = count_parts(rows, length)
    if parts == 1:
        return function(*arrays)
    divided = tuple(a.reshape(parts, rows // parts, length) for a in arrays)
    result = jax.lax.map(lambda part: function(*part), divided)  # [parts, B / parts, ...]
    return jax.tree.map(lambda a: a.reshape(rows, *a.shape[2:]), result)


def divided(batch: Batch, rows_at_once: int | None = None) -> Iterator[Batch]:
    """A batch in equal parts of at most so many rows, whose weights sum to 1 over all of them."""
    batch = dataclasses.replace(batch, weights=batch.weights / batch.weights.sum())
    rows = len(batch.weights)
    fitting = (parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= (rows_at_once or rows))
    for part in np.split(np.arange(rows), next(fitting)):
        yield take(batch, part)


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """What is computed at once of a batch, on this host's D devices.

    Attributes:
        batch: `[D, B / (all devices * parts), ...]`; the weights of all parts on all devices sum to 1.
        rows: of each of its examples the number in the global batch, `[D, B / (all devices * parts)]`.
    """

    batch: Batch
    rows: np.ndarray


def micro_batches(batch: Batch, at_least: int = 1) -> Iterator[MicroBatch]:
    """The equal parts, at least so many, of a global batch on the host, `[B, ...]`."""
    batch = dataclasses.replace(batch, weights=batch.weights / batch.weights.sum())
    examples, length = batch.inputs.shape
    parts = count_parts(examples // devices.num_devices(), length, at_least)
    for rows in np.split(np.arange(examples), parts):
        yield MicroBatch(batch=devices.shard(take(batch, rows)), rows=devices.shard(rows))
