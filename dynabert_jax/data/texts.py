"""From tables to checked texts: what the labels mean, which rows are used and which are held out."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.tasks import Kind, Task
from dynabert_jax.data.rows import DataError, is_unicode, text_fault
from dynabert_jax.data.sources import Table, Tables, read_tables

_LONGEST_NUMBER = 19  # digits of a class name that is ordered by its size


@dataclasses.dataclass(frozen=True)
class TaskTexts:
    """The data of a task, checked and not yet encoded."""

    labels: tuple[str, ...]
    train: "Texts"
    dev: Mapping[str, "Texts"]
    test: Mapping[str, "Texts"]


def read_texts(config: DataConfig) -> TaskTexts:
    """Reads the data that the configuration names, checks every row, and selects those that are used.

    A label is a class name or, if no class name is a number, a class id. `open_rows` describes how files are read.

    Raises:
        DataError: a file, column, text or label is missing or invalid.
        SampleError: the sample data could not be downloaded.
    """
    tables = read_tables(config)
    task = config.task
    kind = _KINDS[task.kind]
    labels = kind.names(task, tables)
    train = _check(tables.train, task, labels)
    dev = {name: _check(table, task, labels) for name, table in tables.dev.items()}
    test = {name: _check(table, task, labels) for name, table in tables.test.items()}
    kind.check(tables.train, train, labels)
    if not dev:
        train, dev["dev"] = _hold_out(tables.train, train, config.split_seed)
    limit = functools.partial(_subset, limit=config.max_eval_examples, seed=config.split_seed)
    return TaskTexts(
        labels,
        _subset(train, config.max_train_examples, config.split_seed),
        {name: limit(texts) for name, texts in dev.items()},
        {name: limit(texts) for name, texts in test.items()},
    )


# Checks


@dataclasses.dataclass(frozen=True)
class Texts:
    """Checked rows: `[n]` texts, one or two strings each, labels `[n]`, and which rows of the data they are, `[n]`."""

    texts: list[tuple[str, ...]]
    labels: np.ndarray
    origins: np.ndarray

    def take(self, rows: np.ndarray) -> "Texts":
        return Texts([self.texts[row] for row in rows], self.labels[rows], self.origins[rows])


def _check(table: Table, task: Task, labels: tuple[str, ...]) -> Texts:
    for column, texts in table.texts.items():
        _check_texts(table, column, texts)
    numbers = _KINDS[task.kind].read(table, labels)
    return Texts(list(zip(*table.texts.values(), strict=True)), numbers, np.arange(len(numbers)))


def _check_texts(table: Table, column: str, texts: Sequence[Any]) -> None:
    for row, text in enumerate(texts):
        fault = text_fault(column, text)
        if fault:
            raise DataError(f"{table.place(row)}: {fault}")
    if not any(text.strip() for text in texts):
        raise DataError(f"{table.name}: the column {column!r} is empty in every row; name one that contains the texts")


def _targets(table: Table, _: tuple[str, ...]) -> np.ndarray:
    """The labels of a regression, float32 `[n]`."""
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is reported below
        targets = np.array([_number(value) for value in table.labels]).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(targets)).tolist()
    if bad:
        row = bad[0]
        raise DataError(f"{table.place(row)}: the label must be a finite number; got {table.labels[row]!r}")
    return targets


def _number(value: Any) -> float:
    """The value as a float; NaN if it is not a number."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _class_ids(table: Table, labels: tuple[str, ...]) -> np.ndarray:
    """The labels' ids, int32 `[n]`."""
    _check_one_type(table)
    id_of = _ids(labels)
    found = [None if _is_missing(value) else id_of(value) for value in table.labels]
    if None in found:
        row = found.index(None)
        allowed = ", ".join(f"{name} ({i})" for i, name in enumerate(labels))
        came = "is missing" if _is_missing(table.labels[row]) else f"{table.labels[row]!r} is not a class"
        raise DataError(f"{table.place(row)}: label {came}; allowed: {allowed}")
    return np.array(found, np.int32)


def _ids(labels: tuple[str, ...]) -> Callable[[Any], int | None]:
    """A label's id: by its name; by its value if all names are numbers, so that 1 is 1.0; by its id if none is."""
    by_name = {name: i for i, name in enumerate(labels)}
    numbers = [_number(name) for name in labels]
    if not any(map(math.isfinite, numbers)):
        by_name = {str(i): i for i in range(len(labels))} | by_name
    by_value = dict(zip(numbers, range(len(labels)), strict=True))
    if not all(map(math.isfinite, numbers)) or len(by_value) < len(labels):  # 1 and 01 are two names
        by_value = {}
    return lambda value: by_name.get(_name(value), by_value.get(_number(value)))


def _check_one_type(table: Table) -> None:
    """Raises DataError if some labels are strings and others numbers: nothing says that 1 and "1" are one class."""
    kinds: dict[str, int] = {}
    for row, value in enumerate(table.labels):
        if not _is_missing(value):
            kinds.setdefault("a number" if type(value) in (int, float) else f"a {type(value).__name__}", row)
    if len(kinds) > 1:
        (one, first), (other, second) = list(kinds.items())[:2]
        raise DataError(
            f"{table.place(second)}: the label {table.labels[second]!r} is {other}, and {table.labels[first]!r} in "
            f"{table.place(first)} is {one}; write all labels as one type"
        )


def _name(value: Any) -> str:
    """A label as a class name. Programs turn whole numbers into floats if one of them is missing."""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value)


def _is_missing(value: Any) -> bool:
    """Whether a label is empty, or the NaN that other programs write for an empty one."""
    return value is None or str(value).strip().casefold() in ("", "nan")


def _label_names(task: Task, tables: Tables) -> tuple[str, ...]:
    """The task's classes, or those of the data set, or the values in train: numbers by size, names by letter."""
    if task.labels or tables.class_names:
        return task.labels or tables.class_names
    for row, value in enumerate(tables.train.labels):
        if _is_missing(value):
            raise DataError(f"{tables.train.place(row)}: the label is missing; add it, or remove the row")
        if isinstance(value, (list, dict)):
            raise DataError(f"{tables.train.place(row)}: the label must be one word or number; got {value!r}")
        if not is_unicode(_name(value)):
            raise DataError(f"{tables.train.place(row)}: the label {value!r} is not valid Unicode; fix the label")
    names = {_name(value) for value in tables.train.labels}
    if all(name.isdecimal() and len(name) < _LONGEST_NUMBER for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))  # 1 before 01, in every process
    return tuple(sorted(names))


def _check_classes(table: Table, train: Texts, labels: tuple[str, ...]) -> None:
    present = np.unique(train.labels)
    if len(present) < 2:
        only = labels[present[0]]
        raise DataError(
            f"{table.name}: every example has the class {only!r}; to train a classifier, add examples of another class"
        )


@dataclasses.dataclass(frozen=True)
class _LabelKind:
    """How the labels of one kind of task are read.

    Attributes:
        names: the classes' names, in the order of their ids; empty if there are none.
        read: a table's labels as an array `[n]`; raises DataError with the row of a bad one.
        check: raises DataError if a model cannot learn from the training examples.
    """

    names: Callable[[Task, Tables], tuple[str, ...]]
    read: Callable[[Table, tuple[str, ...]], np.ndarray]
    check: Callable[[Table, Texts, tuple[str, ...]], None]


_KINDS: Mapping[Kind, _LabelKind] = {
    "classification": _LabelKind(_label_names, _class_ids, _check_classes),
    "regression": _LabelKind(lambda *_: (), _targets, lambda *_: None),
}


# Which rows are used


def _hold_out(table: Table, train: Texts, seed: int) -> tuple[Texts, Texts]:
    """The training rows without a tenth, and that tenth as dev split."""
    rows = np.random.default_rng(seed).permutation(len(train.labels))
    if len(rows) < 2:
        raise DataError(f"{table.name}: one row cannot be divided into train and dev; add rows, or name a dev_file")
    held_out, kept = np.split(rows, [math.ceil(len(rows) / 10)])
    return train.take(np.sort(kept)), train.take(np.sort(held_out))


def _subset(examples: Texts, limit: int, seed: int) -> Texts:
    if limit == 0 or limit >= len(examples.labels):
        return examples
    rows = np.random.default_rng(seed).permutation(len(examples.labels))[:limit]
    return examples.take(np.sort(rows))
