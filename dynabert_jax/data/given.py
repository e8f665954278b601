"""Rows that a program has in memory, read as if they were in a file: of a DataFrame, a `Dataset`, or dicts."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dynabert_jax.data.rows import DataError, Row, RowSource, declared_name, row_place

ROWS_AT_ONCE = 1024  # that are copied
MISSING = ("NAType", "NaTType")  # of pandas, which need not be installed


class DataFrame(Protocol):
    """A table of pandas."""

    @property
    def columns(self) -> Any: ...

    @property
    def iloc(self) -> Any: ...

    def __len__(self) -> int: ...


class Dataset(Protocol):
    """A `datasets.Dataset`."""

    @property
    def column_names(self) -> list[str]: ...

    @property
    def features(self) -> Any: ...

    def with_format(self, type: None) -> Any: ...

    def __len__(self) -> int: ...


GivenRows = DataFrame | Dataset | Sequence[Mapping[str, Any]]


def open_given(name: str, rows: GivenRows) -> RowSource:
    """The rows in a form in which files are read, too; `name` is what messages call them.

    A missing value (None, NaN, pandas' NA) is an empty cell. Class numbers of a `Dataset` become the classes' names.

    Raises:
        DataError: they are of another type, or there are none.
    """
    kind = _kind(name, rows)
    if not len(rows):
        raise DataError(f"{name}: there are no rows; give some")
    return kind(name, rows)


def _kind(name: str, rows: Any) -> Any:
    """What opens them."""
    if hasattr(rows, "iloc") and hasattr(rows, "columns"):
        return _of_frame
    if hasattr(rows, "features") and hasattr(rows, "with_format") and hasattr(rows, "__len__"):
        return _of_dataset
    if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
        return _of_dicts
    cure = "name a file in the configuration's data" if isinstance(rows, str | bytes) else "give one of these"
    if isinstance(rows, Mapping):
        cure = "give one of its splits, or a list with a dict for each row"
    raise DataError(
        f"{name}: rows must be a DataFrame, a datasets.Dataset or a list of dicts; got {type(rows).__name__}; {cure}"
    )


def _of_frame(name: str, frame: DataFrame) -> RowSource:
    columns = tuple(map(str, frame.columns))

    def read(chosen: Sequence[str]) -> Iterator[Row]:
        wanted = chosen or columns
        at = [columns.index(column) for column in wanted]
        for start in range(0, len(frame), ROWS_AT_ONCE):
            part = frame.iloc[start : start + ROWS_AT_ONCE, at].itertuples(index=False, name=None)
            for number, cells in enumerate(part, start + 1):
                yield _row(name, number, zip(wanted, cells, strict=True))

    return RowSource(name, columns, name, read)


def _of_dataset(name: str, dataset: Dataset) -> RowSource:
    columns = tuple(dataset.column_names)
    classes = {column: getattr(dataset.features[column], "names", None) or () for column in columns}

    def read(chosen: Sequence[str]) -> Iterator[Row]:
        wanted = chosen or columns
        plain = dataset.with_format(None).select_columns(list(wanted))
        for start in range(0, len(dataset), ROWS_AT_ONCE):
            try:
                part = plain[start : start + ROWS_AT_ONCE]
            except OverflowError as error:  # such as a time outside Python's range
                raise DataError(f"{name}: a value is out of range ({error}); labels are words or numbers") from error
            cells = zip(*(_named(part[column], classes[column]) for column in wanted), strict=True)
            for number, values in enumerate(cells, start + 1):
                yield _row(name, number, zip(wanted, values, strict=True))

    return RowSource(name, columns, name, read)


def _named(values: Sequence[Any], classes: Sequence[str]) -> Sequence[Any]:
    return [declared_name(classes, value) for value in values] if classes else values


def _of_dicts(name: str, rows: Sequence[Mapping[str, Any]]) -> RowSource:
    def read(chosen: Sequence[str]) -> Iterator[Row]:
        for number, row in enumerate(rows, 1):
            _check_dict(name, number, row)
            yield _row(name, number, ((column, row[column]) for column in chosen or row if column in row))

    _check_dict(name, 1, rows[0])
    return RowSource(name, tuple(map(str, rows[0])), row_place(name, 1), read)


def _check_dict(name: str, number: int, row: object) -> None:
    if not isinstance(row, Mapping):
        raise DataError(f"{row_place(name, number)}: a row must be a dict, such as {{'text': ...}}; got {row!r:.40}")


def _row(name: str, number: int, cells: Any) -> Row:
    return Row(name, number, None, {column: _cell(value) for column, value in cells})


def _cell(value: Any) -> Any:
    """A value as in a file: numbers of numpy are Python's, and what is missing is empty."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value).__name__ in MISSING or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value
