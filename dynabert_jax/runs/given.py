"""Rows that a program gives to a run. They are kept in the run's folder, so that every later command finds them.

data/SPLIT.jsonl holds the columns that the task needs. Resuming takes the same rows again, and compares them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.data.given import GivenRows, open_given
from dynabert_jax.data.rows import Lines, RowSource
from dynabert_jax.data.sources import Given
from dynabert_jax.runs.files import RunFolderError, write_whole, writing
from dynabert_jax.system.files import expanded

# What else a configuration may name in the place of the rows of a split.
_OTHERS = {"train": ("train_file", "glue_folder", "hub"), "dev": ("dev_file",), "test": ("test_file",)}


def with_given(config: RunConfig, splits: Mapping[str, GivenRows | None]) -> tuple[RunConfig, Given]:
    """The configuration with the files that are to hold these rows, and the rows by file.

    Args:
        splits: rows by `train`, `dev`, `test` and `unlabelled`; None: the configuration has its own, or none.

    Raises:
        ConfigError: the configuration names data of the same split, too; or rows to score on have none to train on.
        DataError: the rows are of another type, lack a column, or there are none.
    """
    data, given = config.data, {}
    for split, rows in splits.items():
        if rows is not None:
            file = str(_file(config.run_dir, split))
            given[file] = _chosen(data, split, rows)
            data = _naming(data, split, file)
    return config.replace(data=data), given


def _file(run_dir: str | Path, split: str) -> Path:
    return expanded(run_dir) / "data" / f"{split}.jsonl"


def _chosen(data: DataConfig, split: str, rows: GivenRows) -> RowSource:
    labels = () if split == "unlabelled" else (data.task.label_column,)
    return open_given(split, rows).choose((*data.task.text_columns, *labels))


def _naming(data: DataConfig, split: str, file: str) -> DataConfig:
    """The data with a file for a split."""
    if split == "unlabelled":
        return data.replace(unlabelled_files=(*data.unlabelled_files, file))
    for other in _OTHERS[split]:
        if getattr(data, other) is not None:
            raise ConfigError(f"{split} rows are given, and data.{other} names others; leave one of them out")
    return data.replace(**{f"{split}_file": file})


def moved(config: CompleteRun, folder: Path) -> CompleteRun:
    """The configuration of a run whose folder is now this one: rows that are kept in it have moved with it."""
    data = config.data
    named: dict[str, object] = {}
    for split in _OTHERS:
        if getattr(data, f"{split}_file") == str(_file(config.run_dir, split)):
            named[f"{split}_file"] = str(_file(folder, split))
    before, now = (str(_file(place, "unlabelled")) for place in (config.run_dir, folder))
    if before in data.unlabelled_files:
        named["unlabelled_files"] = tuple(now if file == before else file for file in data.unlabelled_files)
    return config.replace(data=data.replace(**named)) if named else config


def check_kept(given: Given) -> None:
    """Raises RunFolderError if the run has kept other rows than these."""
    for file, rows in given.items():
        path = Path(file)
        with writing(path):
            is_other = path.exists() and path.read_bytes() != _text(rows).encode()
        if is_other:
            raise RunFolderError(
                f"{path} has other rows than those that are given for {rows.name}; to resume the run, give the same "
                "ones; for others, set run_dir to a new folder"
            )


def keep(given: Given) -> None:
    """Writes the rows that are not kept yet."""
    for file, rows in given.items():
        path = Path(file)
        if not path.exists():
            with writing(path):
                path.parent.mkdir(exist_ok=True)
            write_whole(path, _text(rows))


def _text(rows: RowSource) -> str:
    return "".join(_lines(rows))


def _lines(rows: RowSource) -> Iterator[str]:
    lines = Lines(".jsonl", rows.chosen)
    return (lines.line(row) for row in rows)
