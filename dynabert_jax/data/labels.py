"""What labels mean: which classes there are, and the id or the number of each label.

Two spellings of one value are never joined by a guess, and never taken for two classes in silence.
"""

import dataclasses
import decimal
import logging
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dynabert_jax.config.tasks import Task
from dynabert_jax.data.rows import NUL, DataError, is_unicode
from dynabert_jax.data.sources import Table, Tables

log = logging.getLogger(__name__)

_LONGEST_NUMBER = 19  # digits of a class name that is ordered by its size
_CODE = re.compile(r"0\d+")  # 01 may be a code, and another one than 1
_LIKE_MISSING = ("na", "n/a", "#n/a", "<na>", "null")  # as other programs write a missing value
_SWITCHES = ("true", "false")  # 1 and 0 in other programs


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a task.

    Attributes:
        names: in the order of their ids; empty for a regression.
        declared: the task or the data set names them itself; otherwise they are the values in train.
    """

    names: tuple[str, ...]
    declared: bool = False

    @property
    def have_positions(self) -> bool:
        """Whether a label may be a class's position: not where 1 could be a name, or stand for one, as for level 1."""
        return self.declared and not any(map(_has_number, self.names))


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of one table.

    Attributes:
        ids: `[n]`; int32 ids of classes, or float32 for a regression.
        by_position: they were given as the classes' positions, and not by name.
    """

    ids: np.ndarray
    by_position: bool = False


# Numbers


def read_numbers(table: Table, _: Classes) -> Labels:
    """The labels of a regression.

    Raises:
        DataError: one is no finite number.
    """
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is reported below
        targets = np.array([as_number(value) for value in table.labels]).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(targets)).tolist()
    if bad:
        row = bad[0]
        raise DataError(f"{table.place(row)}: the label must be a finite number; got {table.labels[row]!r}")
    return Labels(targets)


def as_number(value: Any) -> float:
    """The value as a float; NaN if it is not a number. Python also takes 1_0 for 10; files do not mean that."""
    try:
        return math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


# The names of classes


def classes_of(task: Task, tables: Tables) -> Classes:
    """The task's classes, or those of the data set, or the values in train: numbers by size, names by letter.

    Raises:
        DataError: names are missing, or differ only in their spelling.
    """
    declared = task.labels or tables.class_names
    if declared:
        return Classes(_without_ends(tables.train.name, declared), declared=True)
    names = _names_in(tables.train)
    if all(name.isdecimal() and len(name) < _LONGEST_NUMBER for name in names):
        return Classes(tuple(sorted(names, key=lambda name: (int(name), name))))  # 1 before 01, in every process
    return Classes(tuple(sorted(names)))


def _without_ends(where: str, declared: Sequence[str]) -> tuple[str, ...]:
    """Labels are matched without white space at their ends, so names are without it, too."""
    names = tuple(name.strip() for name in declared)
    if "" in names or len(set(names)) < len(names):
        raise DataError(
            f"{where}: the classes' names must not be empty, and differ in more than white space at their ends; got "
            f"{', '.join(map(repr, declared))}; rename them in the task's labels"
        )
    return names


def _names_in(table: Table) -> list[str]:
    """The different labels of a table, as names."""
    rows: dict[str, list[int]] = {}  # of every name, the first row and the number of rows
    for row, value in enumerate(table.labels):
        if _is_missing(value):
            raise DataError(f"{table.place(row)}: the label is missing; add it, or remove the row")
        if isinstance(value, list | dict | bytes):
            raise DataError(f"{table.place(row)}: the label must be one word or number; got {value!r}")
        rows.setdefault(_name(value), [row, 0])[1] += 1
    for name, (row, _) in rows.items():
        if not is_unicode(name) or NUL in name:
            raise DataError(f"{table.place(row)}: the label {name!r} is not valid Unicode text; fix the label")
    _check_spellings(table, rows)
    for name in sorted(rows):
        if name.casefold() in _LIKE_MISSING:
            log.warning("%s: %r is taken for a class; leave the cell empty if the label is missing", table.name, name)
    return list(rows)


def _check_spellings(table: Table, rows: dict[str, list[int]]) -> None:
    """Raises DataError if two names mean the same; warns if a code and a number have one value."""
    meant: dict[str | decimal.Decimal, str] = {}
    for name, (row, count) in rows.items():
        meaning = _meaning(name)
        other = meant.setdefault(meaning, name)
        if other != name:
            first, others = rows[other]
            form = "differ only in letter case, white space or Unicode form"
            raise DataError(
                f"{table.place(row)}: the label {name!a} ({count} rows) and {other!a} ({others} rows, the first is "
                f"{table.place(first)}) {form if isinstance(meaning, str) else 'are the same number'}; write them the "
                "same way or, if they are two classes, name all classes in the task's labels"
            )
    for name in rows:
        value = _value(name)
        number = name if value is None else meant.get(value, name)
        if number != name:  # the name is a code
            log.warning(
                "%s: the labels %r and %r are one number and two classes; write them the same way if they are one",
                table.name, number, name,
            )  # fmt: skip


def _meaning(name: str) -> str | decimal.Decimal:
    """What no two names may have in common: the value of a number; what is to be seen of a code or another name."""
    folded = _folded(name)
    value = None if _CODE.fullmatch(folded) else _value(folded)
    return folded if value is None else value


def _name(value: Any) -> str:
    """A label as a class name. Programs turn whole numbers into floats if one of them is missing."""
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if is_whole else str(value).strip()


def _has_number(name: str) -> bool:
    """Whether a number could be meant by the name."""
    return any(map(str.isdigit, name)) or name.casefold() in _SWITCHES


def _value(name: str) -> decimal.Decimal | None:
    """The exact value of a name that is a number; None for other names."""
    try:
        value = None if "_" in name else decimal.Decimal(name)
    except decimal.InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def _folded(name: str) -> str:
    """The name without letter case, invisible characters, Unicode's other forms and widths, and runs of white space."""
    visible = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible.casefold()).split())


def _is_missing(value: Any) -> bool:
    """Whether a label is empty, or the NaN that other programs write for an empty one."""
    return value is None or str(value).strip().casefold() in ("", "nan")


# The ids of labels


def read_classes(table: Table, classes: Classes) -> Labels:
    """The labels' ids: all by the classes' names or, where that cannot mix, all by their positions.

    Raises:
        DataError: a label is missing, or no class.
    """
    _check_one_type(table)
    by_name = _found(table, _id_by_name(classes.names))
    if None not in by_name:
        return Labels(np.array(by_name, np.int32))
    positions = {str(i): i for i in range(len(classes.names))} if classes.have_positions else {}
    by_position = _found(table, lambda value: positions.get(_name(value)))
    if None not in by_position:
        return Labels(np.array(by_position, np.int32), by_position=True)
    raise _no_class(table, classes, min(by_name, by_position, key=lambda found: found.count(None)).index(None))


def _found(table: Table, id_of: Callable[[Any], int | None]) -> list[int | None]:
    return [None if _is_missing(value) else id_of(value) for value in table.labels]


def _no_class(table: Table, classes: Classes, row: int) -> DataError:
    label, names = table.labels[row], classes.names
    if _is_missing(label):
        came = "is missing"
    else:
        hint = next((name for name in names if _folded(name) == _folded(_name(label))), None)
        came = f"{label!r} is not a class" + ("" if hint is None else f"; did you mean {hint!a}?")
    if not classes.have_positions:
        return DataError(f"{table.place(row)}: label {came}; allowed: {', '.join(names)}")
    allowed = ", ".join(f"{name} ({i})" for i, name in enumerate(names))
    return DataError(f"{table.place(row)}: label {came}; allowed: {allowed}; use the names alone, or the numbers alone")


def _id_by_name(names: Sequence[str]) -> Callable[[Any], int | None]:
    """A label's id by its name; if all names are numbers, also by its value, so that 1 is 1.0."""
    by_name = {name: i for i, name in enumerate(names)}
    by_value = {_value(name): i for i, name in enumerate(names)}
    if None in by_value or len(by_value) < len(names):  # 1 and 01 are two names
        return lambda value: by_name.get(_name(value))

    def id_of(value: Any) -> int | None:
        name = _name(value)
        return by_name[name] if name in by_name else by_value.get(_value(name))

    return id_of


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
