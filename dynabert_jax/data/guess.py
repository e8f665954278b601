"""Which columns of a table are texts and labels, guessed from their names and values; what is unclear is an error."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dynabert_jax.config.tasks import Kind
from dynabert_jax.data.labels import as_number
from dynabert_jax.data.rows import DataError, RowSource, check_columns, no_rows

LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "intent", "topic", "rating", "score", "stars", "y",
)  # fmt: skip
WORDS = 2.5  # in the mean: a column with more has texts, and not names, dates or times
FEW = 50  # at most this many different values are classes by themselves
FEW_NUMBERS = 20  # at most this many different whole numbers are classes, such as stars
COUNTED = 1000  # different values of a column


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        filled: rows that are not empty.
        words, characters: of a value in the mean; 0 if no value is a string.
        longest: of a value, in words.
        values: different values; no more are counted than COUNTED.
        is_number, is_whole: every value is a number, or a whole one.
        classes: that the file itself declares.
    """

    name: str
    filled: int
    words: float
    characters: float
    longest: int
    values: int
    is_number: bool
    is_whole: bool
    classes: Sequence[str] = ()

    @property
    def has_classes(self) -> bool:
        """Whether its values look like those of classes: few, and each of them several times."""
        return bool(self.classes) or 2 <= self.values <= min(FEW, self.filled // 2)

    @property
    def is_amount(self) -> bool:
        """Whether its values look like measured numbers: not the numbers of the rows."""
        return self.is_number and not (self.is_whole and self.values >= min(self.filled, COUNTED))

    @property
    def is_text(self) -> bool:
        return self.words >= WORDS and self.values > 1 and not self.is_number


@dataclasses.dataclass(frozen=True)
class Guess:
    """The columns of a task.

    Attributes:
        texts: one column, or two for pairs.
        text_why, label_why, kind_why: the reason for each guess; empty if it was given.
        others: the names of all other columns.
    """

    texts: tuple[Column, ...]
    label: Column
    kind: Kind
    text_why: str
    label_why: str
    kind_why: str
    others: tuple[str, ...]


def guess_columns(
    rows: RowSource, text_columns: Sequence[str] = (), label_column: str | None = None, regression: bool = False
) -> Guess:
    """Reads the file once and guesses what was not given.

    Raises:
        DataError: a column is missing, or which one it is cannot be told; the message lists all columns.
    """
    check_columns(rows.header, rows.columns, [*text_columns, *([] if label_column is None else [label_column])])
    columns = {column.name: column for column in look_at(rows)}
    label, label_why = _label(rows, list(columns.values()), text_columns, label_column, regression)
    rest = [column for column in columns.values() if column is not label]
    texts, text_why = _texts(rows, rest, [columns[name] for name in text_columns])
    kind: Kind
    kind, kind_why = ("regression", "") if regression else _kind(label)
    if kind == "classification" and label_column is None and not label.has_classes:
        raise DataError(
            f"{rows.name}: the column {label.name!r} has {_count(label)} different values in {label.filled:,} rows, "
            f"which are too many for classes; name the column of the labels with --label-column. {_listed(rest)}"
        )
    others = tuple(column.name for column in rest if column not in texts)
    return Guess(texts, label, kind, text_why, label_why, kind_why, others)


def look_at(rows: RowSource) -> list[Column]:
    """What every column with a name holds. Memory does not grow with the file."""
    seen = {name: _Seen() for name in rows.columns if name}
    if not seen:
        raise DataError(f"{rows.header}: no column has a name; name the columns of texts and labels")
    some = False
    for row in rows:
        some = True
        for name, one in seen.items():
            one.look(row.values.get(name))
    if not some:
        raise no_rows(rows.name)
    return [one.column(name, rows.classes.get(name, ())) for name, one in seen.items()]


class _Seen:
    """Counts what the rows of a column hold."""

    def __init__(self) -> None:
        self.filled = self.strings = self.words = self.characters = self.longest = 0
        self.values: set[str] = set()
        self.is_number = self.is_whole = True

    def look(self, value: Any) -> None:
        if value is None or not str(value).strip():
            return
        self.filled += 1
        if len(self.values) < COUNTED:
            self.values.add(str(value).strip())
        if self.is_number:
            number = as_number(value)
            self.is_number = bool(np.isfinite(number))
            self.is_whole = self.is_whole and self.is_number and number.is_integer()
        if isinstance(value, str):
            words = len(value.split())
            self.strings, self.words, self.longest = self.strings + 1, self.words + words, max(self.longest, words)
            self.characters += len(value)

    def column(self, name: str, classes: Sequence[str]) -> Column:
        mean = max(self.strings, 1)
        is_number = self.is_number and self.filled > 0
        return Column(
            name, self.filled, self.words / mean, self.characters / mean, self.longest, len(self.values), is_number,
            is_number and self.is_whole, classes,
        )  # fmt: skip


# The guesses


def _label(
    rows: RowSource, columns: Sequence[Column], texts: Sequence[str], given: str | None, regression: bool
) -> tuple[Column, str]:
    """The column of the labels, and why; no reason if it was given."""
    others = [column for column in columns if column.name not in texts]
    if given is not None:
        return next(column for column in columns if column.name == given), ""
    usable = [column for column in others if column.is_number] if regression else others
    named = sorted(
        (column for column in usable if column.name.casefold() in LABEL_NAMES),
        key=lambda column: LABEL_NAMES.index(column.name.casefold()),
    )
    if len(named) == 1 or (named and named[0].name.casefold() in ("label", "labels")):
        return named[0], "by its name"
    amounts = [column for column in usable if column.is_amount]
    few = [] if regression else [column for column in usable if column.has_classes]
    for found, why in ((few, "the only one with few different values"), (amounts, "the only one with numbers")):
        if len(found) == 1:
            return found[0], why
        if found:
            break
    raise DataError(
        f"{rows.name}: which column has the labels cannot be told; name it with --label-column. {_listed(others)}"
    )


def _texts(rows: RowSource, rest: Sequence[Column], given: Sequence[Column]) -> tuple[tuple[Column, ...], str]:
    if given:
        return tuple(given), ""
    texts = [column for column in rest if column.is_text]
    if len(texts) in (1, 2):
        return tuple(texts), "the only one with longer texts" if len(
            texts
        ) == 1 else "a pair, the only two with longer texts"
    short = [column for column in rest if column.words and not column.is_number and not column.has_classes]
    if len(short) == 1:
        return tuple(short), "the only one with texts"
    raise DataError(
        f"{rows.name}: which columns have the texts cannot be told; name one, or two for pairs, with --text-columns. "
        f"{_listed(rest)}"
    )


def _kind(label: Column) -> tuple[Kind, str]:
    if label.classes:
        return "classification", "the file declares its classes"
    if not label.is_number:
        return "classification", "the labels are words"
    if label.is_whole and label.values <= FEW_NUMBERS:
        return "classification", "few whole numbers; --regression would predict them as numbers"
    return "regression", "the labels are numbers"


def _count(column: Column) -> str:
    return f"{column.values:,}" if column.values < COUNTED else f"{COUNTED:,} or more"


def _listed(columns: Iterable[Column]) -> str:
    named = [f"{column.name} ({_described(column)})" for column in columns]
    return f"There are: {', '.join(named)}" if named else "There is no other column"


def _described(column: Column) -> str:
    what = "numbers" if column.is_number else f"{column.words:.1f} words in the mean"
    return f"{_count(column)} different values, {what}" if column.filled else "empty"
