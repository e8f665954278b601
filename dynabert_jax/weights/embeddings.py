"""Word embeddings in fewer bytes: fewer rows, or rows of 16 or 8 bits.

V is the size of the vocabulary, H the hidden size.
"""

from typing import Literal, NamedTuple

import numpy as np

from dynabert_jax.model.params import Model, Params, merged
from dynabert_jax.weights.torch_file import WeightsError

Stored = Literal["float32", "float16", "int8"]
PATH = "embeddings/word/embedding"  # of the table, float32 [V, H]
LARGEST = 127  # of 8 bits; -128 is not used, so that both signs have the same steps


class Rows(NamedTuple):
    """Rows of 8 bits: numbers int8 `[V, H]`, and the step between them float32 `[V, 1]`, one for each row."""

    numbers: np.ndarray
    steps: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The float32 numbers `[V, H]` that they stand for."""
        return self.numbers.astype(np.float32) * self.steps


def table_of(params: Params) -> np.ndarray:
    """The word embeddings, `[V, H]`."""
    return np.asarray(params["embeddings"]["word"]["embedding"])


def with_rows(model: Model, kept: np.ndarray) -> Model:
    """The model with these rows of the word embeddings alone.

    Args:
        kept: the ids of the tokens that stay, `[new V]`, ascending, with that of the padding token; a token's place in
            it is its new id.
    """
    pad = int(np.searchsorted(kept, model.config.pad_token_id))
    config = model.config.replace(vocab_size=len(kept), pad_token_id=pad)
    return Model(config, _with_table(model.params, table_of(model.params)[kept]))


def rounded(model: Model, stored: Stored) -> Model:
    """The model with the word embeddings that are read back from what is stored, float32 again.

    Raises:
        WeightsError: a number is too large for 16 bits.
    """
    return Model(model.config, _with_table(model.params, _round(table_of(model.params), stored)))


def _round(table: np.ndarray, stored: Stored) -> np.ndarray:
    if stored == "int8":
        return in_int8(table).values
    if stored == "float16":
        return in_float16(table).astype(np.float32)
    return table


def in_int8(table: np.ndarray) -> Rows:
    """The nearest rows of 8 bits. A row's largest number has all of them, so that no row depends on another."""
    largest = np.abs(table).max(axis=1, keepdims=True)  # [V, 1]
    steps = (np.where(largest > 0, largest, LARGEST) / LARGEST).astype(np.float32)
    return Rows(np.rint(table / steps).clip(-LARGEST, LARGEST).astype(np.int8), steps)


def in_float16(table: np.ndarray) -> np.ndarray:
    """Float16 `[V, H]`.

    Raises:
        WeightsError: a number is too large for it.
    """
    with np.errstate(over="ignore"):
        half = table.astype(np.float16)
    if not np.isfinite(half).all():
        raise WeightsError(
            f"a word embedding is {np.abs(table).max():.3g}, and float16 goes up to {np.finfo(np.float16).max:.0f}; "
            "store the embeddings as float32"
        )
    return half


def size_in_bytes(table: np.ndarray, stored: Stored) -> int:
    """Bytes of the table as it is stored."""
    if stored == "int8":
        return sum(part.nbytes for part in in_int8(table))
    return int(table.size * np.dtype(stored).itemsize)


def _with_table(params: Params, table: np.ndarray) -> Params:
    return merged(params, {"embeddings": {"word": {"embedding": table}}})
