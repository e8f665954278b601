"""Predictions of one network: (a run, an export or a model, texts) -> a prediction per text.

Letters in shapes: B texts per batch, S tokens, C labels.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.config.tasks import Kind
from dynabert_jax.data.batches import make_batch, plan_evaluation
from dynabert_jax.data.encode import Split, unlabelled
from dynabert_jax.data.rows import WRITTEN, DataError, Lines, Row, is_unicode, open_rows, text_fault
from dynabert_jax.data.tokenizer import tokenize
from dynabert_jax.evaluate.evaluate import check_finite
from dynabert_jax.serve.open import PredictError as PredictError
from dynabert_jax.serve.open import open_network
from dynabert_jax.system import devices
from dynabert_jax.system.files import expanded, reason, whole
from dynabert_jax.system.memory import is_out_of_memory
from dynabert_jax.system.progress import progress

NOT_UNICODE = "it has half a surrogate pair, or its source is not UTF-8; fix it, or read it in the source's encoding"
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins with one of these
CHUNK = 64  # batches of a file that are held in memory and sorted by length together

Text = str | tuple[str, str]  # a sentence, or a pair of them


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one text.

    Attributes:
        label: the most probable class; None for a regression.
        probabilities: by class name; empty for a regression.
        number: the output of a regression; None for a classification.
    """

    label: str | None
    probabilities: Mapping[str, float]
    number: float | None = None

    @property
    def columns(self) -> dict[str, Any]:
        """The columns that a file gets next to the text; see `Predictor.columns`."""
        if self.number is not None:
            return {"prediction": _rounded(self.number)}
        shares = {f"probability_{name}": _rounded(share) for name, share in self.probabilities.items()}
        return {"prediction": self.label, **shares}


def predict_texts(
    path: str | Path, texts: Sequence[Text], sub: str | None = None, batch_size: int = 32
) -> list[Prediction]:
    """Predicts texts, in their order. For repeated calls, keep a `Predictor`, which also documents the errors.

    Args:
        path: a finished run, an export, or a fine-tuned model in Hugging Face's format.
        texts: sentences, or pairs of sentences.
        sub: the sub-network, such as `w0.5_d0.5`; None is a run's largest.
        batch_size: texts per batch.
    """
    return Predictor(path, sub, batch_size)(texts)


class Predictor:
    """One network, loaded, cut out and on its device. Every shape is compiled once.

    A single text runs as a batch of one. Several texts run `batch_size` at a time, sorted by length.

    Args:
        path: a finished run; the folder of an export; or a fine-tuned model in Hugging Face's format, a folder or a
            name on the hub.
        sub: the sub-network, such as `w0.5_d0.5`, of a run or a StableHLO export. None is a run's largest, or the
            export's only one. Models and other exports are one network and take none.
        batch_size: texts per batch, over all devices together; rounded up to a multiple of their number.

    Attributes:
        name: the network's name, for messages.
        labels: the names of the classes; for a regression, the one name of its output.
        text_columns: the names of the run's text columns, one or two; empty without a run.

    Raises:
        PredictError: there is no such sub-network, the model has no classifier, or the batch size cannot be used.
        ExportError: the export is damaged.
        MissingPackageError: it needs ONNX Runtime, which is not installed.
        RunFolderError, ModelNotFoundError, ConfigError, WeightsError, DataError: the run or the model cannot be read.
    """

    def __init__(self, path: str | Path, sub: str | None = None, batch_size: int = 32):
        network = open_network(path, sub)
        _check_batch_size(batch_size)
        self.name, self.labels, self.text_columns = network.name, network.config.labels, network.text_columns
        self.batch_size = devices.round_up(batch_size, network.runner.devices)
        self._config, self._network = network.config, network

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a prediction adds: the class and all probabilities, or the number of a regression."""
        return ("prediction", *_FORMS[self._config.head].more_columns(self.labels))

    def __call__(self, texts: Sequence[Text]) -> list[Prediction]:
        """One prediction per text, in their order; raises as `logits` does."""
        return _FORMS[self._config.head].predictions(self.labels, self.logits(texts))

    def logits(self, texts: Sequence[Text]) -> np.ndarray:
        """The network's logits, float32 `[n, C]`, in the texts' order.

        Raises:
            PredictError: a text is not a string, sentences and pairs are mixed, or memory is not enough.
            EvaluationError: an answer is NaN or infinite.
        """
        split = self._encode(texts)
        try:
            logits = self._answers(split)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise PredictError(
                f"there is not enough memory for {self.batch_size} texts at once; use a smaller --batch"
            ) from error
        check_finite(self.name, split, logits)
        return logits

    def _answers(self, split: Split) -> np.ndarray:
        logits = np.zeros((len(split), self._config.num_labels), np.float32)
        # Dispatch all before waiting for the first: the device works while the next batches are made.
        running = list(self._run(split))
        for part in running:
            logits[part.rows] = np.asarray(part.logits)[: len(part.rows)]
        return logits

    def _run(self, split: Split) -> "Iterator[_Answers]":
        size = self._network.runner.devices if len(split) == 1 else self.batch_size
        for planned in plan_evaluation(split, size, self._network.lengths):
            batch = make_batch(split, planned, size, self._config.pad_token_id)
            yield _Answers(planned.rows, self._network.runner(batch.inputs).logits)

    def _encode(self, texts: Sequence[Text]) -> Split:
        tokens = tokenize(self._network.tokenizer, self._parts(texts), self._network.lengths[-1])
        return unlabelled("the texts", tokens)

    def _parts(self, texts: Sequence[Text]) -> list[tuple[str, ...]]:
        """Every text as a tuple of its sentences; all have the same number."""
        if isinstance(texts, str):
            raise PredictError(f"texts must be a list; got the single text {texts[:40]!r}; put it in [ ]")
        parts = [_sentences(text) for text in texts]
        for text in parts:
            self.check_kind(text, parts[0])
        return parts

    def check_kind(self, parts: Sequence[str], first: Sequence[str]) -> None:
        """Raises PredictError if sentences and pairs mix. The run decides which is valid; without one, `first`."""
        kinds = {1: "single sentences", 2: "pairs of sentences"}
        wanted = len(self.text_columns or first)
        if len(parts) != wanted:
            raise PredictError(f"{kinds[wanted]} are needed here; got {', '.join(map(repr, parts))}")


def _sentences(text: Text) -> tuple[str, ...]:
    """The one or two sentences of a text."""
    parts = (text,) if isinstance(text, str) else text
    if not (isinstance(parts, tuple | list) and len(parts) in (1, 2) and all(isinstance(part, str) for part in parts)):
        raise PredictError(f"a text must be a string or a pair of strings; got {text!r}")
    for part in parts:
        if not is_unicode(part):
            raise PredictError(f"a text must be valid Unicode; got {part[:40]!r}; {NOT_UNICODE}")
    return tuple(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class _Answers:
    """The rows `[b]` of a batch, and logits `[B, C]`, filler rows last. The logits may still be in computation."""

    rows: np.ndarray
    logits: Any


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[n, C]` from logits `[n, C]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _classes(labels: Sequence[str], logits: np.ndarray) -> list[Prediction]:
    """The most probable class and all probabilities, from logits `[n, C]`."""
    shares, best = softmax(logits).tolist(), logits.argmax(axis=1).tolist()
    return [Prediction(labels[i], dict(zip(labels, row, strict=True))) for i, row in zip(best, shares, strict=True)]


def _numbers(_: Sequence[str], logits: np.ndarray) -> list[Prediction]:
    """Outputs `[n, 1]`, unchanged."""
    return [Prediction(None, {}, number) for number in logits[:, 0].tolist()]


@dataclasses.dataclass(frozen=True)
class _Form:
    """The form of the predictions of one kind of head.

    Attributes:
        predictions: (labels, logits `[n, C]`) -> one prediction per text.
        more_columns: labels -> the columns after `prediction`.
    """

    predictions: Callable[[Sequence[str], np.ndarray], list[Prediction]]
    more_columns: Callable[[Sequence[str]], list[str]]


_FORMS: Mapping[Kind, _Form] = {
    "classification": _Form(_classes, lambda labels: [f"probability_{name}" for name in labels]),
    "regression": _Form(_numbers, lambda _: []),
}


def _rounded(value: float) -> float:
    """Six digits, because float32 has no more."""
    return float(f"{value:.6g}")


def _check_batch_size(batch_size: int) -> None:
    if type(batch_size) is not int or batch_size < 1:
        raise PredictError(f"the batch size must be at least 1; got {batch_size!r}; give a whole number")


# Files


def predict_file(
    predictor: Predictor,
    source: str | Path,
    out: str | Path,
    text_columns: Sequence[str] = (),
    *,
    force: bool = False,
    escape_formulas: bool = False,
) -> int:
    """Writes the rows of a file, in their order, with their predictions added. Returns the number of rows.

    Every row is read and checked before the first one is predicted. Memory does not grow with the file. The output is
    written atomically.

    Args:
        source: a .csv, .tsv, .jsonl or .parquet, read as in training; see `open_rows`.
        out: a .csv, .tsv or .jsonl.
        text_columns: the column of the sentences, or the two columns of pairs; empty: the run's own.
        force: replace an existing file.
        escape_formulas: write an apostrophe before cells that a spreadsheet would run as a formula.

    Raises:
        PredictError: out cannot be written or is the source, or the columns do not fit the network.
        DataError: the source cannot be read; the message names the row.
    """
    source, out = expanded(source), expanded(out)
    check_out(source, out, force)
    rows = open_rows(source)
    columns = _text_columns(predictor, text_columns, rows.columns)
    rows.check(columns)
    lines = Lines(out.suffix.lower(), (*rows.columns, *predictor.columns))
    if escape_formulas:
        lines = _FormulasEscaped(lines.extension, tuple(map(_without_formula, lines.columns)))
    header, total = lines.header, sum(1 for _ in map(lines.line, _with_texts(rows, columns, predictor.columns)))
    written = 0
    try:
        with whole(out, replace=force) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(header)
            with progress("predict", total, "texts") as bar:
                for chunk in _chunks(_with_texts(rows, columns, predictor.columns), CHUNK * predictor.batch_size):
                    file.writelines(map(lines.line, _answered(predictor, chunk, columns)))
                    bar.update(len(chunk))
                    written += len(chunk)
            if written != total:
                raise DataError(f"{source} has changed while it was read: {total} rows, then {written}; try again")
    except FileExistsError as error:
        raise PredictError(f"{out} has appeared meanwhile; name another file, or replace it with --force") from error
    except OSError as error:
        raise PredictError(f"cannot write {out}: {reason(error)}; free some space, or name another file") from error
    return total


class _FormulasEscaped(Lines):
    """Rows as `Lines` writes them, without formulas in the names of columns and in texts."""

    def line(self, row: Row) -> str:
        values = {_without_formula(name): _without_formula(value) for name, value in row.values.items()}
        return super().line(dataclasses.replace(row, values=values))


def _without_formula(value: Any) -> Any:
    """A text that a spreadsheet takes for a formula, with an apostrophe before it; anything else as it is.

    Source: OWASP, "CSV Injection". A number such as -5 is no formula.
    """
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def check_out(source: Path, out: Path, force: bool) -> None:
    """Raises PredictError unless `out` can be written and does not exist, or may be replaced."""
    if out.is_dir() or not out.parent.is_dir():
        raise PredictError(
            f"{out} {'is a folder' if out.is_dir() else 'is in a folder that does not exist'}; name a file"
        )
    if out.suffix.lower() not in WRITTEN:
        raise PredictError(f"{out}: the extension {out.suffix!r} is not supported; name a {', '.join(WRITTEN)}")
    if out.exists() and not force:
        raise PredictError(f"{out} already exists; name another file, or replace it with --force")
    if out.exists() and source.exists() and out.samefile(source):
        raise PredictError(f"{out} is the file that is read, and would be lost; name another file to write")


def _text_columns(predictor: Predictor, given: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(given) or predictor.text_columns
    if not columns:
        raise PredictError(f"name the text column with --text-columns; the file has: {', '.join(there)}")
    if len(columns) > 2:
        raise PredictError(f"a text is one column, or a pair of columns; got {', '.join(columns)}; name at most two")
    predictor.check_kind(columns, columns)
    return columns


def _with_texts(rows: Iterable[Row], columns: Sequence[str], written: Sequence[str]) -> Iterator[Row]:
    """The rows, after checking that each has its texts, and no value in a column that is to be written."""
    for row in rows:
        taken = [name for name in written if name in row.values]
        if taken:
            raise PredictError(f"{row.place}: there is a {taken[0]!r} already, which the predictions need; rename it")
        for name in columns:
            fault = text_fault(name, row.values.get(name))
            if fault:
                raise DataError(f"{row.place}: {fault}")
        yield row


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk


def _answered(predictor: Predictor, rows: Sequence[Row], columns: Sequence[str]) -> Iterator[Row]:
    predictions = predictor([_text(row, columns) for row in rows])
    for row, prediction in zip(rows, predictions, strict=True):
        yield dataclasses.replace(row, values={**row.values, **prediction.columns})


def _text(row: Row, columns: Sequence[str]) -> Text:
    first, *second = (row.values[name] for name in columns)
    return (first, second[0]) if second else first
