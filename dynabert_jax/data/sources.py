"""Text and label columns as they stand in files, hub data sets, GLUE's folders and the sample data.

Reading only: what the values mean is decided in `dynabert_jax.data`.
"""

import csv
import dataclasses
import errno
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.tasks import GlueLayout, Sample, Task
from dynabert_jax.data import samples
from dynabert_jax.system.files import expanded

if TYPE_CHECKING:
    import datasets
from dynabert_jax.data.rows import (
    EXTENSIONS,
    DataError,
    Dialect,
    check_columns,
    check_file,
    check_header,
    check_width,
    delimited_rows,
    open_text,
)

log = logging.getLogger(__name__)

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # how the system says so
NO_ROWS = ("corresponds to no data", "BatchSize must be greater than 0")  # how `datasets` says so of text and Parquet


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of one split.

    Attributes:
        name: file or data set, for messages.
        texts: by the column's name, one or two, `[n]` values as read: not yet checked to be strings.
        labels: `[n]` values as read; a class that the data set itself declares stands here by its name.
        lines: the line of the file on which each row starts, `[n]`; empty where rows are not lines.
    """

    name: str
    texts: Mapping[str, Sequence[Any]]
    labels: Sequence[Any]
    lines: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int]) -> "Table":
        texts = {name: [column[row] for row in rows] for name, column in self.texts.items()}
        return Table(self.name, texts, [self.labels[row] for row in rows], [self.lines[row] for row in rows])

    def place(self, row: int) -> str:
        """Where a row stands, for messages: rows count from 1 and leave out the header."""
        line = f" (line {self.lines[row]})" if row < len(self.lines) else ""
        return f"{self.name}, row {row + 1}{line}"


@dataclasses.dataclass(frozen=True)
class Tables:
    """The splits of one data set.

    Attributes:
        dev: by name; empty where the data set has none and a part of train is to be held out.
        test: by name; only splits with labels.
        class_names: the classes that the data set itself declares, in the order of their ids; often none.
    """

    train: Table
    dev: Mapping[str, Table]
    test: Mapping[str, Table]
    class_names: tuple[str, ...] = ()


def read_tables(config: DataConfig) -> Tables:
    """Reads the one source that the configuration names.

    Raises:
        DataError: the source is not there, is empty, lacks a column, or cannot be read.
        SampleError: the sample data could not be fetched.
    """
    task = config.task
    if config.train_file is not None:
        return _read_files(config)
    if config.glue_folder is not None:
        return _read_glue(task, expanded(config.glue_folder))
    if config.hub is not None or task.hub is not None:
        return _read_hub(task, config.hub or task.hub or "")
    if task.sample is not None:
        return _read_sample(task, task.sample)
    raise DataError(f"task {task.name!r} has no data of its own; name a train_file, a glue_folder or a hub data set")


# Files of the user's own


def _read_files(config: DataConfig) -> Tables:
    files = {"train": config.train_file, "dev": config.dev_file, "test": config.test_file}
    paths = {split: expanded(file) for split, file in files.items() if file is not None}
    for path in paths.values():
        check_file(path, EXTENSIONS)
    tables = {split: _read_file(path, config.task) for split, path in paths.items()}
    train = tables.pop("train")
    dev, test = ({name: table for name, table in tables.items() if name == split} for split in ("dev", "test"))
    return Tables(train, dev, test)


def _read_file(path: Path, task: Task) -> Table:
    text_columns, label_column = task.text_columns, task.label_column
    if path.suffix in (".csv", ".tsv"):
        return _read_delimited(path, Dialect.of(path), text_columns, label_column)
    if path.suffix == ".parquet":
        return _table(str(path), _load_local(path, "parquet"), text_columns, label_column)
    lines = _lines_with_content(path)
    dataset = _load_local(path, "json")
    are_rows = len(lines) == len(dataset)  # not so where the file is one JSON list of all rows, which is read, too
    return _table(str(path), dataset, text_columns, label_column, lines if are_rows else ())


def _read_delimited(path: Path, dialect: Dialect, text_columns: Sequence[str], label_column: str) -> Table:
    rows = _rows(path, dialect)
    columns = list(dialect.columns) or next(rows, (1, []))[1]
    check_header(path, columns, (*text_columns, label_column))
    shapes = [(line, len(row)) for line, row in rows]
    if not dialect.skip_malformed:
        _check_widths(path, shapes, columns, dialect)
    # What is left out here for being too long, pandas leaves out below; too short a row it fills with empty cells.
    read = [(line, cells) for line, cells in shapes if cells <= len(columns)]
    lines = [line for line, _ in read]
    table = _table(str(path), _load_delimited(path, dialect, columns), text_columns, label_column, lines)
    if len(table) != len(read):
        raise DataError(f"{path}: rows of {len(columns)} cells cannot be told from others; {dialect.cure}")
    kept = [row for row, (_, cells) in enumerate(read) if cells == len(columns)]
    if len(kept) == len(shapes):
        return table
    log.warning("%s: left out %d rows with too few or too many cells", path, len(shapes) - len(kept))
    return table.take(kept)


def _check_widths(path: Path, shapes: Sequence[tuple[int, int]], columns: Sequence[str], dialect: Dialect) -> None:
    """pandas, which reads the file, would move the cells of too long a row to other columns and fill up a short one."""
    for row, (line, cells) in enumerate(shapes, start=1):
        check_width(f"{path}, row {row} (line {line})", cells, columns, dialect)


def _rows(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the line it starts on."""
    return ((line, row) for line, row in delimited_rows(path, dialect) if len(row) > 1 or "".join(row).strip())


def _load_delimited(path: Path, dialect: Dialect, columns: list[str]) -> "datasets.Dataset":
    """All cells as the strings they are: no numbers made of texts, and no missing values made of 'NA' or 'null'."""
    import datasets

    return _load_local(
        path,
        "csv",
        sep=dialect.delimiter,
        quoting=dialect.quoting,
        encoding="utf-8-sig",
        keep_default_na=False,
        on_bad_lines="skip" if dialect.skip_malformed else "error",
        column_names=columns,
        header=None if dialect.columns else 0,
        features=datasets.Features({name: datasets.Value("string") for name in columns}),
    )


def _load_local(path: Path, kind: str, **options: Any) -> "datasets.Dataset":
    import datasets

    # Its bars are of a moment, and what it logs of a failure is told by our own message.
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    # A cache of its own: the user's would keep a copy of every version of every file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        try:
            return datasets.load_dataset(
                kind, data_files=str(path), split="train", cache_dir=cache, keep_in_memory=True, **options
            )
        except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
            why = str(error.__cause__ or error)
            if any(getattr(one, "errno", None) in NO_SPACE for one in _causes(error)):
                raise DataError(
                    f"cannot write what {path} becomes to {cache}: {why}; free some space there, or set TMPDIR to "
                    f"another folder"
                ) from error
            if any(words in why for words in NO_ROWS):
                raise DataError(f"{path}: the file holds no rows") from None
            raise DataError(f"{path}: not a readable {path.suffix} file: {why}; write it anew") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _lines_with_content(path: Path) -> list[int]:
    with open_text(path, newline="\n") as file:
        return [number for number, line in enumerate(file, start=1) if line.strip()]


def _table(
    name: str, dataset: "datasets.Dataset", text_columns: Sequence[str], label_column: str, lines: Sequence[int] = ()
) -> Table:
    check_columns(name, dataset.column_names, (*text_columns, label_column))
    if not len(dataset):
        raise DataError(f"{name}: there are no rows")
    names = _class_names(dataset, label_column)
    try:
        columns = dataset.select_columns(list(dict.fromkeys((*text_columns, label_column))))[:]
    except OverflowError as error:  # of times, which are none of text and label
        raise DataError(f"{name}: a value is out of range ({error}); labels are words or numbers") from error
    labels = [_declared_name(names, value) for value in columns[label_column]] if names else columns[label_column]
    return Table(name, {column: columns[column] for column in text_columns}, labels, lines)


def _class_names(dataset: "datasets.Dataset", label_column: str) -> tuple[str, ...]:
    return tuple(getattr(dataset.features[label_column], "names", None) or ())


def _declared_name(names: tuple[str, ...], value: int | None) -> str | None:
    """The class of that id; None where the label is withheld, which hub data sets write as -1."""
    return None if value is None or value < 0 else names[value]


# GLUE's own folders


def _read_glue(task: Task, folder: Path) -> Tables:
    """GLUE's train.tsv and dev files; its test files carry no labels and are left alone."""
    if task.glue is None:
        raise DataError(f"task {task.name!r} has no GLUE layout; name a train_file instead of the folder {folder}")
    paths = [folder / name for name in ("train.tsv", *(split.glue_file for split in task.dev))]
    for path in paths:
        check_file(path, (".tsv",))
    train, *dev = (_read_glue_file(path, task.glue) for path in paths)
    return Tables(train, {split.name: table for split, table in zip(task.dev, dev, strict=True)}, {})


def _read_glue_file(path: Path, layout: GlueLayout) -> Table:
    dialect = Dialect("\t", csv.QUOTE_NONE, layout.columns, skip_malformed=True)
    return _read_delimited(path, dialect, layout.text_columns, layout.label_column)


# Hub data sets


def _read_hub(task: Task, hub: str) -> Tables:
    splits = _load_hub(hub)
    needed = {"train": "train"} | {split.name: split.hub for split in task.dev}
    missing = [name for name in needed.values() if name not in splits]
    if missing:
        raise DataError(
            f"hub data set {hub!r} has no split {missing[0]!r}; there are: {', '.join(splits)}; the task's dev names "
            "the splits to evaluate on"
        )
    tables = {name: _hub_table(task, hub, source, splits[source]) for name, source in needed.items()}
    test = _labelled_test(task, hub, splits)
    return Tables(tables.pop("train"), tables, test, _class_names(splits["train"], task.label_column))


def _load_hub(hub: str) -> Mapping[str, "datasets.Dataset"]:
    import datasets

    path, _, configuration = hub.partition(":")
    try:
        return datasets.load_dataset(path, configuration or None)
    # The libraries underneath raise many kinds of errors, some without a common base.
    except Exception as error:
        raise DataError(
            f"hub data set {hub!r} could not be loaded: {type(error).__name__}: {error}. Without network, download the "
            "data elsewhere and name the files as train_file and dev_file, or GLUE's folder as glue_folder"
        ) from error


def _hub_table(task: Task, hub: str, split: str, dataset: "datasets.Dataset") -> Table:
    return _table(f"{hub}, split {split}", dataset, task.text_columns, task.label_column)


def _labelled_test(task: Task, hub: str, splits: Mapping[str, "datasets.Dataset"]) -> dict[str, Table]:
    if "test" not in splits or task.label_column not in splits["test"].column_names:
        return {}
    table = _hub_table(task, hub, "test", splits["test"])
    withheld = all(label is None or label == -1 for label in table.labels)
    return {} if withheld else {"test": table}


# The sample data


def _read_sample(task: Task, name: Sample) -> Tables:
    splits = {
        split: _sample_table(task, split, reviews) for split, reviews in samples.movie_review_splits(name).items()
    }
    return Tables(splits["train"], {"dev": splits["dev"]}, {"test": splits["test"]})


def _sample_table(task: Task, split: str, reviews: Sequence[samples.Review]) -> Table:
    labels: list[Any]
    if task.regression:
        labels = [review.rating for review in reviews]
    else:
        labels = ["positive" if review.rating > 0 else "negative" for review in reviews]
    texts = {column: [review.text for review in reviews] for column in task.text_columns}
    return Table(f"movie reviews, split {split}", texts, labels)
