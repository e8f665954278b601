"""Exports that are smaller on disk: a vocabulary of given texts, and word embeddings of 16 or 8 bits.

Both change the model before any format is written. What is written is compared, as every export is, with this package's
network: with the whole vocabulary and the numbers that the file stores. What both cost is measured on the dev splits.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dynabert_jax.config.checked import Checked
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.encode import Split, unlabelled
from dynabert_jax.data.texts import read_texts_alone
from dynabert_jax.data.tokenizer import Tokenizer, tokenize
from dynabert_jax.data.vocabulary import with_fewer_tokens
from dynabert_jax.evaluate.metrics import score
from dynabert_jax.evaluate.rows import IN_UNITS, Row, measure, shown
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.formats import FORMATS
from dynabert_jax.export.verify import COMPARED, Exportable, Sentences, answers
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.runner import Runner, Source
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.weights.embeddings import Stored, rounded, size_in_bytes, table_of, with_rows


class Spelled(Checked):
    """What a smaller vocabulary does to the texts of one split.

    Attributes:
        split: its name.
        texts: how many there are.
        changed: how many of them have other tokens than before.
        tokens: of all texts, before.
        replaced: how many of these tokens the smaller vocabulary lacks, so that other tokens spell the word.
        unknown, unknown_before: unknown tokens now, and before.
    """

    split: str
    texts: int
    changed: int
    tokens: int
    replaced: int
    unknown: int
    unknown_before: int

    def __str__(self) -> str:
        return (
            f"{self.split}: {self.replaced / self.tokens:.2%} of its {self.tokens:,} tokens are not in it and are "
            f"spelled with others, in {self.changed:,} of {self.texts:,} texts; unknown tokens: {self.unknown:,}, and "
            f"{self.unknown_before:,} before"
        )


class Change(Checked):
    """What it all costs one sub-network on one split.

    Attributes:
        sub, split: their names.
        examples: how many were scored.
        metric: the task's main metric.
        measure: the same in words.
        before, after: every metric of the task, as fractions.
        largest: the largest difference of a logit, or of a regression's number.
    """

    sub: str
    split: str
    examples: int
    metric: str
    measure: str
    before: dict[str, float]
    after: dict[str, float]
    largest: float

    def __str__(self) -> str:
        after, before = (shown(self.metric, scores[self.metric]) for scores in (self.after, self.before))
        scale = "" if self.metric in IN_UNITS else " x 100"
        return (
            f"{self.sub}: {self.measure}{scale} on {self.split} ({self.examples:,} examples) is {after}, and {before} "
            f"before; the largest difference of a logit is {self.largest:.2g}"
        )


class Saving(Checked):
    """What an export saved on disk, and what that costs.

    Attributes:
        texts: how many the vocabulary was made of; 0 if it is the whole one.
        tokens, tokens_before: the size of the vocabulary.
        embeddings: the type of the word embeddings in the file.
        embeddings_bytes, embeddings_bytes_before: their size.
        weights: the name of the file of weights.
        weights_bytes, weights_bytes_before: its size.
        spelled: of every dev split; empty for the whole vocabulary.
        changes: of every sub-network on every dev split.
    """

    texts: int
    tokens: int
    tokens_before: int
    embeddings: Stored
    embeddings_bytes: int
    embeddings_bytes_before: int
    weights: str
    weights_bytes: int
    weights_bytes_before: int
    spelled: tuple[Spelled, ...]
    changes: tuple[Change, ...]

    @property
    def lines(self) -> list[str]:
        """What was gained and what it costs, a sentence each."""
        vocabulary = (
            f"vocabulary: {self.tokens:,} of {self.tokens_before:,} tokens, for the words of {self.texts:,} texts"
        )
        return [
            *([vocabulary] if self.texts else []),
            *map(str, self.spelled),
            f"word embeddings: {_mb(self.embeddings_bytes)} in {self.embeddings}, and "
            f"{_mb(self.embeddings_bytes_before)} before",
            f"{self.weights}: {_mb(self.weights_bytes)}, and {_mb(self.weights_bytes_before)} before",
            *map(str, self.changes),
        ]

    def rows(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The run's rows with the scores of this export; rows of splits on which it was not scored are left out."""
        after = {(change.sub, change.split): change.after for change in self.changes}
        found = [(row, after.get((row.sub, row.split))) for row in rows]
        return tuple(row.replace(scores=scores) for row, scores in found if scores is not None)


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


# Before the export is written


def check_smaller(format: str, embeddings: Stored, vocabulary_of: Sequence[str | Path], sentences: Sentences) -> None:
    """Raises ExportError if the format cannot hold such embeddings, or there is no dev data to measure the cost on."""
    allowed = FORMATS[format].embeddings
    if embeddings not in allowed:
        others = [name for name, entry in FORMATS.items() if embeddings in entry.embeddings]
        instead = f"use --format {' or '.join(others)}, or " if others else "use "
        raise ExportError(
            f"--format {format} stores word embeddings in {' or '.join(allowed)}; got --embeddings {embeddings}; "
            f"{instead}--embeddings {allowed[-1]}"
        )
    if (vocabulary_of or embeddings != "float32") and not sentences.dev:
        option = "--vocabulary-of" if vocabulary_of else f"--embeddings {embeddings}"
        raise ExportError(
            f"the cost of {option} is measured on the run's dev data, which cannot be read: {sentences.problem}. "
            f"Restore the data, or leave {option} out"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Smaller:
    """A model that is made smaller.

    Attributes:
        whole: the run's.
        exact: what the export has to answer: the whole vocabulary, with the numbers that the export stores.
        written: what is exported.
        texts: how many the vocabulary was made of; 0 if it is the whole one.
        kept: the ids in the whole vocabulary, `[vocabulary]`.
    """

    whole: Exportable
    exact: Exportable
    written: Exportable
    texts: int
    kept: np.ndarray

    @property
    def is_smaller(self) -> bool:
        return bool(self.texts) or self.written.source.stored != "float32"


def made_smaller(
    whole: Exportable,
    embeddings: Stored,
    vocabulary_of: Sequence[str | Path],
    text_columns: Sequence[str],
    max_length: int,
) -> Smaller:
    """The run's model with these word embeddings, for the vocabulary of all these files together.

    Args:
        whole: the run's.
        embeddings: the type of the word embeddings in the export.
        vocabulary_of: files of texts; none: the whole vocabulary.
        text_columns: the files' columns.
        max_length: longer texts are truncated, in tokens; the vocabulary is of the whole texts.

    Raises:
        DataError: a file cannot be read, or the tokenizer cannot be made smaller.
        WeightsError: an embedding is too large for float16.
    """
    model, subs = rounded(whole.source.model, embeddings), whole.source.subs
    exact = dataclasses.replace(whole, source=Source(model, subs, embeddings))
    if not vocabulary_of:
        return Smaller(whole, exact, exact, 0, np.arange(model.config.vocab_size))
    texts = read_texts_alone(vocabulary_of, text_columns)
    tokenizer, kept = with_fewer_tokens(whole.tokenizer, texts)
    few = [texts[i] for i in np.unique(np.linspace(0, len(texts) - 1, COMPARED).astype(int))]
    origin = f"sentences of {', '.join(Path(file).name for file in vocabulary_of)}"

    def of(tokenizer: Tokenizer, sentences: Sentences) -> Sentences:
        tokens = tokenize(tokenizer, few, max_length)
        return dataclasses.replace(sentences, few=unlabelled("sentences", tokens), origin=origin)

    exact = dataclasses.replace(exact, sentences=of(whole.tokenizer, exact.sentences))
    written = Exportable(
        Source(with_rows(model, kept), subs, embeddings),
        tokenizer,
        of(tokenizer, whole.sentences.in_tokens_of(tokenizer, max_length)),
    )
    return Smaller(whole, exact, written, len(texts), kept)


# After it was written


def saving_of(
    smaller: Smaller, task: Task, weights: Path, open_written: Callable[[SubNetwork], Runner]
) -> Saving | None:
    """What was saved, and what it costs on every dev split; None if nothing was made smaller.

    Args:
        weights: the file of weights.
        open_written: opens a sub-network of the export.
    """
    if not smaller.is_smaller:
        return None
    before, after = (table_of(one.source.model.params) for one in (smaller.whole, smaller.written))
    stored = smaller.written.source.stored
    size, size_before = size_in_bytes(after, stored), size_in_bytes(before, "float32")
    written = weights.stat().st_size
    return Saving(
        texts=smaller.texts,
        tokens=len(after),
        tokens_before=len(before),
        embeddings=stored,
        embeddings_bytes=size,
        embeddings_bytes_before=size_before,
        weights=weights.name,
        weights_bytes=written,
        weights_bytes_before=written - size + size_before,
        spelled=tuple(_spelled(smaller)) if smaller.texts else (),
        changes=tuple(
            change for sub in smaller.whole.source.subs for change in _changes(smaller, task, sub, open_written(sub))
        ),
    )


def _spelled(smaller: Smaller) -> list[Spelled]:
    splits, kept = smaller.written.sentences.dev, smaller.kept
    return [
        _spelled_on(smaller, name, split, splits[name], kept) for name, split in smaller.whole.sentences.dev.items()
    ]


def _spelled_on(smaller: Smaller, name: str, before: Split, after: Split, kept: np.ndarray) -> Spelled:
    same = [np.array_equal(old, kept[new]) for old, new in zip(before.input_ids, after.input_ids, strict=True)]
    tokens = np.concatenate(before.input_ids)
    unknown = [
        int((np.concatenate(split.input_ids) == one.tokenizer.unknown_id).sum())
        for split, one in ((after, smaller.written), (before, smaller.whole))
    ]
    return Spelled(
        split=name,
        texts=len(same),
        changed=len(same) - sum(same),
        tokens=len(tokens),
        replaced=int((~np.isin(tokens, kept)).sum()),
        unknown=unknown[0],
        unknown_before=unknown[1],
    )


def _changes(smaller: Smaller, task: Task, sub: SubNetwork, after: Runner) -> list[Change]:
    model = smaller.whole.source.model
    before, labels = in_jax.open_model(model.cut(sub), on=devices.local()[:1]), model.config.labels
    found = []
    for name, split in smaller.whole.sentences.dev.items():
        logits = [
            answers(before, split, model.config.pad_token_id),
            answers(after, smaller.written.sentences.dev[name], smaller.written.source.model.config.pad_token_id),
        ]
        scores = [score(task, one, split.labels, labels) for one in logits]
        found.append(
            Change(
                sub=sub.name,
                split=name,
                examples=len(split),
                metric=task.main_metric,
                measure=measure(task.main_metric, split.against, task.positive_class(labels)),
                before=scores[0],
                after=scores[1],
                largest=float(np.abs(logits[1] - logits[0]).max()),
            )
        )
    return found
