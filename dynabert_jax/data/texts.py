"""From tables to checked texts: which rows are used, and which are held out."""

import contextlib
import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.tasks import Kind, Task
from dynabert_jax.data.draw import few, held_out
from dynabert_jax.data.labels import Classes, Labels, classes_of, read_classes, read_numbers
from dynabert_jax.data.rows import DataError, text_fault
from dynabert_jax.data.sources import Table, Tables, read_tables, read_unlabelled

MOST_ROUNDED = 100  # steps of float32: numbers that differ by less are mostly rounding


@dataclasses.dataclass(frozen=True)
class TaskTexts:
    """The data of a task, checked and not yet encoded.

    Attributes:
        train: without labels if nothing else is trained on.
        unlabelled: texts that are trained on in addition; None if there are none.
        held_out: dev is a part of train that was held out.
        assumed: what was taken for granted, in sentences.
    """

    labels: tuple[str, ...]
    train: "Texts"
    dev: Mapping[str, "Texts"]
    test: Mapping[str, "Texts"]
    unlabelled: "Texts | None" = None
    held_out: bool = False
    assumed: tuple[str, ...] = ()

    @property
    def splits(self) -> list[tuple[str, "Texts"]]:
        """All splits with their names: train, unlabelled, dev, test."""
        unlabelled = [] if self.unlabelled is None else [("unlabelled", self.unlabelled)]
        return [("train", self.train), *unlabelled, *self.dev.items(), *self.test.items()]


def read_texts(config: DataConfig, of_model: tuple[str, ...] = ()) -> TaskTexts:
    """Reads the data that the configuration names, checks every row, and selects those that are used.

    A label is a class name or, if the task names its classes, all labels of a file may be ids. `open_rows` describes
    how files are read.

    Args:
        of_model: the model's classes, which are those of the task if only unlabelled texts are trained on and the task
            names none.

    Raises:
        DataError: a file, column, text or label is missing or invalid, or train would lose a class.
        SampleError: the sample data could not be downloaded.
    """
    tables = read_tables(config)
    task, kind, alone = config.task, _KINDS[config.task.kind], config.only_unlabelled
    classes = kind.classes(task, dataclasses.replace(tables, class_names=of_model) if alone else tables)
    with _about_classes_of_model(alone and not task.labels):
        dev = {name: _check(table, task, classes) for name, table in tables.dev.items()}
        test = {name: _check(table, task, classes) for name, table in tables.test.items()}
    whole = _check(tables.train, task, classes)
    if alone:
        whole = _without_copies(whole, [*dev.values(), *test.values()])
    train, dev = (whole, dev) if dev else _hold_out(whole, config.split_seed)
    train = _subset(train, config.max_train_examples, config.split_seed)
    if not alone:
        kind.check(whole, train, classes)
    unlabelled = None if tables.unlabelled is None else _check(tables.unlabelled, task, classes)
    return TaskTexts(
        classes.names,
        train,
        _limited(dev, config),
        _limited(test, config),
        unlabelled and _without_copies(unlabelled, [*dev.values(), *test.values()]),
        held_out=not tables.dev,
        assumed=tuple(_assumed(task, classes, tables)) if alone else (),
    )


def read_texts_alone(files: Sequence[str | Path], text_columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The texts, or pairs, of all these files together, checked; labels are not read.

    Raises:
        DataError: a file, column or text is missing or invalid.
    """
    table = read_unlabelled(files, text_columns)
    for column, texts in table.texts.items():
        _check_texts(table, column, texts)
    return list(zip(*table.texts.values(), strict=True))


def _limited(splits: Mapping[str, "Texts"], config: DataConfig) -> dict[str, "Texts"]:
    """The examples of each split that are scored."""
    return {name: _subset(texts, config.max_eval_examples, config.split_seed) for name, texts in splits.items()}


def _assumed(task: Task, classes: Classes, tables: Tables) -> Iterator[str]:
    """What is taken for granted where nothing that is trained on has labels."""
    if classes.names and not task.labels:
        yield f"the classes are those that its config.json names, in its order: {', '.join(classes.names)}"
    if not tables.dev:
        yield "nothing has labels, so the teacher's answers take their place: scores are agreement with the teacher"
    yield "the importance of heads and neurons is that for the teacher's answers"


@dataclasses.dataclass(frozen=True)
class Texts:
    """Checked rows of one table.

    Attributes:
        texts: `[n]`, one or two strings each.
        labels: `[n]`; zeros if there are none.
        origins: which rows of the table they are, `[n]`.
        table: its name, and where its rows are.
        by_position: labels were given as the classes' positions.
        left_out: the number of texts that are not used because they are scored on.
    """

    texts: list[tuple[str, ...]]
    labels: np.ndarray
    origins: np.ndarray
    table: Table
    by_position: bool = False
    left_out: int = 0

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
    kind = _KINDS[task.kind]
    read = kind.read(table, classes) if table.is_labelled else Labels(np.zeros(len(table), kind.dtype))
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
        dtype: of labels.
    """

    classes: Callable[[Task, Tables], Classes]
    read: Callable[[Table, Classes], Labels]
    check: Callable[[Texts, Texts, Classes], None]
    dtype: type[np.generic]


_KINDS: Mapping[Kind, _LabelKind] = {
    "classification": _LabelKind(classes_of, read_classes, _check_classes, np.int32),
    "regression": _LabelKind(lambda *_: Classes(()), read_numbers, _check_numbers, np.float32),
}


@contextlib.contextmanager
def _about_classes_of_model(are_the_models: bool) -> Iterator[None]:
    """Says of an error with a label that the classes are the model's."""
    try:
        yield
    except DataError as error:
        if not are_the_models:
            raise
        raise DataError(
            f"{error}. The classes are those that the model's config.json names; if the data has other names for them, "
            "list these in the task's labels, in the model's order"
        ) from None


# Which rows are used


def _without_copies(unlabelled: Texts, scored: Sequence[Texts]) -> Texts:
    """The unlabelled texts that are not scored on."""
    copies = np.concatenate([np.array([], np.int64), *(texts.copies for texts in scored)])
    rows = np.flatnonzero(~np.isin(unlabelled.copies, copies))
    if not len(rows):
        raise DataError(f"{unlabelled.table.name}: every text is also in dev or test; add texts that are not scored on")
    return dataclasses.replace(unlabelled.take(rows), left_out=len(unlabelled) - len(rows))


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
