"""Files of any number of rows, read and written one row at a time: memory does not grow with the file."""

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dynabert_jax.errors import UserError, nearest

if TYPE_CHECKING:
    pass


class DataError(UserError, ValueError):
    """Data that cannot be used; the message names the file or data set, the row, what came and what is allowed."""


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


LONGEST_CELL = 2**24  # characters of a .csv or .tsv: a quote that is never closed must not take a large file with it
EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet")


def check_file(path: Path, extensions: Sequence[str]) -> None:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file ({', '.join(extensions)})")
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.suffix not in extensions:
            raise DataError(f"{path}: the extension {path.suffix!r} is not supported; bring {', '.join(extensions)}")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise _not_readable(path, error) from error


@dataclasses.dataclass(frozen=True)
class Dialect:
    """How a text file is divided into rows and cells.

    Attributes:
        columns: the names of the columns of a file without a header.
        skip_malformed: leave out rows with more or fewer cells than there are columns, as GLUE's own readers do.
    """

    delimiter: str
    quoting: int
    columns: tuple[str, ...] = ()
    skip_malformed: bool = False

    @property
    def cure(self) -> str:
        """What to do about a row with too many cells or too few."""
        if self.quoting == csv.QUOTE_NONE:
            return "a .tsv knows no quotes, so that a text in it can hold no tab and no line end"
        return "put a text that holds a comma, a quote or a line end in quotes, and double the quotes in it"

    @classmethod
    def of(cls, path: Path) -> "Dialect":
        """A .csv may quote its cells; in a .tsv, as in GLUE's, a quote is a character like any other."""
        return cls("\t", csv.QUOTE_NONE) if path.suffix == ".tsv" else cls(",", csv.QUOTE_MINIMAL)


def check_width(place: str, cells: int, columns: Sequence[str], dialect: Dialect) -> None:
    """Raises DataError unless a row has one cell for each column."""
    if cells != len(columns):
        raise DataError(f"{place}: cells: {cells}, columns: {len(columns)} ({', '.join(columns)}); {dialect.cure}")


def delimited_rows(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Every row with the line it starts on, one after the other; a line with nothing on it is a row of no cells."""
    start = 1
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # it knows one for the whole process
    with open_text(path, newline="") as file:
        reader = csv.reader(file, delimiter=dialect.delimiter, quoting=dialect.quoting)  # type: ignore[arg-type]
        try:
            for row in reader:
                yield start, row
                start = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: {error}; close its quotes, or shorten its text") from None


@contextlib.contextmanager
def open_text(path: Path, newline: str) -> Iterator[TextIO]:
    """The file, open to be read as UTF-8; what cannot be read becomes a DataError, at whatever place it stands."""
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from None
    except OSError as error:
        raise _not_readable(path, error) from error


def _not_readable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error}); bring a file that you may read")


def check_header(path: Path, columns: list[str], needed: Sequence[str]) -> None:
    if not columns:
        raise DataError(f"{path}: the file holds no rows")
    if not all(name.strip() for name in columns):
        raise DataError(
            f"{path}: the header has an empty column name: {columns}; the first line must name every column"
        )
    if len(set(columns)) != len(columns):
        raise DataError(f"{path}: the header names a column twice: {columns}")
    if len(columns) == 1 < len(set(needed)):
        raise DataError(
            f"{path}: the header is a single cell, {columns[0]!r}, and must name {', '.join(needed)}; cells are "
            "divided by commas in a .csv and by tabs in a .tsv"
        )
    check_columns(str(path), columns, needed)


def check_columns(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    for column in needed:
        if column not in columns:
            raise DataError(
                f"{name}: no column {column!r}; {nearest(column, columns, cutoff=0.0)}there are: {', '.join(columns)}"
            )
