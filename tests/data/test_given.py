"""Rows in memory: read like the same rows in a file, and what is wrong with them has a place, too."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest

from dynabert_jax.config import DataConfig
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.given import open_given
from dynabert_jax.data.rows import DataError, RowSource
from dynabert_jax.data.texts import TaskTexts, read_texts

CLASSES = Task(name="classes", text_columns=("text",))
NUMBERS = Task(name="numbers", text_columns=("text",), kind="regression")
PAIRS = Task(name="pairs", text_columns=("one", "other"))

Rows = list[dict[str, Any]]
MAKE: dict[str, Callable[[Rows], Any]] = {
    "DataFrame": pandas.DataFrame,
    "Dataset": datasets.Dataset.from_list,
    "dicts": lambda rows: rows,
}
FILES: dict[str, Callable[[pandas.DataFrame, Path], None]] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path, index=False),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


def in_memory(rows: Any, task: Task) -> TaskTexts:
    chosen = open_given("train", rows).choose((*task.text_columns, task.label_column))
    return read_texts(DataConfig(task=task, train_file="given"), given={"given": chosen})


def in_file(path: Path, task: Task) -> TaskTexts:
    return read_texts(DataConfig(task=task, train_file=str(path)))


def assert_same(one: TaskTexts, other: TaskTexts) -> None:
    assert one.labels == other.labels
    for (name, ours), (_, theirs) in zip(one.splits, other.splits, strict=True):
        assert ours.texts == theirs.texts, name
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.origins, theirs.origins)


def examples(labels: Sequence[Any], count: int = 30) -> Rows:
    return [{"id": i, "text": f"a text, number {i}", "label": labels[i % len(labels)]} for i in range(count)]


@pytest.mark.parametrize("extension", FILES)
@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(
    ("task", "labels"), [(CLASSES, ("good", "bad", "é")), (CLASSES, (2, 10, 1)), (NUMBERS, (0.1, -3.5, 1e-7, 4.0))]
)
def test_rows_are_read_as_from_a_file(
    kind: str, extension: str, task: Task, labels: Sequence[Any], tmp_path: Path
) -> None:
    rows = examples(labels)
    FILES[extension](pandas.DataFrame(rows), tmp_path / f"rows{extension}")
    assert_same(in_memory(MAKE[kind](rows), task), in_file(tmp_path / f"rows{extension}", task))


@pytest.mark.parametrize("kind", MAKE)
def test_pairs(kind: str, tmp_path: Path) -> None:
    rows = [{"label": "no" if i % 3 else "yes", "other": f"b {i}", "one": f"a {i}"} for i in range(30)]
    pandas.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    found = in_memory(MAKE[kind](rows), PAIRS)
    assert_same(found, in_file(tmp_path / "rows.csv", PAIRS))
    assert found.splits[0][1].texts[0] == ("a 0", "b 0")


def test_a_table_comes_back_from_pandas_as_it_was_in_the_file(tmp_path: Path) -> None:
    """pandas takes an empty cell for a missing number, and whole numbers beside it for floats."""
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,1\n,2\nb,1\n" * 10)
    frame = pandas.read_csv(tmp_path / "rows.csv")
    assert frame.text.isna().sum() == 10
    assert_same(in_memory(frame, CLASSES), in_file(tmp_path / "rows.csv", CLASSES))
    frame = pandas.read_csv(tmp_path / "rows.csv", dtype={"text": "string", "label": "Int64"})
    assert_same(in_memory(frame, CLASSES), in_file(tmp_path / "rows.csv", CLASSES))
    assert_same(
        in_memory(frame.convert_dtypes(dtype_backend="pyarrow"), CLASSES), in_file(tmp_path / "rows.csv", CLASSES)
    )
    frame.label = frame.label.astype("category")
    assert_same(in_memory(frame, CLASSES), in_file(tmp_path / "rows.csv", CLASSES))


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pandas.NA, pandas.NaT], ids=str)
@pytest.mark.parametrize("kind", ["DataFrame", "dicts"])
@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=lambda task: task.name)
def test_a_missing_label_is_reported_as_an_empty_cell_is(missing: Any, kind: str, task: Task, tmp_path: Path) -> None:
    rows = examples((1, 2))
    rows[11]["label"] = missing
    with pytest.raises(DataError) as error:
        in_memory(MAKE[kind](rows), task)
    pandas.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError) as of_file:
        in_file(tmp_path / "rows.csv", task)
    assert str(error.value) == str(of_file.value).replace(f"{tmp_path / 'rows.csv'}, row 12 (line 13)", "train, row 12")


def test_class_numbers_of_a_dataset_are_names(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ok", "bad"])})
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(20)]
    data = datasets.Dataset.from_list(rows, features=features)
    data.to_parquet(tmp_path / "rows.parquet")
    found = in_memory(data, CLASSES)
    assert found.labels == ("bad", "ok")
    assert_same(found, in_file(tmp_path / "rows.parquet", CLASSES))
    assert_same(in_memory(data.with_format("numpy"), CLASSES), found)
    rows[4]["label"] = -1  # withheld
    with pytest.raises(DataError, match="train, row 5: the label is missing"):
        in_memory(datasets.Dataset.from_list(rows, features=features), CLASSES)


def test_columns_need_not_have_names_of_letters() -> None:
    task = Task(name="numbered", text_columns=("0",), label_column="1")
    frame = pandas.DataFrame([[f"text {i}", "ab"[i % 2], None] for i in range(20)], index=range(100, 120))
    assert in_memory(frame, task).splits[0][1].texts[0] == ("text 0",)


def test_rows_are_read_again_and_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.data.given.ROWS_AT_ONCE", 7)
    rows = examples((1, 2))
    for make in MAKE.values():
        opened = open_given("dev", make(rows))
        assert opened.columns == ("id", "text", "label")
        for source in (opened, opened.choose(("label", "text"))):
            for _ in range(2):
                assert read(source) == [
                    (i + 1, {name: row[name] for name in source.chosen or row}) for i, row in enumerate(rows)
                ]
        assert [row.place for row in opened][-1] == "dev, row 30"


def read(source: RowSource) -> list[tuple[int, dict[str, Any]]]:
    return [(row.number, dict(row.values)) for row in source]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("train.csv", "train: rows must be a DataFrame, a datasets.Dataset or a list of dicts; got str; name a file"),
        ({"text": ["a"]}, "got dict; give one of its splits, or a list with a dict for each row"),
        (datasets.DatasetDict(), "got DatasetDict; give one of its splits"),
        (datasets.Dataset.from_list([{"text": "a"}]).to_iterable_dataset(), "got IterableDataset; give one of these"),
        (pandas.Series(["a"]), "got Series"),
        ([], "train: there are no rows; give some"),
        (pandas.DataFrame({"text": [], "label": []}), "there are no rows"),
        (["a text"], r"train, row 1: a row must be a dict, such as \{'text': ...\}; got 'a text'"),
        ([{"text": "a", "label": "b"}, None], "train, row 2: a row must be a dict"),
        ([{"texts": "a", "label": "b"}], "train, row 1: no column 'text'; did you mean 'texts'"),
        ([{"text": "a", "label": "b"}, {"label": "b"}], "train, row 2: a text must be a string; there is none"),
        (pandas.DataFrame({"texts": ["a"], "label": ["b"]}), "train: no column 'text'; did you mean 'texts'"),
        (pandas.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"]), "names a column twice: 'text'"),
        ([{"text": 3, "label": "b"}], "train, row 1: a text must be a string; got 3 in 'text'"),
        ([{"text": "a", "label": ["b"]}], r"train, row 1: the label must be one word or number; got \['b'\]"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": "x"}], "train, row 2: the label 'x' is a str, and 1 in"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(rows: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        in_memory(rows, CLASSES)
