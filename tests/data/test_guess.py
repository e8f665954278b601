"""Which columns are texts and labels: what can be told, and what is refused."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from dynabert_jax.data.guess import Guess, guess_columns
from dynabert_jax.data.rows import DataError, open_rows

ROWS = 40
TEXT = [f"the plot of film number {i} was good" for i in range(ROWS)]
OTHER_TEXT = [f"and so was the actor of number {i}" for i in range(ROWS)]
QUERY = [f"a search for scene {i % 7}" for i in range(ROWS)]  # repeated, as queries are
CLASS = [("bad", "good", "fine")[i % 3] for i in range(ROWS)]
STARS = [str(1 + i % 5) for i in range(ROWS)]
PRICE = [str(1.5 + (i * 7) % 23) for i in range(ROWS)]
IDS = [str(i) for i in range(ROWS)]
NAMES = [f"user{i} smith" for i in range(ROWS)]
TIMES = [f"2024-01-01 10:{i:02}" for i in range(ROWS)]


def table(path: Path, **columns: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    return path


def guessed(guess: Guess) -> tuple[tuple[str, ...], str, str]:
    return tuple(column.name for column in guess.texts), guess.label.name, guess.kind


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": TEXT, "label": CLASS}, (("text",), "label", "classification")),
        ({"": IDS, "review": TEXT, "Sentiment": CLASS}, (("review",), "Sentiment", "classification")),
        ({"id": IDS, "user": NAMES, "time": TIMES, "said": TEXT, "kind": CLASS}, (("said",), "kind", "classification")),
        ({"query": QUERY, "product": TEXT, "label": CLASS}, (("query", "product"), "label", "classification")),
        ({"title": TEXT, "price": PRICE}, (("title",), "price", "regression")),
        ({"id": IDS, "title": TEXT, "cost": PRICE}, (("title",), "cost", "regression")),
        ({"text": TEXT, "stars": STARS}, (("text",), "stars", "classification")),
        ({"text": TEXT, "label": PRICE, "category": CLASS}, (("text",), "label", "regression")),
        ({"word": NAMES, "label": CLASS}, (("word",), "label", "classification")),
    ],
)
def test_columns_are_told_by_names_and_values(
    columns: dict[str, list[str]], expected: tuple[tuple[str, ...], str, str], tmp_path: Path
) -> None:
    guess = guess_columns(open_rows(table(tmp_path / "t.csv", **columns)))
    assert guessed(guess) == expected
    assert all((guess.text_why, guess.label_why, guess.kind_why))
    assert {*expected[0], expected[1], *guess.others} == set(columns) - {""}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": TEXT, "one": CLASS, "two": STARS},
            "which column has the labels cannot be told; name it with --label-col",
        ),
        (
            {"text": TEXT, "rating": STARS, "topic": CLASS},
            r"labels cannot be told; .+ There are: text \(40 different values",
        ),
        ({"text": TEXT, "id": IDS}, "which column has the labels cannot be told"),
        ({"text": TEXT}, "which column has the labels cannot be told"),
        (
            {"a": TEXT, "b": OTHER_TEXT, "c": [*reversed(TEXT)], "label": CLASS},
            "which columns have the texts cannot be told",
        ),
        ({"a": NAMES, "b": TIMES, "label": CLASS}, "name one, or two for pairs, with --text-columns"),
        ({"id": IDS, "label": CLASS}, "which columns have the texts cannot be told"),
        ({"text": TEXT, "label": NAMES}, "'label' has 40 different values in 40 rows, which are too many for classes"),
    ],
)
def test_what_cannot_be_told_is_refused(columns: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        guess_columns(open_rows(table(tmp_path / "t.csv", **columns)))


def test_what_is_given_is_no_guess(tmp_path: Path) -> None:
    rows = open_rows(table(tmp_path / "t.csv", a=TEXT, b=OTHER_TEXT, c=QUERY, stars=STARS, kind=CLASS))
    guess = guess_columns(rows, ("c", "a"), "stars", regression=True)
    assert guessed(guess) == (("c", "a"), "stars", "regression")
    assert (guess.text_why, guess.label_why, guess.kind_why, guess.others) == ("", "", "", ("b", "kind"))
    assert guessed(guess_columns(rows, ("a",), regression=True)) == (("a",), "stars", "regression")
    assert guessed(guess_columns(rows, ("a",), "c")) == (("a",), "c", "classification")
    with pytest.raises(DataError, match="no column 'starz'; did you mean 'stars'"):
        guess_columns(rows, (), "starz")
    with pytest.raises(DataError, match="no column 'd'"):
        guess_columns(rows, ("d",))


def test_values_keep_the_types_of_a_file(tmp_path: Path) -> None:
    """A .parquet may declare classes, and its numbers are no texts."""
    columns = {"text": TEXT, "n": list(range(ROWS)), "flag": [i % 2 == 0 for i in range(ROWS)], "none": [None] * ROWS}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    guess = guess_columns(open_rows(tmp_path / "t.parquet"))
    assert guessed(guess) == (("text",), "flag", "classification")
    declared = (
        '{"info": {"features": {"kind": {"_type": "ClassLabel", "names": ["no", "yes"]}, '
        '"text": {"_type": "Value", "dtype": "string"}}}}'
    )
    classes = pyarrow.table({"text": TEXT, "kind": [i % 2 for i in range(ROWS)]})
    classes = classes.replace_schema_metadata({"huggingface": declared})
    pyarrow.parquet.write_table(classes, tmp_path / "declared.parquet")
    guess = guess_columns(open_rows(tmp_path / "declared.parquet"))
    assert guessed(guess) == (("text",), "kind", "classification")
    assert guess.kind_why == "the file declares its classes"


def test_a_column_is_described_in_numbers(tmp_path: Path) -> None:
    texts = ["one two three", "four five six seven", " ", "one two three"]
    guess = guess_columns(open_rows(table(tmp_path / "t.csv", text=texts, label=["a", "b", "a", "b"])))
    (text,) = guess.texts
    assert (text.filled, text.values, text.longest, text.words) == (3, 2, 4, 10 / 3)
    assert text.characters == (13 + 19 + 13) / 3
