"""Batches of few static shapes. Each shape is compiled once, and short sentences are not padded to the longest one.

A plan says which rows are in a batch, and its length. It depends only on its arguments, so a resumed run can skip the
batches that it has done. Letters in shapes: B examples, L tokens.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from flax import struct

Array = jax.Array | np.ndarray

MEGA_BATCH = 50  # number of batches whose rows are sorted by length together


class Examples(Protocol):
    """The examples to batch; see `dynabert_jax.data.encode.Split`."""

    @property
    def input_ids(self) -> Sequence[np.ndarray]: ...

    @property
    def token_type_ids(self) -> Sequence[np.ndarray]: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def sizes(self) -> np.ndarray: ...


class Inputs(NamedTuple):
    """The inputs of a network, in the order of `Bert`'s arguments; int32 `[B, L]` each.

    Attributes:
        input_ids: token ids.
        attention_mask: 1 for a token, 0 for padding.
        token_type_ids: 1 for the second sentence of a pair, else 0.
    """

    input_ids: Array
    attention_mask: Array
    token_type_ids: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens, `(B, L)`."""
        rows, length = self.input_ids.shape
        return rows, length


@struct.dataclass
class Batch:
    """Examples to train or score on, made as numpy arrays on the host.

    Attributes:
        inputs: `[B, L]` each.
        labels: `[B]`; int32 ids of classes, or float32 for a regression.
        weights: float32 `[B]`; 1 for an example, 0 for a filler row.
    """

    inputs: Inputs
    labels: Array
    weights: Array


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedBatch:
    """The rows of a split that form a batch, `[B]` (fewer if ragged), and the length to which they are padded."""

    rows: np.ndarray
    length: int


def plan_epoch(
    split: Examples, batch_size: int, lengths: Sequence[int], seed: Sequence[int]
) -> tuple[PlannedBatch, ...]:
    """ceil(n / batch_size) shuffled training batches of sentences of similar length, every row in exactly one.

    The epoch is shuffled and divided into mega-batches; in each, rows are grouped by the static length that they need
    and cut into batches, and the order of the batches is shuffled again. With a single length this is a plain shuffle.
    At most one batch is ragged.

    Args:
        batch_size: rows per batch.
        lengths: the static lengths, ascending; a batch is padded to the smallest that holds its longest sentence.
        seed: each seed gives another shuffle.

    Raises:
        ValueError: a sentence is longer than the largest length.
    """
    random = np.random.default_rng(seed)
    rows = random.permutation(len(split.sizes))
    mega_batch = np.arange(len(rows)) // (MEGA_BATCH * batch_size)
    static_length = np.searchsorted(lengths, split.sizes[rows])  # index of the length that a row needs
    rows = rows[np.lexsort((static_length, mega_batch))]  # stable: rows of the same length stay shuffled
    batches = _plan(split, rows, batch_size, lengths)
    return tuple(batches[i] for i in random.permutation(len(batches)))


def plan_evaluation(split: Examples, batch_size: int, lengths: Sequence[int]) -> tuple[PlannedBatch, ...]:
    """ceil(n / batch_size) batches in order of length, every row in exactly one; at most the last is ragged.

    Raises:
        ValueError: a sentence is longer than the largest length.
    """
    return _plan(split, np.argsort(split.sizes, kind="stable"), batch_size, lengths)


def plan_batch(split: Examples, rows: np.ndarray, lengths: Sequence[int]) -> PlannedBatch:
    """One batch of these rows `[B]`, padded to the smallest of the lengths that holds its longest sentence.

    Raises:
        ValueError: a sentence is longer than the largest length.
    """
    longest = split.sizes[rows].max()
    if longest > lengths[-1]:
        raise ValueError(f"a sentence has {longest} tokens, more than the largest of the lengths {tuple(lengths)}")
    return PlannedBatch(rows, next(length for length in lengths if length >= longest))


def _plan(split: Examples, rows: np.ndarray, batch_size: int, lengths: Sequence[int]) -> tuple[PlannedBatch, ...]:
    """Cuts rows `[n]`, in this order, into batches."""
    starts = range(0, len(rows), batch_size)
    return tuple(plan_batch(split, rows[start : start + batch_size], lengths) for start in starts)


def make_batch(split: Examples, planned: PlannedBatch, batch_size: int, pad_token_id: int) -> Batch:
    """The planned rows as arrays `[batch_size, planned.length]`.

    A ragged batch is filled with rows of weight 0. Such a row attends to its first padding token, so that its softmax
    is defined.
    """
    shape = (batch_size, planned.length)
    sizes = np.zeros(batch_size, np.int32)
    sizes[: len(planned.rows)] = split.sizes[planned.rows]
    real = np.arange(planned.length) < sizes[:, None]  # [B, L]
    input_ids = np.full(shape, pad_token_id, np.int32)
    token_type_ids = np.zeros(shape, np.int32)
    # Assigning by a mask fills row by row, the order of the concatenated tokens.
    input_ids[real] = _strung_together(split.input_ids, planned.rows)
    token_type_ids[real] = _strung_together(split.token_type_ids, planned.rows)
    labels = np.zeros(batch_size, split.labels.dtype)
    labels[: len(planned.rows)] = split.labels[planned.rows]
    attention_mask = real.astype(np.int32)
    attention_mask[len(planned.rows) :, 0] = 1
    weights = (np.arange(batch_size) < len(planned.rows)).astype(np.float32)
    return Batch(Inputs(input_ids, attention_mask, token_type_ids), labels, weights)


def in_order(answered: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Answers to planned batches, pairs of rows `[b]` and values `[b, ...]`, as one array `[n, ...]` in row order."""
    rows, values = zip(*answered, strict=True)
    ordered: np.ndarray = np.concatenate(values)[np.argsort(np.concatenate(rows))]
    return ordered


def take(batch: Batch, rows: np.ndarray) -> Batch:
    """These rows of a batch on the host."""
    part: Batch = jax.tree.map(lambda a: a[rows], batch)
    return part


def _strung_together(arrays: Sequence[np.ndarray], rows: np.ndarray) -> Any:
    return np.concatenate([arrays[row] for row in rows])
