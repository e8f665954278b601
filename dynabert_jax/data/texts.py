"""From tables to checked texts: which rows are used, and which are held out."""

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.tasks import Kind, Task
from dynabert_jax.data.draw import few, held_out
from dynabert_jax.data.labels import Classes, Labels, classes_of, read_classes, read_numbers
from dynabert_jax.data.rows import DataError, text_fault
from dynabert_jax.data.sources import Table, Tables, read_tables

MOST_ROUNDED = 100  # steps of float32: numbers that differ by less are mostly rounding


@dataclasses.dataclass(frozen=True)
class TaskTexts:
    """The data of a task, checked and not yet encoded.

    Attributes:
        held_out: dev is a part of train that was held out.
    """

    labels: tuple[str, ...]
    train: "Texts"
    dev: Mapping[str, "Texts"]
    test: Mapping[str, "Texts"]
    held_out: bool = False

    @property
    def splits(self) -> list[tuple[str, "Texts"]]:
        """All splits with their names: train, dev, test."""
        return [("train", self.train), *self.dev.items(), *self.test.items()]


def read_texts(config: DataConfig) -> TaskTexts:
    """Reads the data that the configuration names, checks every row, and selects those that are used.

    A label is a class name or, if the task names its classes, all labels of a file may be ids. `open_rows` describes
    how files are read.

    Raises:
        DataError: a file, column, text or label is missing or invalid, or train would lose a class.
        SampleError: the sample data could not be downloaded.
    """
    tables = read_tables(config)
    task = config.task
    kind = _KINDS[task.kind]
    classes = kind.classes(task, tables)
    whole = _check(tables.train, task, classes)
    dev = {name: _check(table, task, classes) for name, table in tables.dev.items()}
    test = {name: _check(table, task, classes) for name, table in tables.test.items()}
    train, dev = (whole, dev) if dev else _hold_out(whole, config.split_seed)
    limit = functools.partial(_subset, limit=config.max_eval_examples, seed=config.split_seed)
    train = _subset(train, config.max_train_examples, config.split_seed)
    kind.check(whole, train, classes)
    return TaskTexts(
        classes.names,
        train,
        {name: limit(texts) for name, texts in dev.items()},
        {name: limit(texts) for name, texts in test.items()},
        held_out=not tables.dev,
    )


@dataclasses.dataclass(frozen=True)
class Texts:
    """Checked rows of one table.

    Attributes:
        texts: `[n]`, one or two strings each.
        labels: `[n]`.
        origins: which rows of the table they are, `[n]`.
        table: its name, and where its rows are.
        by_position: labels were given as the classes' positions.
    """

    texts: list[tuple[str, ...]]
    labels: np.ndarray
    origins: np.ndarray
    table: Table
    by_position: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "Texts":
        return dataclasses.replace(
            self, texts=[self.texts[row] for row in rows], labels=self.labels[rows], origins=self.origins[rows]
        )

    def place(self, row: int) -> str:
        """Where a row is, for messages."""
        return self.table.place(int(self.origins[row]))

    @functools.cached_property
    def copies(self) -> np.ndarray:
        """Numbers that are equal for texts which differ at most in letter case and white space, int64 `[n]`.

        They can be compared within one process, also between splits.
        """
        return np.array([hash(tuple(map(_folded, text))) for text in self.texts], np.int64)

    @property
    def classes(self) -> np.ndarray:
        """The ids of the classes, `[n]`; zeros for a regression."""
        return self.labels if self.labels.dtype == np.int32 else np.zeros(len(self.labels), np.int32)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


# Checks


def _check(table: Table, task: Task, classes: Classes) -> Texts:
    for column, texts in table.texts.items():
        _check_texts(table, column, texts)
    read = _KINDS[task.kind].read(table, classes)
    texts = list(zip(*table.texts.values(), strict=True))
    return Texts(texts, read.ids, np.arange(len(read.ids)), table, read.by_position)


def _check_texts(table: Table, column: str, texts: Sequence[Any]) -> None:
    for row, text in enumerate(texts):
        fault = text_fault(column, text)
        if fault:
            raise DataError(f"{table.place(row)}: {fault}")
    if not any(text.strip() for text in texts):
        raise DataError(f"{table.name}: the column {column!r} is empty in every row; name one that contains the texts")


def _check_classes(whole: Texts, train: Texts, classes: Classes) -> None:
    """Raises DataError unless what is trained on has two classes, and all those that the data has."""
    there, used = np.unique(whole.labels), np.unique(train.labels)
    if len(there) < 2:
        raise DataError(
            f"{whole.table.name}: every example has the class {classes.names[there[0]]!r}; to train a classifier, add "
            "examples of another class"
        )
    lost = [classes.names[i] for i in np.setdiff1d(there, used)]
    if lost:
        raise DataError(
            f"{whole.table.name}: {len(train)} examples are used, which leave out {len(lost)} of {len(there)} classes: "
            f"{', '.join(lost)}; set max_train_examples to at least {len(there)}, or to 0 for all examples"
        )


def _check_numbers(whole: Texts, train: Texts, _: Classes) -> None:
    """Raises DataError unless the numbers that are trained on differ by more than float32 rounds them."""
    least, most = float(train.labels.min()), float(train.labels.max())
    if most - least <= MOST_ROUNDED * np.spacing(np.float32(max(abs(least), abs(most)))):
        numbers = "are all the same number" if least == most else f"are numbers from {least:.9g} to {most:.9g}"
        raise DataError(
            f"{whole.table.name}: the labels of the {len(train)} training examples {numbers}: too little to "
            "learn from. Add examples with other numbers; from large numbers that differ little, subtract a constant"
        )


@dataclasses.dataclass(frozen=True)
class _LabelKind:
    """How the labels of one kind of task are read.

    Attributes:
        classes: their names.
        read: a table's labels; raises DataError with the row of a bad one.
        check: raises DataError if a model cannot learn from the training examples; the whole table is the first one.
    """

    classes: Callable[[Task, Tables], Classes]
    read: Callable[[Table, Classes], Labels]
    check: Callable[[Texts, Texts, Classes], None]


_KINDS: Mapping[Kind, _LabelKind] = {
    "classification": _LabelKind(classes_of, read_classes, _check_classes),
    "regression": _LabelKind(lambda *_: Classes(()), read_numbers, _check_numbers),
}


# Which rows are used


def _hold_out(whole: Texts, seed: int) -> tuple[Texts, dict[str, Texts]]:
    """The training rows without a tenth, and that tenth as dev split."""
    rows = held_out(whole.copies, whole.classes, seed)
    if not len(rows):
        why = (
            "one row cannot be divided into train and dev"
            if len(whole) == 1
            else "no row can be held out for dev: train would lose a class, or dev would be copies of texts in train"
        )
        raise DataError(f"{whole.table.name}: {why}; add rows, or name a dev_file")
    return whole.take(np.setdiff1d(np.arange(len(whole)), rows)), {"dev": whole.take(rows)}


def _subset(examples: Texts, limit: int, seed: int) -> Texts:
    if limit == 0 or limit >= len(examples):
        return examples
    return examples.take(few(examples.classes, limit, seed))
