"""Verifies an export: runs it and compares its answers with those of `bert.py`."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from dynabert_jax.config.complete import CompleteData
from dynabert_jax.data.batches import Batch, PlannedBatch, in_order, make_batch, plan_evaluation
from dynabert_jax.data.encode import Split, encode_split, unlabelled
from dynabert_jax.data.encode import encode as encode_data
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.samples import SampleError
from dynabert_jax.data.texts import read_texts
from dynabert_jax.data.tokenizer import Tokenizer, tokenize
from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.runner import Runner, Source
from dynabert_jax.runs.answers import with_answers
from dynabert_jax.runs.finished import Finished
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices

log = logging.getLogger(__name__)

# Largest absolute difference of a logit, or standardised number, that float32 sums in another order can explain.
TOLERANCE = 1e-4
COMPARED = 48  # sentences
ROWS = 32  # sentences per batch, at most
SENTENCES = (
    "A film that is both funny and sad, and never a minute too long.",
    "The plot makes no sense, and nothing in this story hangs together!",
    "Why?",
    "Two people meet on a train; what follows is told twice, and neither time quite as it was.",
    "Good.",
)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The sentences that an export is verified on.

    Attributes:
        dev: the run's complete dev splits, by name; empty if its data could not be read.
        few: the sentences whose logits are compared.
        origin: where they are from, for messages.
        problem: why the run's data could not be read; empty if it could.
        texts: the texts of the dev splits, by name.
    """

    dev: Mapping[str, Split]
    few: Split
    origin: str
    problem: str = ""
    texts: Mapping[str, Sequence[tuple[str, ...]]] = dataclasses.field(default_factory=dict)

    def in_tokens_of(self, tokenizer: Tokenizer, max_length: int) -> "Sentences":
        """The same dev splits in the tokens of another tokenizer; `few` stays."""
        dev = {}
        for name, split in self.dev.items():
            ids, types = zip(*tokenize(tokenizer, self.texts[name], max_length), strict=True)
            dev[name] = dataclasses.replace(split, input_ids=ids, token_type_ids=types, whole_sizes=None)
        return dataclasses.replace(self, dev=dev)


@dataclasses.dataclass(frozen=True, eq=False)
class Exportable:
    """A model with its sub-networks, its tokenizer, and sentences in that tokenizer's tokens."""

    source: Source
    tokenizer: Tokenizer
    sentences: Sentences


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of a comparison.

    Attributes:
        by: the program that ran the export.
        origin: where the sentences are from.
        sentences: the number of sentences.
        largest: the largest absolute difference of a logit.
    """

    by: str
    origin: str
    sentences: int
    largest: float

    def __str__(self) -> str:
        found = f"the largest difference of a logit is {self.largest:.1e}" if self.largest else "no logit differs"
        return f"{found}, over {self.sentences} {self.origin}; {self.by}"


def read_sentences(finished: Finished, tokenizer: Tokenizer) -> Sentences:
    """Sentences of the run's dev split or, if its data cannot be read, a few of our own."""
    config, shape = finished.config.data, finished.shape
    try:
        texts = read_texts(config, () if shape.is_regression else shape.labels)
    except (DataError, SampleError) as error:
        log.warning("the run's data cannot be read, so other sentences are compared (%s)", error)
        own = encode(SENTENCES, config, tokenizer)
        return Sentences({}, own, "sentences that are not of the run's data", str(error))
    dev: Mapping[str, Split]
    if all(split.table.is_labelled for split in texts.dev.values()):
        dev = {name: encode_split(name, split, tokenizer, config.max_length) for name, split in texts.dev.items()}
    else:
        data = encode_data(texts, tokenizer, config.max_length)
        dev = with_answers(data, finished.folder, finished.config, finished.record.get("weights")).dev
    name, split = next(iter(dev.items()))
    few, origin = first(split, COMPARED), f"sentences of {name}"
    return Sentences(dev, few, origin, texts={name: split.texts for name, split in texts.dev.items()})


def encode(sentences: Sequence[str], config: CompleteData, tokenizer: Tokenizer) -> Split:
    """Single sentences or, for a task of pairs, each with the next one."""
    pairs = (sentences, [*sentences[1:], sentences[0]])[: len(config.task.text_columns)]
    tokens = tokenize(tokenizer, list(zip(*pairs, strict=True)), config.max_length)
    return unlabelled("sentences", tokens)


def first(split: Split, count: int) -> Split:
    return Split(split.name, split.input_ids[:count], split.token_type_ids[:count], split.labels[:count])


def verify(exact: Exportable, written: Exportable, open_written: Callable[[SubNetwork], Runner]) -> Check:
    """Compares the export with our own network, in float32, on every sub-network that it holds.

    Args:
        exact: what our network runs, on the same sentences as the export; their tokens may have other ids.
        written: what was exported.
        open_written: opens a sub-network of the export.

    Raises:
        ExportError: a logit differs by more than `TOLERANCE`, in the unit of a regression's number.
    """
    differences = []
    for sub in exact.source.subs:
        theirs, ours = open_written(sub), in_jax.open_model(exact.source.model.cut(sub), on=devices.local()[:1])
        logits = [
            answers(runner, one.sentences.few, one.source.model.config.pad_token_id)
            for runner, one in ((theirs, written), (ours, exact))
        ]
        differences.append(float(np.abs(logits[0] - logits[1]).max()))
    check = Check(theirs.by, written.sentences.origin, len(written.sentences.few), max(differences))
    tolerance = exact.source.model.config.unit.tolerance(TOLERANCE)
    if not check.largest <= tolerance:  # also true for NaN
        raise ExportError(
            f"the export gives wrong answers, so nothing was written: {check}. More than {tolerance:g} is not "
            f"rounding; please report it with the versions of the packages"
        )
    return check


def answers(runner: Runner, split: Split, pad_token_id: int) -> np.ndarray:
    """Logits `[n, C]` in the split's order, from batches of several sizes and lengths, with and without padding."""
    pairs = batches(split, pad_token_id)
    return in_order((planned.rows, np.asarray(runner(batch.inputs).logits)) for planned, batch in pairs)


def batches(split: Split, pad_token_id: int) -> Iterator[tuple[PlannedBatch, Batch]]:
    """Batches in order of length, each as long as its longest sentence."""
    lengths = np.unique(split.sizes).tolist()
    for planned in plan_evaluation(split, ROWS, lengths):
        yield planned, make_batch(split, planned, len(planned.rows), pad_token_id)
