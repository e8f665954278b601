"""What a label is: a class by its name, by its value or by its number; never by a guess that joins two spellings."""

from pathlib import Path
from typing import Any

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
        (csv_of("no", "yes"), csv_of("0", "1", "yes"), ("no", "yes"), [0, 1, 1]),
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
