"""From checked texts to arrays of token ids, with what was understood of them."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dynabert_jax.config.complete import CompleteData
from dynabert_jax.config.tasks import Against
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
        against: what the labels are: the data's own, or a teacher's answers; None: there are none, and they are zeros.
        parts: the splits that this one consists of, in order; empty for one that was read.
    """

    name: str
    input_ids: Sequence[np.ndarray]
    token_type_ids: Sequence[np.ndarray]
    labels: np.ndarray
    origins: np.ndarray | None = None
    whole_sizes: np.ndarray | None = None
    against: Against | None = "labels"
    parts: tuple["Split", ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Tokens of each example, `[n]`."""
        return np.array([len(ids) for ids in self.input_ids], np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the examples. It changes with any token, any label of the data and their order."""
        digest = hashlib.sha256()
        labels = [self.labels] if self.against == "labels" else []
        for array in (self.sizes, *self.input_ids, *self.token_type_ids, *labels):
            digest.update(array.tobytes())
        return digest.hexdigest()

    def take(self, rows: np.ndarray) -> "Split":
        """These rows `[m]`."""
        return Split(
            self.name,
            [self.input_ids[row] for row in rows],
            [self.token_type_ids[row] for row in rows],
            self.labels[rows],
            None if self.origins is None else self.origins[rows],
            None if self.whole_sizes is None else self.whole_sizes[rows],
            self.against,
        )

    def answered(self, answers: np.ndarray) -> "Split":
        """The same texts with a teacher's answers `[n]` for labels."""
        return dataclasses.replace(self, labels=answers.astype(self.labels.dtype), against="teacher")

    def described(self, rows: np.ndarray) -> str:
        """Rows as a user finds them in the data: sorted, counted from 1, without those that were not used."""
        if self.parts:
            ends = np.cumsum([len(part) for part in self.parts])
            each = [rows[(rows < end) & (rows >= end - len(part))] - (end - len(part))
                    for part, end in zip(self.parts, ends, strict=True)]  # fmt: skip
            named = zip(self.parts, each, strict=True)
            return "; ".join(f"{part.name} {part.described(own)}" for part, own in named if len(own))
        own = rows if self.origins is None else self.origins[rows]
        return ", ".join(map(str, np.sort(own) + 1))


@dataclasses.dataclass(frozen=True)
class TaskData:
    """All data of a run.

    Attributes:
        labels: the classes' names in the order of their ids; empty for a regression.
        dev: by name; one split, unless the task has more.
        test: by name; empty if no test split has labels.
        unlabelled: what is trained on in addition where labels are not needed; None if there is nothing.
        held_out: dev is a part of train that was held out.
        assumed: what was taken for granted of the tokenizer and, without labels, of the model, in sentences.
        summaries: of the splits, train first.
    """

    labels: tuple[str, ...]
    train: Split
    dev: Mapping[str, Split]
    test: Mapping[str, Split]
    unlabelled: Split | None = None
    held_out: bool = False
    assumed: tuple[str, ...] = ()
    summaries: tuple[SplitSummary, ...] = ()

    @property
    def splits(self) -> tuple[Split, ...]:
        """All of them: train, unlabelled, dev, test."""
        unlabelled = () if self.unlabelled is None else (self.unlabelled,)
        return self.train, *unlabelled, *self.dev.values(), *self.test.values()

    @functools.cached_property
    def everything(self) -> Split:
        """All that can be trained on where labels are not needed."""
        return self.train if self.unlabelled is None else _joined("train and unlabelled", self.train, self.unlabelled)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of all that the result of training depends on; test is not included."""
        return _fingerprint(self.everything.parts or (self.train,), self.dev.values())

    @property
    def fingerprint_of_labelled(self) -> str:
        """A SHA-256 of train and dev, on which the stages depend that learn from labels."""
        return _fingerprint((self.train,), self.dev.values())


def _fingerprint(trained: Iterable[Split], dev: Iterable[Split]) -> str:
    return hashlib.sha256("".join(split.fingerprint for split in (*trained, *dev)).encode()).hexdigest()


def _joined(name: str, *parts: Split) -> Split:
    """The examples of several splits, one after the other, as if they had no labels."""
    return Split(
        name,
        [ids for part in parts for ids in part.input_ids],
        [types for part in parts for types in part.token_type_ids],
        np.zeros(sum(map(len, parts)), parts[0].labels.dtype),
        against=None,
        parts=parts,
    )


def load_data(config: CompleteData, tokenizer: Tokenizer, of_model: tuple[str, ...] = ()) -> TaskData:
    """Reads, checks and encodes the data of the configuration; arguments and errors are those of `read_texts`."""
    return encode(read_texts(config, of_model), tokenizer, config.max_length)


def encode(texts: TaskTexts, tokenizer: Tokenizer, max_length: int) -> TaskData:
    """Texts to token ids, and what was understood of them. Texts of more than `max_length` tokens are truncated."""

    def encoded(name: str, split: Texts) -> Split:
        return encode_split(name, split, tokenizer, max_length)

    data = TaskData(
        texts.labels,
        encoded("train", texts.train),
        {name: encoded(name, split) for name, split in texts.dev.items()},
        {name: encoded(name, split) for name, split in texts.test.items()},
        None if texts.unlabelled is None else encoded("unlabelled", texts.unlabelled),
        texts.held_out,
        (*texts.assumed, *tokenizer.assumed),
    )
    return dataclasses.replace(data, summaries=summarize(texts, data.splits, tokenizer, max_length))


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
    against: Against | None = "labels" if examples.table.is_labelled else None
    return Split(name, input_ids, token_type_ids, examples.labels, examples.origins, whole_sizes, against)


def unlabelled(name: str, tokens: Sequence[Tokens]) -> Split:
    """Encoded texts whose labels are not known, and are zeros."""
    ids, types = [one.input_ids for one in tokens], [one.token_type_ids for one in tokens]
    return Split(name, ids, types, np.zeros(len(tokens), np.int32), against=None)
