"""A CPU works through a batch in parts of about a thousand tokens, one after the other, instead of all at once.

So it is faster, in training and in forward passes; docs/measurements.md has how much, and on which machine.
Accelerators take a batch at once, and so do the devices that one CPU is divided into.

Letters in shapes: B examples, S tokens, C labels.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from dynabert_jax.batches import Array
from dynabert_jax.bert import Bert
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.subnetwork import SubNetwork

Params = Any

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


def make_forward(config: ModelConfig, dtype: Dtype) -> Callable[[Params, Array, Array, Array], jax.Array]:
    """The forward pass of a whole (cut) model, to be compiled: parameters and three arrays `[B, S]` to logits `[B, C]`.

    The three are token ids, attention mask and token types, as `Bert` takes them.
    """
    model, full = Bert(config, dtype), SubNetwork.full(config)

    def forward(params: Params, *inputs: Array) -> jax.Array:
        return in_parts(lambda *part: model.apply({"params": params}, *part, full).logits, *inputs)

    return forward


def in_parts(function: Callable[..., jax.Array], *arrays: Array) -> jax.Array:
    """`function` of arrays `[B, S]`, whose result `[B, ...]` has a row for each of theirs, part by part."""
    rows, length = arrays[0].shape
    parts = count_parts(rows, length)
    if parts == 1:
        return function(*arrays)
    divided = tuple(a.reshape(parts, rows // parts, length) for a in arrays)
    result = jax.lax.map(lambda part: function(*part), divided)  # [parts, B / parts, ...]
    return result.reshape(rows, *result.shape[2:])
