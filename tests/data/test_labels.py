"""What a label is: a class by its name, by its value or by its number; never by a guess that joins two spellings."""

import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from dynabert_jax.config import DataConfig
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.texts import TaskTexts, read_texts


def read(folder: Path, train: tuple[str, str], dev: tuple[str, str], **settings: Any) -> TaskTexts:
    """Two files by their extension and content."""
    files = {}
    for split, (extension, content) in (("train", train), ("dev", dev)):
        files[f"{split}_file"] = str(folder / f"{split}.{extension}")
        Path(files[f"{split}_file"]).write_text(content)
    task = Task(name="labels", text_columns=("text",), **settings)
    return read_texts(DataConfig(task=task, lengths=(8,), **files))


def csv_of(*labels: str) -> tuple[str, str]:
    return "csv", "text,label\n" + "".join(f"words,{label}\n" for label in labels)


def jsonl_of(*labels: str) -> tuple[str, str]:
    """Labels as JSON writes them."""
    return "jsonl", "".join(f'{{"text": "words", "label": {label}}}\n' for label in labels)


@pytest.mark.parametrize(
    ("train", "dev", "labels", "ids"),
    [
        (csv_of("1.0", "2.0", "3.0"), csv_of("1", "2"), ("1.0", "2.0", "3.0"), [0, 1]),
        (csv_of("1.0", "2.0", "3.0"), jsonl_of("1.0", "2", "3"), ("1.0", "2.0", "3.0"), [0, 1, 2]),
        (csv_of("+1", "-1"), jsonl_of("1", "-1"), ("+1", "-1"), [0, 1]),
        (csv_of("1", "2", "10"), csv_of("10", "2.0"), ("1", "2", "10"), [2, 1]),
        (csv_of("1", "01", "02"), csv_of("01", "1"), ("01", "1", "02"), [0, 1]),
        (jsonl_of("1", "0", "1.0"), csv_of("0", "1"), ("0", "1"), [0, 1]),
    ],
)
def test_numbers_are_matched_by_value_and_names_by_name(
    train: tuple[str, str], dev: tuple[str, str], labels: tuple[str, ...], ids: list[int], tmp_path: Path
) -> None:
    texts = read(tmp_path, train, dev)
    assert sorted(texts.labels) == sorted(labels)
    found = [texts.labels[i] for i in texts.dev["dev"].labels]
    assert found == [labels[i] for i in ids]


def test_the_order_of_classes_is_the_same_in_every_process(tmp_path: Path) -> None:
    assert read(tmp_path, csv_of("1", "01", "02"), csv_of("01")).labels == ("01", "1", "02")


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (csv_of("1.0", "2.0"), csv_of("1", "0"), r"dev\.csv, row 2 \(line 3\): label '0' is not a class"),
        (csv_of("1", "01", "2"), csv_of("1.0"), "'1.0' is not a class"),  # 1 and 01 are two names
        (csv_of("1", "two"), csv_of("0"), "'0' is not a class"),  # some are numbers, so that ids would be a guess
        (jsonl_of("1", '"1"', "0"), csv_of("1"), r"row 2 .+ the label '1' is a str, and 1 in .+ row 1 .+ is a number"),
        (jsonl_of("true", '"True"'), csv_of("True"), "write all labels as one type"),
        (csv_of("9" * 5000, "8"), csv_of("7"), "'7' is not a class"),
        (csv_of("no", "yes"), csv_of("0"), "'0' is not a class; allowed: no, yes"),  # nobody has said which is 0
        (csv_of("3_1", "4_1"), csv_of("31"), "'31' is not a class"),  # Python's int takes 3_1 for 31
        (csv_of("0.1", "0.3"), csv_of("0.30000000000000000001"), "is not a class"),
        (jsonl_of("true", "false"), csv_of("1"), "'1' is not a class; allowed: False, True"),
        (csv_of("good", "bad"), csv_of("Good"), "'Good' is not a class; did you mean 'good'[?]; allowed"),
        (csv_of("good", "bad"), csv_of("ba\u200bd"), "is not a class; did you mean 'bad'[?]; allowed"),
    ],
)
def test_what_could_be_two_things_is_refused(
    train: tuple[str, str], dev: tuple[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, train, dev)


@pytest.mark.parametrize("missing", ["null", '""', "NaN"])
@pytest.mark.parametrize("settings", [{}, {"labels": ("None", "Some")}, {"labels": ("nan", "Some")}])
def test_a_missing_label_is_no_class_whatever_classes_are_called(
    missing: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    classes = settings.get("labels", ("None", "Some"))
    train = jsonl_of(*(f'"{name}"' for name in classes if name != "nan"), '"Some"')
    with pytest.raises(DataError, match=r"dev\.jsonl, row 1 \(line 1\): label is missing; allowed: "):
        read(tmp_path, train, jsonl_of(missing), **(settings or {"labels": classes}))


# Two spellings of one name

SPELLINGS = [
    (
        ("positive", "Positive", "negative"),
        r"row 2 \(line 3\): the label 'Positive' \(1 rows\) and 'positive' \(1 rows, ",
    ),
    (("AB", "\uff21\uff22"), "differ only in letter case, white space or Unicode form"),
    (("a b", "a  b"), "differ only in letter case, white space or Unicode form"),
    (("a b", "a\u00a0b"), r"'a\\xa0b' .+ and 'a b' .+ differ only in"),
    (("caf\u00e9", "cafe\u0301", "bar"), r"'cafe\\u0301' .+ and 'caf\\xe9' .+ differ only in"),
    (("stra\u00dfe", "STRASSE"), "differ only in"),
    (("good", "\ufeffgood", "bad"), r"'\\ufeffgood' .+ and 'good' .+ differ only in"),
    (("1", "1.0", "2"), r"the label '1\.0' \(1 rows\) and '1' .+ are the same number; write them the same way"),
    (("+1", "1"), "are the same number"),
    (("1", "\uff11"), "are the same number"),
    (("1e1", "10.00"), "are the same number"),
    (("0.5", "\u200b0.5"), "are the same number"),
    (("01", "\u200b01"), "differ only in"),
]


@pytest.mark.parametrize(("labels", "message"), SPELLINGS)
def test_names_that_differ_in_their_spelling_alone_are_refused(
    labels: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, csv_of(*labels), csv_of(*labels))


@pytest.mark.parametrize(("labels", "_"), SPELLINGS)
def test_they_are_classes_where_the_task_names_them(labels: tuple[str, ...], _: str, tmp_path: Path) -> None:
    texts = read(tmp_path, csv_of(*labels), csv_of(*labels[::-1]), labels=labels)
    assert texts.labels == labels
    assert texts.train.labels.tolist() == list(range(len(labels)))
    assert texts.dev["dev"].labels.tolist() == list(range(len(labels)))[::-1]


@pytest.mark.parametrize(
    "labels", [("1", "2", "12"), ("1.5", "1.25"), ("a", "b c", "bc"), ("12345678901234567890", "12345678901234567891")]
)
def test_other_names_are_as_many_classes(labels: tuple[str, ...], tmp_path: Path) -> None:
    assert sorted(read(tmp_path, csv_of(*labels), csv_of(*labels)).labels) == sorted(labels)


def test_a_code_and_a_number_of_one_value_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """leading_zero.csv: labels 1, 01 and 02."""
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, csv_of("01", "1", "02"), csv_of("01")).labels == ("01", "1", "02")
    (message,) = caplog.messages
    assert "train.csv: the labels '1' and '01' are one number and two classes; write them the same way" in message


def test_a_class_that_may_be_a_missing_value_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """R writes NA."""
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, csv_of("NA", "good", "none"), csv_of("good")).labels == ("NA", "good", "none")
        read(tmp_path, csv_of("NA", "good"), csv_of("good"), labels=("NA", "good"))  # which the task has named
    (message,) = caplog.messages
    assert message.endswith("train.csv: 'NA' is taken for a class; leave the cell empty if the label is missing")


@pytest.mark.parametrize("space", [" ", "  ", "\t", "\u00a0", "\u3000", "\u2028"])
def test_labels_have_no_white_space_at_their_ends(space: str, tmp_path: Path) -> None:
    train = csv_of(f"good{space}", "bad", f"{space}good", f"{space}bad{space}", "good")
    for settings in ({}, {"labels": ("bad", "good")}, {"labels": (f"bad{space}", f"{space}good")}):
        texts = read(tmp_path, train, csv_of(f"{space}good"), **settings)
        assert texts.labels == ("bad", "good")
        assert texts.train.labels.tolist() == [1, 0, 1, 0, 1]
        assert texts.dev["dev"].labels.tolist() == [1]


@pytest.mark.parametrize("labels", [("good", "good "), ("good", " ")])
def test_names_in_a_task_differ_in_more_than_white_space(labels: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names must not be empty, and differ in more than white space at their ends"):
        read(tmp_path, csv_of("good"), csv_of("good"), labels=labels)


# Positions


def test_the_labels_of_a_file_may_be_positions_where_the_task_names_its_classes(tmp_path: Path) -> None:
    texts = read(tmp_path, csv_of("0", "1"), csv_of("good", "bad"), labels=("bad", "good"))
    assert texts.train.labels.tolist() == [0, 1]
    assert texts.dev["dev"].labels.tolist() == [1, 0]
    assert (texts.train.by_position, texts.dev["dev"].by_position) == (True, False)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (("0", "good", "bad"), ("bad", "good"), r"row 1 .+'0' is not a class; .+ use the names alone, or the numbers"),
        (("0", "1", "2"), ("bad", "good"), r"row 3 .+ label '2' is not a class; allowed: bad \(0\), good \(1\)"),
        (("0", "1"), ("1 star", "2 stars"), "'0' is not a class; allowed: 1 star, 2 stars"),
        (("0", "1"), ("-1", "other"), "'0' is not a class"),
        (("1", "2"), ("level 1", "level 2", "level 3"), "'1' is not a class"),  # where 2 is level 3 by position
        (("1", "2"), ("*1", "*2", "*3"), "'1' is not a class"),
        (("1", "2"), ("①", "②", "③"), "'1' is not a class"),
        (("0", "1"), ("True", "False"), "'0' is not a class"),  # where 1 is true, and its position is 0
        (("00", "01"), ("bad", "good"), "'00' is not a class"),
    ],
)
def test_a_position_is_never_a_guess(
    labels: tuple[str, ...], names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, csv_of(*labels), csv_of(*names), labels=names)


def test_names_that_a_data_set_declares_are_stripped_with_its_labels(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad ", " good"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    task = Task(name="labels", text_columns=("text",))
    file = str(tmp_path / "train.parquet")
    texts = read_texts(DataConfig(task=task, lengths=(8,), train_file=file, dev_file=file))
    assert (texts.labels, texts.train.labels.tolist()) == (("bad", "good"), [1, 0, 1])


def test_a_regression_takes_no_number_as_python_alone_writes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the label must be a finite number; got '1_000'"):
        read(tmp_path, csv_of("1", "1_000"), csv_of("1"), kind="regression", metrics=("pearson",))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("5", "5.0"), "train.csv: the labels of the 2 training examples are all the same number: too little to learn"),
        (("1700000000", "1700000900"), "are numbers from 1.7e\\+09 to 1.70000090e\\+09|from large numbers that differ"),
    ],
)
def test_a_regression_on_one_number_is_refused(labels: tuple[str, ...], message: str, tmp_path: Path) -> None:
    """float32 has no number between 1,700,000,000 and 1,700,000,128."""
    with pytest.raises(DataError, match=message):
        read(tmp_path, csv_of(*labels), csv_of("1", "2"), kind="regression")


def test_large_numbers_that_differ_enough_are_learned(tmp_path: Path) -> None:
    texts = read(tmp_path, csv_of("1990", "2024"), csv_of("2000"), kind="regression")
    assert texts.train.labels.tolist() == [1990.0, 2024.0]
