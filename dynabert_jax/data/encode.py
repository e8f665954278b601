"""From checked texts to arrays of token ids, with what was understood of them."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from dynabert_jax.config.complete import CompleteData
from dynabert_jax.data.summary import SplitSummary, summarize
from dynabert_jax.data.texts import TaskTexts, Texts, read_texts
from dynabert_jax.data.tokenizer import Tokenizer, Tokens, tokenize


@dataclasses.dataclass(frozen=True)
class Split:
    """The encoded examples of one split.

    Attributes:
        name: train, dev, test, or the task's name for a dev split.
        input_ids: for each example int32 `[tokens]`, special tokens included, without padding.
        token_type_ids: likewise; 1 in the second sentence of a pair, if the tokenizer marks it.
        labels: `[n]`; int32 ids of classes, or float32 for a regression.
        origins: int `[n]`; each example's row in the data that was read, counted from 0; None if no data was read.
        whole_sizes: int `[n]`; tokens of each example before it was truncated; None if no data was read.
    """

    name: str
    input_ids: Sequence[np.ndarray]
    token_type_ids: Sequence[np.ndarray]
    labels: np.ndarray
    origins: np.ndarray | None = None
    whole_sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Tokens of each example, `[n]`."""
        return np.array([len(ids) for ids in self.input_ids], np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the examples. It changes with any token, any label and their order."""
        digest = hashlib.sha256()
        for array in (self.sizes, *self.input_ids, *self.token_type_ids, self.labels):
            digest.update(array.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class TaskData:
    """All data of a run.

    Attributes:
        labels: the classes' names in the order of their ids; empty for a regression.
        dev: by name; one split, unless the task has more.
        test: by name; empty if no test split has labels.
        held_out: dev is a part of train that was held out.
        assumed: what was taken for granted of the tokenizer, in sentences.
        summaries: of the splits, train first.
    """

    labels: tuple[str, ...]
    train: Split
    dev: Mapping[str, Split]
    test: Mapping[str, Split]
    held_out: bool = False
    assumed: tuple[str, ...] = ()
    summaries: tuple[SplitSummary, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of train and dev, on which the result of training depends; test is not included."""
        splits = (self.train, *self.dev.values())
        return hashlib.sha256("".join(split.fingerprint for split in splits).encode()).hexdigest()


def load_data(config: CompleteData, tokenizer: Tokenizer) -> TaskData:
    """Reads, checks and encodes the data that the configuration names; raises what `read_texts` does."""
    return encode(read_texts(config), tokenizer, config.max_length)


def encode(texts: TaskTexts, tokenizer: Tokenizer, max_length: int) -> TaskData:
    """Texts to token ids, and what was understood of them. Texts of more than `max_length` tokens are truncated."""
    splits = [encode_split(name, split, tokenizer, max_length) for name, split in texts.splits]
    first_test = 1 + len(texts.dev)
    return TaskData(
        texts.labels,
        splits[0],
        {split.name: split for split in splits[1:first_test]},
        {split.name: split for split in splits[first_test:]},
        texts.held_out,
        tokenizer.assumed,
        summarize(texts, splits, tokenizer, max_length),
    )


# Encoding


def encode_split(name: str, examples: Texts, tokenizer: Tokenizer, max_length: int) -> Split:
    """One split of `encode`."""
    encoded = tokenize(tokenizer, examples.texts)
    whole_sizes = np.array([len(tokens.input_ids) for tokens in encoded])
    long = np.flatnonzero(whole_sizes > max_length).tolist()
    shortened = tokenize(tokenizer, [examples.texts[row] for row in long], max_length)
    for row, tokens in zip(long, shortened, strict=True):
        encoded[row] = tokens
    input_ids = [tokens.input_ids for tokens in encoded]
    token_type_ids = [tokens.token_type_ids for tokens in encoded]
    return Split(name, input_ids, token_type_ids, examples.labels, examples.origins, whole_sizes)


def unlabelled(name: str, tokens: Sequence[Tokens]) -> Split:
    """Encoded texts whose labels are not known, and are zeros."""
    ids, types = [one.input_ids for one in tokens], [one.token_type_ids for one in tokens]
    return Split(name, ids, types, np.zeros(len(tokens), np.int32))
