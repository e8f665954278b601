"""Text and label columns as they are in files, hub data sets, GLUE's folders and the sample data.

This module only reads; `dynabert_jax.data.texts` decides what the values mean.
"""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.tasks import GlueLayout, Sample, Task
from dynabert_jax.data import samples
from dynabert_jax.data.rows import (
    READ,
    TEXT,
    DataError,
    Dialect,
    RowFile,
    check_columns,
    check_file,
    declared_name,
    kind_of,
    no_rows,
    open_rows,
    read_lines,
    row_place,
)
from dynabert_jax.system.files import expanded

if TYPE_CHECKING:
    import datasets


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of one split.

    Attributes:
        name: file or data set, for messages.
        texts: by column name, one or two, `[n]` values as read: not yet checked to be strings.
        labels: `[n]` values as read; a class that the data set declares is given by name. Empty if there are none.
        lines: the line on which each row starts, or None, `[n]`; empty if the data is not a file.
    """

    name: str
    texts: Mapping[str, Sequence[Any]]
    labels: Sequence[Any]
    lines: Sequence[int | None] = ()

    def __len__(self) -> int:
        return len(next(iter(self.texts.values())))

    @property
    def is_labelled(self) -> bool:
        return len(self.labels) > 0

    def place(self, row: int) -> str:
        """Where a row is, for messages; rows count from 1 there, without the header."""
        return row_place(self.name, row + 1, self.lines[row] if self.lines else None)


@dataclasses.dataclass(frozen=True)
class Joined(Table):
    """The rows of several tables, one after the other.

    Attributes:
        parts: the tables, in this order.
    """

    parts: Sequence[Table] = ()

    def place(self, row: int) -> str:
        for part in self.parts:
            if row < len(part):
                return part.place(row)
            row -= len(part)
        raise IndexError(row)


@dataclasses.dataclass(frozen=True)
class Tables:
    """The splits of one data set.

    Attributes:
        train: without labels if nothing else is trained on.
        dev: by name; empty if the data set has none, so that part of train is held out.
        test: by name; only splits with labels.
        class_names: the classes that the data set itself declares, in the order of their ids; often none.
        unlabelled: texts without labels that are trained on in addition; None if there are none.
    """

    train: Table
    dev: Mapping[str, Table]
    test: Mapping[str, Table]
    class_names: tuple[str, ...] = ()
    unlabelled: Table | None = None


def read_tables(config: DataConfig) -> Tables:
    """Reads the one source that the configuration names, and the unlabelled files.

    Raises:
        DataError: a source does not exist, is empty, lacks a column, or cannot be read.
        SampleError: the sample data could not be downloaded.
    """
    files, task = config.unlabelled_files, config.task
    texts = read_unlabelled(files, task.text_columns) if files else None
    if texts is not None and config.only_unlabelled:
        return Tables(texts, *_read_scored(config))
    return dataclasses.replace(_read_labelled(config, task), unlabelled=texts)


def _read_labelled(config: DataConfig, task: Task) -> Tables:
    if config.train_file is not None:
        check_file(expanded(config.train_file))
        dev, test = _read_scored(config)
        return Tables(_read_file(expanded(config.train_file), task.text_columns, task.label_column), dev, test)
    if config.glue_folder is not None:
        return _read_glue(task, expanded(config.glue_folder))
    if config.hub is not None or task.hub is not None:
        return _read_hub(task, config.hub or task.hub or "")
    if task.sample is not None:
        return _read_sample(task, task.sample)
    raise DataError(f"task {task.name!r} has no data of its own; name a train_file, a glue_folder or a hub data set")


# The user's files


def _read_scored(config: DataConfig) -> tuple[dict[str, Table], dict[str, Table]]:
    """The dev file and the test file, each by its name if there is one."""
    task, files = config.task, {"dev": config.dev_file, "test": config.test_file}
    paths = {split: expanded(file) for split, file in files.items() if file is not None}
    for path in paths.values():
        check_file(path)
    tables = {split: _read_file(path, task.text_columns, task.label_column) for split, path in paths.items()}
    dev, test = ({name: table for name, table in tables.items() if name == split} for split in files)
    return dev, test


def _read_file(path: Path, text_columns: Sequence[str], label_column: str, dialect: Dialect | None = None) -> Table:
    rows = open_rows(path, (*text_columns, label_column), dialect)
    columns, lines = _read_columns(rows)
    labels, classes = columns.pop(label_column), rows.classes.get(label_column, ())
    labels = [declared_name(classes, value) for value in labels] if classes else labels
    return Table(str(path), columns, labels, lines)


def _read_columns(rows: RowFile) -> tuple[dict[str, list[Any]], list[int | None]]:
    """The chosen columns of a file, and the line of each row."""
    lines: list[int | None] = []
    columns: dict[str, list[Any]] = {name: [] for name in rows.chosen}
    for row in rows:
        lines.append(row.line)
        for name, values in columns.items():
            values.append(row.values.get(name))
    if not lines:
        raise no_rows(str(rows.path))
    return columns, lines


def read_unlabelled(files: Sequence[str | Path], text_columns: Sequence[str]) -> Table:
    """The texts of all these files, one or more, without labels; a .txt has one text a line.

    Raises:
        DataError: a file does not exist, is empty, lacks a column, or cannot be read.
    """
    paths = [expanded(file) for file in files]
    for path in paths:
        check_file(path, (*READ, TEXT))
    parts = [_read_texts(path, text_columns) for path in paths]
    if len(parts) == 1:
        return parts[0]
    texts = {name: [text for part in parts for text in part.texts[name]] for name in text_columns}
    return Joined(", ".join(part.name for part in parts), texts, (), parts=parts)


def _read_texts(path: Path, text_columns: Sequence[str]) -> Table:
    """The text columns of a file, or the lines of a .txt."""
    if kind_of(path) != TEXT:
        columns, lines = _read_columns(open_rows(path, text_columns))
        return Table(str(path), columns, (), lines)
    if len(text_columns) > 1:
        raise DataError(
            f"{path}: a .txt has one text a line, and the task is of pairs ({', '.join(text_columns)}); name a file "
            f"with two columns ({', '.join(READ)})"
        )
    texts, numbers = read_lines(path)
    return Table(str(path), {text_columns[0]: texts}, (), numbers)


# GLUE's folders


def _read_glue(task: Task, folder: Path) -> Tables:
    """GLUE's train.tsv and dev files; its test files have no labels and are not read."""
    if task.glue is None:
        raise DataError(f"task {task.name!r} has no GLUE layout; name a train_file instead of the folder {folder}")
    paths = [folder / name for name in ("train.tsv", *(split.glue_file for split in task.dev))]
    for path in paths:
        check_file(path)
    train, *dev = (_read_glue_file(path, task.glue) for path in paths)
    return Tables(train, {split.name: table for split, table in zip(task.dev, dev, strict=True)}, {})


def _read_glue_file(path: Path, layout: GlueLayout) -> Table:
    dialect = Dialect("\t", csv.QUOTE_NONE, layout.columns, skip_malformed=True)
    return _read_file(path, layout.text_columns, layout.label_column, dialect)


# Hub data sets


def _read_hub(task: Task, hub: str) -> Tables:
    splits = _load_hub(hub)
    needed = {"train": "train"} | {split.name: split.hub for split in task.dev}
    missing = [name for name in needed.values() if name not in splits]
    if missing:
        raise DataError(
            f"hub data set {hub!r} has no split {missing[0]!r}; there are: {', '.join(splits)}; name the splits to "
            "evaluate on in the task's dev"
        )
    tables = {name: _hub_table(task, hub, source, splits[source]) for name, source in needed.items()}
    test = _labelled_test(task, hub, splits)
    return Tables(tables.pop("train"), tables, test, _class_names(splits["train"], task.label_column))


def _load_hub(hub: str) -> Mapping[str, "datasets.Dataset"]:
    import datasets

    path, _, configuration = hub.partition(":")
    try:
        return datasets.load_dataset(path, configuration or None)
    # The libraries below raise many kinds of errors, some without a common base.
    except Exception as error:
        raise DataError(
            f"hub data set {hub!r} could not be loaded: {type(error).__name__}: {error}. Without network access, "
            "download the data elsewhere, and set train_file and dev_file to the files, or glue_folder to GLUE's folder"
        ) from error


def _hub_table(task: Task, hub: str, split: str, dataset: "datasets.Dataset") -> Table:
    name, label_column = f"{hub}, split {split}", task.label_column
    check_columns(name, dataset.column_names, (*task.text_columns, label_column))
    if not len(dataset):
        raise DataError(f"{name}: there are no rows; name another split")
    try:
        columns = dataset.select_columns([*task.text_columns, label_column])[:]
    except OverflowError as error:  # such as a time outside Python's range
        raise DataError(f"{name}: a value is out of range ({error}); labels are words or numbers") from error
    classes = _class_names(dataset, label_column)
    labels = [declared_name(classes, value) for value in columns[label_column]] if classes else columns[label_column]
    return Table(name, {column: columns[column] for column in task.text_columns}, labels)


def _class_names(dataset: "datasets.Dataset", label_column: str) -> tuple[str, ...]:
    return tuple(getattr(dataset.features[label_column], "names", None) or ())


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
    if task.kind == "regression":
        labels = [review.rating for review in reviews]
    else:
        labels = ["positive" if review.rating > 0 else "negative" for review in reviews]
    texts = {column: [review.text for review in reviews] for column in task.text_columns}
    return Table(f"movie reviews, split {split}", texts, labels)
