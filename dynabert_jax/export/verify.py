"""Every export is run, and its answers are held against those of `bert.py`."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from dynabert_jax.batches import Batch, PlannedBatch, make_batch, plan_evaluation
from dynabert_jax.bert import Bert
from dynabert_jax.config import DataConfig
from dynabert_jax.cut import cut
from dynabert_jax.data import DataError, Split, load_data, tokenize
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.source import Reader, Source
from dynabert_jax.samples import SampleError
from dynabert_jax.subnetwork import SubNetwork

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# Largest absolute difference of a logit that passes for another order of float32 sums.
TOLERANCE = 1e-4
COMPARED = 48  # sentences
ROWS = 32  # sentences of a batch, at most
SENTENCES = (
    "A film that is both funny and sad, and never a minute too long.",
    "The plot makes no sense, and nothing in this story hangs together!",
    "Why?",
    "Two people meet on a train; what follows is told twice, and neither time quite as it was.",
    "Good.",
)


@dataclasses.dataclass(frozen=True)
class Sentences:
    """What an export is tried on.

    Attributes:
        dev: the run's dev splits by name, whole; empty where its data could not be read.
        few: those that are compared one by one.
        origin: where they are from, for people.
        problem: why the run's data could not be read; empty where it could.
    """

    dev: Mapping[str, Split]
    few: Split
    origin: str
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Check:
    """A comparison that was made.

    Attributes:
        by: what ran the export.
        origin: of the sentences.
        sentences: how many.
        largest: the largest absolute difference of a logit.
    """

    by: str
    origin: str
    sentences: int
    largest: float

    def __str__(self) -> str:
        found = f"{self.largest:.1e} is the largest difference of a logit" if self.largest else "no logit differs"
        return f"{found}, over {self.sentences} {self.origin}; {self.by}"


def read_sentences(config: DataConfig, tokenizer: "PreTrainedTokenizerBase") -> Sentences:
    """Sentences of the run's dev split or, where its data is not there any more, a few of our own."""
    try:
        data = load_data(config.replace(max_train_examples=1), tokenizer)
    except (DataError, SampleError) as error:
        log.warning("the run's data cannot be read, so other sentences are compared (%s)", error)
        own = encode(SENTENCES, config, tokenizer)
        return Sentences({}, own, "sentences that are not of the run's data", str(error))
    name, split = next(iter(data.dev.items()))
    return Sentences(data.dev, first(split, COMPARED), f"sentences of {name}")


def encode(sentences: Sequence[str], config: DataConfig, tokenizer: "PreTrainedTokenizerBase") -> Split:
    """Single sentences, or each with the next one where the task is one of pairs."""
    pairs = (sentences, [*sentences[1:], sentences[0]])[: len(config.task.text_columns)]
    tokens = tokenize(tokenizer, list(zip(*pairs, strict=True)), config.max_length)
    ids = [one.input_ids for one in tokens]
    return Split("sentences", ids, [one.token_type_ids for one in tokens], np.zeros(len(ids), np.int32))


def first(split: Split, count: int) -> Split:
    return Split(split.name, split.input_ids[:count], split.token_type_ids[:count], split.labels[:count])


def verify(source: Source, reader: Reader, sentences: Sentences) -> Check:
    """Compares the export with `bert.py` on every sub-network that it holds.

    Raises:
        ExportError: a logit differs by more than `TOLERANCE`.
    """
    pad = source.config.pad_token_id
    ours = own_reader(source)
    largest = max(
        float(np.abs(answers(reader, sub, sentences.few, pad) - answers(ours, sub, sentences.few, pad)).max())
        for sub in source.subs
    )
    check = Check(reader.by, sentences.origin, len(sentences.few), largest)
    if not largest <= TOLERANCE:  # also where it is not a number
        raise ExportError(
            f"the export does not answer as it should, and nothing was written: {check}. More than {TOLERANCE:g} is no "
            f"rounding; please report it with the versions of the packages"
        )
    return check


def own_reader(source: Source) -> Reader:
    """`bert.py` itself, in float32."""
    forwards = {sub: _forward(source, sub) for sub in source.subs}

    def answer(sub: SubNetwork, batch: Batch) -> np.ndarray:
        return np.asarray(forwards[sub](batch.input_ids, batch.attention_mask, batch.token_type_ids))

    return Reader("bert.py", answer)


def _forward(source: Source, sub: SubNetwork) -> Callable[..., jax.Array]:
    small = cut(source.config, source.params, sub)
    model, whole = Bert(small.config), SubNetwork.full(small.config)
    return jax.jit(lambda *inputs: model.apply({"params": small.params}, *inputs, whole).logits)


def answers(reader: Reader, sub: SubNetwork, split: Split, pad_token_id: int) -> np.ndarray:
    """Logits `[n, C]` in the split's order, from batches of several sizes and lengths, with padding and without."""
    parts = [(planned.rows, reader.answer(sub, batch)) for planned, batch in batches(split, pad_token_id)]
    logits = np.concatenate([answer for _, answer in parts])
    return logits[np.argsort(np.concatenate([rows for rows, _ in parts]))]


def batches(split: Split, pad_token_id: int) -> Iterator[tuple[PlannedBatch, Batch]]:
    """In order of length, each as long as its longest sentence."""
    lengths = np.unique(split.sizes).tolist()
    for planned in plan_evaluation(split, ROWS, lengths):
        yield planned, make_batch(split, planned, len(planned.rows), pad_token_id)
