"""Files of any number of rows, read and written one row at a time: memory does not grow with the file."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dynabert_jax.tables import (
    EXTENSIONS,
    DataError,
    Dialect,
    check_file,
    check_header,
    check_width,
    delimited_rows,
    open_text,
)

WRITTEN = (".csv", ".tsv", ".jsonl")

Values = Mapping[str, Any]  # of one row, by the column's name


@dataclasses.dataclass(frozen=True)
class Row:
    """A row as it stands in its file.

    Attributes:
        place: where it stands, for messages: rows count from 1 and leave out the header.
        values: by the column's name.
    """

    place: str
    values: Values


@dataclasses.dataclass(frozen=True)
class RowFile:
    """A file that can be read again and again.

    Attributes:
        columns: their names; of a .jsonl those of its first row.
    """

    path: Path
    columns: tuple[str, ...]

    def __iter__(self) -> Iterator[Row]:
        """Reads the rows anew, no more of them than are asked for.

        Raises:
            DataError: a row is damaged, or has other cells than there are columns.
        """
        return _READERS[self.path.suffix].rows(self.path)


def open_rows(path: Path) -> RowFile:
    """A .csv, .tsv, .jsonl or .parquet, by the rules that training reads them by.

    Raises:
        DataError: it is not there, is empty, or does not start as such a file does.
    """
    check_file(path, EXTENSIONS)
    return RowFile(path, tuple(_READERS[path.suffix].columns(path)))


# Reading


@dataclasses.dataclass(frozen=True)
class _Reader:
    """How a kind of file tells its columns and its rows."""

    columns: Callable[[Path], Sequence[str]]
    rows: Callable[[Path], Iterator[Row]]


def _delimited_columns(path: Path) -> Sequence[str]:
    columns = next((cells for _, cells in delimited_rows(path, Dialect.of(path)) if _is_header(cells)), [])
    check_header(path, columns, ())
    return columns


def _delimited(path: Path) -> Iterator[Row]:
    dialect, columns = Dialect.of(path), _delimited_columns(path)
    read = delimited_rows(path, dialect)
    next(cells for _, cells in read if _is_header(cells))
    lines = ((line, cells) for line, cells in read if not _is_blank(cells, columns))
    for number, (line, cells) in enumerate(lines, start=1):
        place = f"{path}, row {number} (line {line})"
        check_width(place, len(cells), columns, dialect)
        yield Row(place, dict(zip(columns, cells, strict=True)))


def _is_header(cells: Sequence[str]) -> bool:
    """The first row that is not blank, as training has it; `check_header` then sees to its cells."""
    return len(cells) > 1 or bool("".join(cells).strip())


def _is_blank(cells: Sequence[str], columns: Sequence[str]) -> bool:
    """Where there is one column, "" in quotes is an empty text and no blank line."""
    return not cells or (len(cells) == 1 < len(columns) and not cells[0].strip())


def _json_columns(path: Path) -> Sequence[str]:
    first = next(_json_lines(path), None)
    if first is None:
        raise DataError(f"{path}: the file holds no rows")
    return tuple(first.values)


def _json_lines(path: Path) -> Iterator[Row]:
    with open_text(path, newline="\n") as file:
        lines = ((line, text) for line, text in enumerate(file, start=1) if text.strip())
        for number, (line, text) in enumerate(lines, start=1):
            place = f"{path}, row {number} (line {line})"
            yield Row(place, _json_object(place, text))


def _json_object(place: str, text: str) -> Values:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}); write one JSON object a line") from None
    if not isinstance(values, dict):
        raise DataError(f"{place}: a JSON object is needed; got {text.strip()[:40]}; write one JSON object a line")
    return values


def _parquet_columns(path: Path) -> Sequence[str]:
    return tuple(_open_parquet(path).features)


def _parquet(path: Path) -> Iterator[Row]:
    rows = enumerate(_open_parquet(path), start=1)
    while True:
        try:
            number, values = next(rows, (0, {}))
        except (OSError, ValueError, OverflowError) as error:  # a damaged page; a time that Python has no room for
            raise _unreadable(path, error) from error
        if not number:
            return
        yield Row(f"{path}, row {number}", values)


def _open_parquet(path: Path) -> Any:
    """A data set of `datasets` that reads a part of the file at a time."""
    import datasets

    try:
        return datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable .parquet file: {error}; write it anew")


_READERS = {
    ".csv": _Reader(_delimited_columns, _delimited),
    ".tsv": _Reader(_delimited_columns, _delimited),
    ".jsonl": _Reader(_json_columns, _json_lines),
    ".parquet": _Reader(_parquet_columns, _parquet),
}


# Writing


@dataclasses.dataclass(frozen=True)
class Lines:
    """Rows as the text of a .csv, .tsv or .jsonl.

    Attributes:
        extension: which of them.
        columns: the columns, in their order; a .jsonl takes each row as it comes.
    """

    extension: str
    columns: tuple[str, ...]

    @property
    def header(self) -> str:
        """The first line; none in a .jsonl."""
        return "" if self.extension == ".jsonl" else self._delimited("the header", self.columns)

    def line(self, row: Row) -> str:
        """A row with its line end.

        Raises:
            DataError: the row cannot stand in such a file.
        """
        line = self._line(row)
        if not is_unicode(line):
            raise DataError(
                f"{row.place}: it holds half a character, which no file can hold: not valid Unicode; mend it"
            )
        return line

    def _line(self, row: Row) -> str:
        if self.extension == ".jsonl":
            return json.dumps(row.values, ensure_ascii=False, default=str) + "\n"
        others = [name for name in row.values if name not in self.columns]
        if others:
            raise DataError(
                f"{row.place}: the first row has no {others[0]!r}, so that there is no column for it; write a .jsonl"
            )
        return self._delimited(row.place, [_cell(row.values.get(name)) for name in self.columns])

    def _delimited(self, place: str, cells: Sequence[str]) -> str:
        return self._tabs(place, cells) if self.extension == ".tsv" else _commas(cells)

    def _tabs(self, place: str, cells: Sequence[str]) -> str:
        for name, cell in zip(self.columns, cells, strict=True):
            if any(sign in cell for sign in "\t\n\r"):
                raise DataError(
                    f"{place}: its {name!r} holds a tab or a line end, which a .tsv has no way to write; write a .csv "
                    "or .jsonl"
                )
        return "\t".join(cells) + "\n"


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can write it: JSON can hold half a character, and so can an argument that was no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _commas(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    """Nothing is an empty cell; what is no word or number stands as JSON."""
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
