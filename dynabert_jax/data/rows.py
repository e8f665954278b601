"""Files of rows, read and written one row at a time: memory does not grow with the file.

`dynabert_jax.data.given` reads rows that are in memory in the same way.
"""

import contextlib
import csv
import dataclasses
import functools
import gzip
import io
import json
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from dynabert_jax.errors import UserError, nearest
from dynabert_jax.system.json_file import JsonError, parse_object, unrepeated

log = logging.getLogger(__name__)

DELIMITED = (".csv", ".tsv")
WRITTEN = (*DELIMITED, ".jsonl")
READ = (*WRITTEN, ".parquet")
TEXT = ".txt"  # one text a line
BOM = "\ufeff"
NUL = "\0"  # no text has one: it is what a full disk or UTF-16 leaves
LONGEST_CELL = 2**24  # characters, in a .csv or .tsv: an unclosed quote must not read a whole large file

Values = Mapping[str, Any]  # of one row, by column name


class DataError(UserError, ValueError):
    """Data that cannot be used. The message names the file or data set and the row, what is wrong and what to do."""


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

    @classmethod
    def of(cls, path: Path) -> Self:
        """Cells of a .csv may be quoted; in a .tsv, as in GLUE's, a quote is an ordinary character."""
        return cls("\t", csv.QUOTE_NONE) if kind_of(path) == ".tsv" else cls(",", csv.QUOTE_MINIMAL)

    @property
    def cure(self) -> str:
        """How to fix a row with too many or too few cells."""
        if self.quoting == csv.QUOTE_NONE:
            return "a text in a .tsv cannot contain a tab or a line end, even in quotes; remove them, or write a .csv"
        return "put a text that contains a comma, a quote or a line end in quotes, and double the quotes in it"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of a file.

    Attributes:
        file: the file's name, for messages.
        number: counts from 1, without the header.
        line: the line on which the row starts; None if rows are not lines.
        values: by column name.
    """

    file: str
    number: int
    line: int | None
    values: Values

    @property
    def place(self) -> str:
        """Where the row is, for messages."""
        return row_place(self.file, self.number, self.line)


def row_place(name: str, number: int, line: int | None = None) -> str:
    """Where a row of a file or data set is, for messages."""
    return f"{name}, row {number}" + ("" if line is None else f" (line {line})")


@dataclasses.dataclass(frozen=True)
class RowSource:
    """A file, or rows in memory, that can be read repeatedly.

    Attributes:
        name: of the file or the rows, for messages.
        columns: the names of all columns; where every row has its own, as in a .jsonl, those of the first one.
        header: the place where the columns are named, for messages.
        read: returns the rows with the values of these columns; of all columns if none is given.
        classes: by column the class names that the file itself declares; its rows have their numbers.
        chosen: the columns that are read; empty: all.
        is_delimited: it is a .csv or .tsv.
    """

    name: str
    columns: tuple[str, ...]
    header: str
    read: Callable[[Sequence[str]], Iterator[Row]]
    classes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    is_delimited: bool = False

    def __iter__(self) -> Iterator[Row]:
        """Reads from the first row, one row at a time.

        Raises:
            DataError: a row is damaged, or has more or fewer cells than there are columns.
        """
        return self.read(self.chosen)

    def choose(self, columns: Sequence[str]) -> Self:
        """The same rows with these columns alone; all, if none is named.

        Raises:
            DataError: a column is lacking, or one that is read is named twice.
        """
        self.check(columns)
        _check_named_once(self.name, self.columns, columns or self.columns)
        return dataclasses.replace(self, chosen=tuple(columns))

    def check(self, needed: Sequence[str]) -> None:
        """Raises DataError unless each of these columns is there."""
        if self.is_delimited:
            _check_header(self.name, self.columns, needed)
        check_columns(self.header, self.columns, needed)


def open_rows(path: Path, columns: Sequence[str] = (), dialect: Dialect | None = None) -> RowSource:
    """Opens a .csv, .tsv, .jsonl or .parquet. Training and prediction read files only through this function.

    A .csv and a .tsv are UTF-8 with a header, and their cells stay strings. A .tsv has no quoting. A .jsonl has one
    object per line, and its values keep their JSON types; a row may lack a key. A .jsonl that is one JSON list of
    objects is also read, but as a whole into memory. Text files may be compressed, as in .csv.gz.

    Args:
        columns: the columns to read; empty: all. The other columns are not checked.
        dialect: how a .csv or .tsv is divided, if not as its name says.

    Raises:
        DataError: the file does not exist, is empty, has an invalid beginning, lacks a column, or names a column to
            read twice.
    """
    check_file(path)
    return _open(path, dialect).choose(columns)


def kind_of(path: Path) -> str:
    """The extension in lower case, without the .gz of a compressed text file."""
    name = path.name.lower()
    return next((kind for kind in WRITTEN if name.removesuffix(".gz").endswith(kind)), Path(name).suffix)


def text_fault(column: str, value: Any) -> str:
    """What is wrong with a value that should be a text; empty if nothing. An empty string is a text, too."""
    if not isinstance(value, str):
        given = "there is none" if value is None else f"got {value!r:.40}"
        return f'a text must be a string; {given} in {column!r}; write a number as a string, and an empty text as ""'
    if not is_unicode(value):
        return f"{column!r} is not valid Unicode: {value[:40]!r}; it contains an unpaired surrogate; fix the text"
    if NUL in value:
        return f"{column!r} contains a NUL character: {value[:40]!r}; the file is damaged or not UTF-8; write it again"
    return ""


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode the text. JSON, and arguments that are not UTF-8, may give unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Checks


def check_file(path: Path, kinds: Sequence[str] = READ) -> None:
    """Raises DataError unless the path is a file of one of these kinds that is not empty."""
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder; name a file ({', '.join(kinds)})")
        if not path.is_file():
            raise DataError(f"{path}: no such file; correct the name")
        if kind_of(path) not in kinds:
            raise DataError(
                f"{path}: the extension {path.suffix!r} is not supported; use {', '.join(kinds)}; {', '.join(WRITTEN)} "
                "may be compressed, as in .csv.gz"
            )
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty; name a file with rows")
    except OSError as error:  # a name that is too long, or a folder that may not be opened
        raise _not_readable(path, error) from error


def check_columns(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raises DataError unless each needed column exists and has a name."""
    named = [column for column in columns if column]
    for column in needed:
        if column not in named:
            hint = nearest(column, named, cutoff=0.0)
            raise DataError(f"{name}: no column {column!r}; {hint}there are: {', '.join(named)}")


def _check_header(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raises DataError if columns are lacking because the file has another encoding, delimiter or quoting."""
    lacking = [column for column in needed if column not in columns]
    if not lacking:
        return
    if any(NUL in column for column in columns):
        raise DataError(f"{name}: the header contains NUL characters: {columns[0]!r:.40}; save the file as UTF-8")
    if len(columns) == 1 and (len(set(needed)) > 1 or any(sign in columns[0] for sign in ",;\t|")):
        raise DataError(
            f"{name}: the header is a single cell, {columns[0]!r}, but must name {', '.join(needed)}; "
            "separate cells by commas in a .csv and by tabs in a .tsv"
        )
    if f'"{lacking[0]}"' in columns:
        raise DataError(f"{name}: the header's names are in quotes: {', '.join(columns)}; {_TSV_CURE}")


def _check_named_once(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Values are read by column name, so a second column of that name would be lost."""
    for column in needed:
        if columns.count(column) > 1:
            raise DataError(f"{name}: the header names a column twice: {column!r} in {columns}; rename one of them")


def no_rows(name: str) -> DataError:
    return DataError(f"{name}: the file holds no rows; name a file with rows")


# Reading


def _open(path: Path, dialect: Dialect | None) -> RowSource:
    match kind_of(path):
        case ".jsonl":
            return _open_json(path)
        case ".parquet":
            return _open_parquet(path)
        case _:
            return _open_delimited(path, dialect or Dialect.of(path))


# Reading .csv and .tsv


def _open_delimited(path: Path, dialect: Dialect) -> RowSource:
    columns = dialect.columns or _header(path, dialect)
    if not columns:
        raise no_rows(str(path))
    read = functools.partial(_delimited_rows, path, dialect, columns, set())
    return RowSource(str(path), columns, str(path), read, is_delimited=True)


def _header(path: Path, dialect: Dialect) -> tuple[str, ...]:
    return tuple(next((cells for _, cells in _cells(path, dialect) if _is_header(cells)), ()))


def _is_header(cells: Sequence[str]) -> bool:
    """Whether a row is more than a blank line; the first such row is the header."""
    return len(cells) > 1 or bool("".join(cells).strip())


def _delimited_rows(
    path: Path, dialect: Dialect, header: Sequence[str], warned: set[str], chosen: Sequence[str]
) -> Iterator[Row]:
    name, positions = str(path), {column: header.index(column) for column in chosen or header}
    is_quoted = dialect.quoting != csv.QUOTE_NONE
    looks = {column: _Quotes(is_quoted) for column in positions}
    for number, (line, cells) in enumerate(_whole_rows(path, dialect, header), start=1):
        row = Row(name, number, line, {column: cells[at] for column, at in positions.items()})
        for column, quotes in looks.items():
            quotes.look(row.values[column], row)
        yield row
    for column, quotes in looks.items():
        if quotes.are_syntax and column not in warned:
            warned.add(column)
            log.warning(
                "%s: the cells of %r that begin with a quote look as if another program had quoted them, such as %s, "
                "but a quote is read as a part of the text; %s", quotes.place, column, quotes.example,
                "no space may stand before a quoted cell: remove it" if is_quoted else _TSV_CURE,
            )  # fmt: skip


_TSV_CURE = "a .tsv has no quoting: write it without (in pandas, with quoting=csv.QUOTE_NONE), or write a .csv"


class _Quotes:
    """What the cells of a column say about its quotes, where these are read as ordinary characters.

    Args:
        after_a_space: in a .csv; there, only a quote after a space is such a character.
    """

    def __init__(self, after_a_space: bool) -> None:
        self.mark, self.after_a_space = ' "' if after_a_space else '"', after_a_space
        self.rows = self.quoted = 0
        self.is_broken = self.has_doubled = False
        self.example, self.place = "", ""

    def look(self, cell: str, row: Row) -> None:
        self.rows += 1
        if self.is_broken or not cell.startswith(self.mark):
            return
        cell = cell.strip() if self.after_a_space else cell
        inner = cell[1:-1]
        self.quoted += 1
        self.is_broken = len(cell) < 2 or not cell.endswith('"') or '"' in inner.replace('""', "")
        if not self.example or ('""' in inner and not self.has_doubled):
            self.example, self.place = f"{cell:.60}", row.place
        self.has_doubled |= '""' in inner

    @property
    def are_syntax(self) -> bool:
        """Whether a program seems to have quoted cells: all that begin with one, with doubled ones inside, or all."""
        looks_quoted = self.has_doubled or self.after_a_space or self.quoted == self.rows > 1
        return not self.is_broken and self.quoted > 0 and looks_quoted


def _whole_rows(path: Path, dialect: Dialect, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows with one cell per column. Any other row is left out or an error, depending on the dialect."""
    number = left_out = 0
    for line, cells in _rows_below(path, dialect, header):
        if len(cells) == len(header):
            number += 1
            _check_no_header(path, dialect, header, number, line, cells)
            yield line, cells
        elif dialect.skip_malformed:
            left_out += 1
        else:
            raise DataError(
                f"{row_place(str(path), number + 1, line)}: cells: {len(cells)}, columns: {len(header)} "
                f"({', '.join(header)}); {dialect.cure}"
            )
    if left_out:
        log.warning("%s: left out %d rows with too few or too many cells", path, left_out)


def _check_no_header(
    path: Path, dialect: Dialect, header: Sequence[str], number: int, line: int, cells: Sequence[str]
) -> None:
    """Files that were put together have a header in their middle, which would be an example and a class."""
    if dialect.columns or len(header) < 2 or _bare(cells[-1]) != _bare(header[-1]):
        return
    if list(map(_bare, cells)) == list(map(_bare, header)):
        raise DataError(f"{row_place(str(path), number, line)}: this is the header again; remove the line")


def _bare(name: str) -> str:
    """A column's name without what programs change in it: letter case, and a BOM or white space around it."""
    return name.strip(BOM).strip().casefold()


def _rows_below(path: Path, dialect: Dialect, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, if there is one, without blank lines."""
    read = _cells(path, dialect)
    if not dialect.columns:
        next((cells for _, cells in read if _is_header(cells)), None)
    return ((line, cells) for line, cells in read if not _is_blank(cells, header))


def _is_blank(cells: Sequence[str], header: Sequence[str]) -> bool:
    """In a file with one column, "" in quotes is an empty text and not a blank line."""
    return not cells or (len(cells) == 1 < len(header) and not cells[0].strip())


_CELL_LIMIT = threading.Lock()


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """The next row; None at the end. csv has one cell limit for the whole process, so it is set for one row only."""
    with _CELL_LIMIT:  # another thread may be reading, too
        before = csv.field_size_limit(LONGEST_CELL)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(before)


def _cells(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Every row with the line it starts on; an empty line is a row without cells."""
    start = 1
    with _open_text(path, newline="") as file:
        # Without `strict`, a misplaced quote puts the rows up to the next quote into one cell.
        reader = csv.reader(file, delimiter=dialect.delimiter, quoting=dialect.quoting, strict=True)  # type: ignore[arg-type]
        try:
            while (cells := _next_row(reader)) is not None:
                yield start, cells
                start = reader.line_num + 1
        except csv.Error as error:
            seen = "" if reader.line_num == start else f" on line {reader.line_num}"
            raise DataError(
                f"{path}, line {start}: {error}{seen}; close its quotes, double quotes in a text, or shorten the text"
            ) from None


# Reading .jsonl


def _open_json(path: Path) -> RowSource:
    read = functools.partial(_json_rows, path)
    first = next(read(()), None)
    if first is None:
        raise no_rows(str(path))
    return RowSource(str(path), tuple(first.values), first.place, read)


_JSON_CURE = "write one JSON object per line"


def _json_rows(path: Path, chosen: Sequence[str]) -> Iterator[Row]:
    name, read = str(path), _json_list if _is_json_list(path) else _json_lines
    for number, (line, value) in enumerate(read(path), start=1):
        if not isinstance(value, dict):
            given = json.dumps(value)[:40]
            raise DataError(f"{row_place(name, number, line)}: a JSON object is needed; got {given}; {_JSON_CURE}")
        yield Row(name, number, line, {key: value[key] for key in chosen if key in value} if chosen else value)


def _is_json_list(path: Path) -> bool:
    """Whether the file is one JSON list instead of lines, judged by its beginning."""
    with _open_text(path, newline="\n") as file:
        return next((text for text in file if text.strip()), "").lstrip().startswith("[")


def _json_list(path: Path) -> Iterator[tuple[None, Any]]:
    with _open_text(path, newline="\n") as file:
        values = _from_json(str(path), file.read())
    return ((None, value) for value in values)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not blank, with its number."""
    with _open_text(path, newline="\n") as file:
        lines = ((line, text) for line, text in enumerate(file, start=1) if text.strip())
        for number, (line, text) in enumerate(lines, start=1):
            yield line, _from_json(row_place(str(path), number, line), text)


def _from_json(place: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unrepeated)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}); {_JSON_CURE}") from None


# Reading .txt


def read_lines(path: Path) -> tuple[list[str], list[int]]:
    """The texts of a .txt, one a line, and the number of each one's line. Blank lines are left out.

    Raises:
        DataError: the file does not exist, is empty or is not UTF-8.
    """
    check_file(path, (TEXT,))
    with _open_text(path, newline=None) as file:
        texts = [(line.rstrip("\n"), number) for number, line in enumerate(file, start=1) if line.strip()]
    if not texts:
        raise DataError(f"{path}: every line is blank; name a file with one text a line")
    return [text for text, _ in texts], [number for _, number in texts]


# Reading .parquet

ROWS_AT_ONCE = 256  # of a .parquet in memory


def _open_parquet(path: Path) -> RowSource:
    with _parquet_file(path) as file:
        columns, metadata = tuple(file.schema_arrow.names), file.schema_arrow.metadata or {}
    try:
        classes = _declared_classes(metadata)
    except (JsonError, AttributeError) as error:
        raise DataError(f"{path}: the metadata of `datasets` are damaged ({error}); write the file again") from error
    rows = functools.partial(_parquet_rows, path)
    return RowSource(str(path), columns, str(path), rows, classes)


def _parquet_rows(path: Path, chosen: Sequence[str]) -> Iterator[Row]:
    name = str(path)
    with _parquet_file(path) as file:
        batches = file.iter_batches(ROWS_AT_ONCE, columns=list(chosen) or None)
        rows = (values for batch in batches for values in batch.to_pylist())
        for number, values in enumerate(rows, start=1):
            yield Row(name, number, None, values)


@contextlib.contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    """Opens the file. `datasets` would treat its name as a pattern and read all columns."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with path.open("rb") as file:
            yield pyarrow.parquet.ParquetFile(file)
    except OverflowError as error:  # such as a time outside Python's range
        raise DataError(
            f"{path}: a value is out of range ({error}); texts are strings and labels are words or numbers; write it "
            "as a string"
        ) from error
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable .parquet file: {error}; write or copy it again") from error


def _declared_classes(metadata: Mapping[bytes, bytes]) -> Mapping[str, Sequence[str]]:
    """The class names by column, if `datasets` wrote the file: its rows have only class numbers.

    Raises:
        JsonError, AttributeError: the metadata are not as `datasets` writes them.
    """
    features = (parse_object(metadata.get(b"huggingface", b"{}")).get("info") or {}).get("features") or {}
    kinds = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    declared = {name: kind.get("names") or () for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    for names in declared.values():
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise JsonError(f"class names must be texts; got {names!s:.40}")
    return declared


def declared_name(names: Sequence[str], value: Any) -> Any:
    """The class name of a number; None for -1, a withheld label. Other values are returned unchanged."""
    if not isinstance(value, int) or value >= len(names):
        return value
    return names[value] if value >= 0 else None


# Reading text


@contextlib.contextmanager
def _open_text(path: Path, newline: str | None) -> Iterator[TextIO]:
    """Opens the file as UTF-8. Anything that cannot be read, anywhere in the file, becomes a DataError."""
    try:
        with _text_file(path, newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error}){_encoding_of(error)}; save it as UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a readable .gz file ({error}); compress or copy it again") from error
    except OSError as error:
        raise _not_readable(path, error) from error


def _encoding_of(error: UnicodeDecodeError) -> str:
    """What the file probably is."""
    return ", but UTF-16 or UTF-32" if error.object.startswith((b"\xff\xfe", b"\xfe\xff")) else ""


def _text_file(path: Path, newline: str | None) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=newline)
    return path.open(encoding="utf-8-sig", newline=newline)


def _not_readable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read ({error}); choose a file that you can read")


# Writing


@dataclasses.dataclass(frozen=True)
class Lines:
    """Rows as the text of a .csv, .tsv or .jsonl.

    Attributes:
        extension: which of them.
        columns: the columns, in their order; a .jsonl writes each row as it is.
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
            DataError: the row cannot be written to such a file.
        """
        line = self._line(row)
        if not is_unicode(line):
            raise DataError(
                f"{row.place}: the row is not valid Unicode: it contains an unpaired surrogate, which UTF-8 cannot "
                "encode; fix the text"
            )
        return line

    def _line(self, row: Row) -> str:
        if self.extension == ".jsonl":
            return json.dumps(row.values, ensure_ascii=False, default=str) + "\n"
        others = [name for name in row.values if name not in self.columns]
        if others:
            raise DataError(f"{row.place}: the first row has no {others[0]!r}, so it has no column; write a .jsonl")
        return self._delimited(row.place, [_cell(row.values.get(name)) for name in self.columns])

    def _delimited(self, place: str, cells: Sequence[str]) -> str:
        return self._tabs(place, cells) if self.extension == ".tsv" else _commas(cells)

    def _tabs(self, place: str, cells: Sequence[str]) -> str:
        for name, cell in zip(self.columns, cells, strict=True):
            if any(sign in cell for sign in "\t\n\r"):
                raise DataError(
                    f"{place}: its {name!r} holds a tab or a line end, which a .tsv cannot contain; write a .csv or "
                    ".jsonl"
                )
        return "\t".join(cells) + "\n"


def _commas(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # with "\n" it would not quote a cell that contains "\r"
    return text.getvalue().removesuffix("\r\n") + "\n"


def _cell(value: Any) -> str:
    """None is an empty cell; a list or an object is written as JSON."""
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)
