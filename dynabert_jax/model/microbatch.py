"""Microbatches: a CPU runs a batch in equal parts of about a thousand tokens, one after the other.

This is faster, in training and in forward passes; docs/measurements.md says by how much and on which machine.
Accelerators run a batch at once, and so does a CPU that is divided into several devices.

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

TOKENS_PER_MICROBATCH = 1024


def count_microbatches(rows: int, length: int, at_least: int = 1) -> int:
    """The number of microbatches in which a device runs `rows` sentences of `length` tokens.

    Args:
        at_least: least number, set by the user; it must divide the rows.

    Returns:
        On one CPU device, the divisor of `rows` whose microbatches have nearest to `TOKENS_PER_MICROBATCH` tokens, by
        their ratio (of two, the smaller divisor); else `at_least`.

    Raises:
        ValueError: `at_least` does not divide the rows.
    """
    if rows % at_least:
        raise ValueError(f"{rows} rows do not divide into {at_least} equal microbatches; use a multiple of {at_least}")
    if not is_one_cpu():
        return at_least
    divisors = [parts for parts in range(at_least, rows + 1) if rows % parts == 0]
    return min(divisors, key=lambda parts: abs(math.log(rows // parts * length / TOKENS_PER_MICROBATCH)))


def is_one_cpu() -> bool:
    """Whether this process computes on a single CPU device."""
    return jax.default_backend() == "cpu" and jax.local_device_count() == 1


def in_microbatches(function: Callable[..., Any], *arrays: Array) -> Any:
    """`function` of arrays `[B, S]`, one microbatch after the other; the arrays of its result are `[B, ...]`."""
    rows, length = arrays[0].shape
    parts = count_microbatches(rows, length)
    if parts == 1:
        return function(*arrays)
    divided = tuple(a.reshape(parts, rows // parts, length) for a in arrays)
    result = jax.lax.map(lambda part: function(*part), divided)  # [parts, B / parts, ...]
    return jax.tree.map(lambda a: a.reshape(rows, *a.shape[2:]), result)


def divided(batch: Batch, rows_at_once: int | None = None) -> Iterator[Batch]:
    """Equal microbatches of at most `rows_at_once` rows; the weights sum to 1 over all of them."""
    batch = dataclasses.replace(batch, weights=batch.weights / batch.weights.sum())
    rows = len(batch.weights)
    fitting = (parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= (rows_at_once or rows))
    for part in np.split(np.arange(rows), next(fitting)):
        yield take(batch, part)


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """One microbatch, on this host's D devices.

    Attributes:
        batch: `[D, B / (all devices * microbatches), ...]`; weights sum to 1 over all microbatches and devices.
        rows: each example's index in the global batch, `[D, B / (all devices * microbatches)]`.
    """

    batch: Batch
    rows: np.ndarray


def micro_batches(batch: Batch, at_least: int = 1) -> Iterator[MicroBatch]:
    """The microbatches, at least `at_least`, of a global batch on the host, `[B, ...]`."""
    batch = dataclasses.replace(batch, weights=batch.weights / batch.weights.sum())
    examples, length = batch.inputs.shape
    parts = count_microbatches(examples // devices.num_devices(), length, at_least)
    for rows in np.split(np.arange(examples), parts):
        yield MicroBatch(batch=devices.shard(take(batch, rows)), rows=devices.shard(rows))
