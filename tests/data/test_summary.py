"""What a run says of its data, on files that are counted by hand and by other means."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import tiny_run
from dynabert_jax.config.complete import CompleteData
from dynabert_jax.config.tasks import Task
from dynabert_jax.data import summary
from dynabert_jax.data.encode import TaskData, load_data
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.summary import SplitSummary, Understood, truncation
from dynabert_jax.data.tokenizer import Tokenizer, load_tokenizer

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "film", "##s"]
TASK = Task(name="sentences", text_columns=("text",))
NUMBERS = Task(name="numbers", text_columns=("text",), kind="regression", metrics=("pearson",))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return load_tokenizer(folder, tiny_run.MODEL)


def read(
    folder: Path, tokenizer: Tokenizer, train: Any, dev: Any = None, task: Task = TASK, **settings: Any
) -> TaskData:
    """The data of one or two lists of rows."""
    columns = [*task.text_columns, "label"]
    for split, rows in (("train", train), ("dev", dev)):
        if rows is not None:
            pandas.DataFrame(rows, columns=columns).to_csv(folder / f"{split}.csv", index=False)
            settings[f"{split}_file"] = str(folder / f"{split}.csv")
    return load_data(CompleteData(task=task, lengths=(6,), **settings), tokenizer)


def of(data: TaskData, name: str) -> SplitSummary:
    return next(one for one in data.summaries if one.name == name)


TRAIN = [("a b", "x"), ("c", "y"), ("a b c d a b", "x"), ("d", "y"), ("A  b ", "y"), ("films", "x")]


def test_counts_and_lengths(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = read(tmp_path, tokenizer, TRAIN, [("b", "x"), ("c", "x")])
    found = of(data, "train")
    assert (found.rows, found.classes, found.labels) == (6, {"x": 3, "y": 3}, ())
    assert (found.median_tokens, found.longest_tokens, found.most_tokens, found.truncated) == (4.0, 8, 6, 1)
    assert (found.repeated, found.contradicting, found.in_train) == (1, 1, 0)
    assert found.first_contradicting.endswith(f"row 5 (line 6), as {tmp_path / 'train.csv'}, row 1 (line 2)")
    assert str(found) == (
        "train: 6 rows; x 3, y 3; 4 tokens in the median and 8 at most; 0.0 % of tokens unknown; "
        "0 empty texts; 1 texts repeated"
    )
    dev = of(data, "dev")
    assert (dev.classes, dev.in_train) == ({"x": 2, "y": 0}, 1)
    assert dev.first_in_train == (
        f"the first is {tmp_path / 'dev.csv'}, row 2 (line 3), as {tmp_path / 'train.csv'}, row 2 (line 3)"
    )
    assert str(dev).endswith("; 0 empty texts; 0 texts repeated; 1 texts also in train")


def test_what_is_odd_is_warned_of_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = read(tmp_path, tokenizer, TRAIN, [("b", "x"), ("c", "x")])
    assert truncation(data.summaries) == ["texts of more than 6 tokens are truncated: 1 of 6 in train"]
    (contradicting,) = of(data, "train").warnings
    assert contradicting.startswith("train: 1 of 6 texts repeat an earlier one with another label (the first is ")
    missing, copied = of(data, "dev").warnings
    assert missing == "dev: there is no example of y: scores say nothing of them; add some"
    assert copied.startswith("dev: 1 of 2 texts are also trained on (the first is ")
    sound = read(tmp_path, tokenizer, [("a", "x"), ("b", "y")], [("c", "x"), ("d", "y"), ("c d", "x"), ("d c", "y")])
    assert [one.warnings for one in sound.summaries] == [[], []]
    assert truncation(sound.summaries) == []


def test_empty_texts_are_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pairs = Task(name="pairs", text_columns=("first", "second"))
    rows = [("a", "b", "x"), ("a", " ", "y"), ("", "c", "x"), ("", "\u00a0", "x")]
    found = of(read(tmp_path, tokenizer, rows, rows, task=pairs), "train")
    assert found.empty == 3
    assert found.warnings[0].startswith("train: 3 of 4 texts are empty; remove those that should not be")


def test_a_class_of_the_task_without_examples_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task = TASK.replace(labels=("x", "y", "z"))
    data = read(tmp_path, tokenizer, [("a", "x"), ("b", "y")], [("c", "x"), ("d", "y")], task=task)
    assert of(data, "train").warnings == ["train: there is no example of z: they are never learned; add some"]


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        ([f"id {i}" for i in range(12)], "12 of 12 labels occur once, such as 'id 0'; set kind="),
        ([*map(str, range(7)), *["7"] * 5], "7 of 12 labels occur once, such as '0'; set kind="),
        ([f"{i / 4}" for i in range(21)] * 2, "21 classes are numbers, such as '0.0'; set kind="),
        ([*"abcdef", *"ghghgh"], None),  # a half
        ([f"{i / 4}" for i in range(20)] * 2, None),
        ([f"number {i}" for i in range(21)] * 2, None),
        (["x", "y"], None),
    ],
)
def test_labels_that_are_numbers_or_names_of_rows_are_warned_of(
    labels: list[str], warning: str | None, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [(f"{'a ' * i}b", label) for i, label in enumerate(labels)]
    data = read(tmp_path, tokenizer, rows, [("c", label) for label in sorted({*labels})])
    found = [line for line in of(data, "train").warnings if "kind=" in line]
    assert [line.startswith(f"train: {warning}") for line in found] == ([] if warning is None else [True])


def test_a_class_with_a_single_example_to_score_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = read(tmp_path, tokenizer, TRAIN, [("b", "x"), ("c d", "x"), ("d c", "y")])
    assert "dev: there is one example of y: scores say next to nothing of it; add some" in of(data, "dev").warnings


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (["A-10", "A-11", "A-12"], "3 of 3 texts are single words with digits, such as 'A-10', which say little;"),
        (["a b"] * 3, "all texts are the same; check text_columns"),
        (["A-10", "A-11", "a b"], None),
        (["a", "b", "c"], None),
    ],
)
def test_texts_that_say_nothing_are_warned_of(
    texts: list[str], warning: str | None, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    data = read(tmp_path, tokenizer, list(zip(texts, "xyx", strict=True)), [("c d", "x"), ("d d", "y")])
    found = [line for line in of(data, "train").warnings if "text_columns" in line]
    assert [line.startswith(f"train: {warning}") for line in found] == ([] if warning is None else [True])


def test_labels_that_are_positions_are_said_to_be(tmp_path: Path, tokenizer: Tokenizer) -> None:
    task = TASK.replace(labels=("x", "y"))
    data = read(tmp_path, tokenizer, [("a", 0), ("b", 1)], [("c", "y"), ("d", "x")], task=task)
    assert "; x 1, y 1 (labels are positions, from 0); " in str(of(data, "train"))
    assert "; x 1, y 1; " in str(of(data, "dev"))


@pytest.mark.parametrize("unknown", [0, 1, 30])
def test_unknown_tokens_are_counted_with_their_words(
    unknown: int, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "ROWS_AT_ONCE", 7)
    rows = [(f"a w{i} b" if i % 2 and i <= 2 * unknown else "a c b", "xy"[i // 2 % 2]) for i in range(1, 61)]
    found = of(read(tmp_path, tokenizer, rows, rows), "train")
    tokens = Counter(token for text, _ in rows for token in tokenizer.base.tokenize(text))
    assert found.unknown == pytest.approx(tokens["[UNK]"] / tokens.total())
    assert found.unknown_words == tuple(f"w{i}" for i in (1, 3, 5, 7, 9)[:unknown])
    warned = [text for text in found.warnings if "does not know" in text]
    assert bool(warned) == (found.unknown > 0.05) == (unknown == 30)
    if warned:
        assert "does not know 17 % of the tokens ('w1', 'w3', 'w5', 'w7', 'w9'); use a model of this" in warned[0]


def test_a_regression_has_the_range_of_its_labels(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = read(tmp_path, tokenizer, [("a", 1.0), ("A", 2.5), ("b", -1.0)], [("c", 0.0)], task=NUMBERS)
    found = of(data, "train")
    assert (found.classes, found.labels, found.repeated, found.contradicting) == ({}, (-1.0, 2.5 / 3, 2.5), 1, 0)
    assert "; labels from -1 to 2.5, 0.833333 in the mean; " in str(found)
    assert found.warnings == []


def test_many_classes_are_not_all_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [(f"a{i}", f"c{i:02}") for i in range(30)]
    found = str(of(read(tmp_path, tokenizer, rows, rows), "train"))
    assert "c18 1, c19 1 and 10 more classes; " in found
    assert "c20" not in found


def test_copies_are_those_of_pandas(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Pairs of few texts, drawn at random."""
    rng = np.random.default_rng(0)
    pairs = Task(name="pairs", text_columns=("first", "second"))
    train, dev = ([(*rng.choice(["a", "b", "c d"], 2), str(rng.integers(2))) for _ in range(40)] for _ in range(2))
    dev += [("d", "a", "1")]
    data = read(tmp_path, tokenizer, train, dev, task=pairs)
    frames = [pandas.DataFrame(rows, columns=["first", "second", "label"]) for rows in (train, dev)]
    texts = [list(zip(frame["first"], frame["second"], strict=True)) for frame in frames]
    assert of(data, "train").repeated == pandas.Series(texts[0]).duplicated().sum()
    assert of(data, "dev").in_train == pandas.Series(texts[1]).isin(texts[0]).sum()
    first = pandas.Series(texts[0]).map(dict(zip(texts[0][::-1], frames[0]["label"][::-1], strict=True)))
    assert of(data, "train").contradicting == (first != frames[0]["label"]).sum()


def test_the_held_out_tenth_shares_no_text_with_train(tmp_path: Path, tokenizer: Tokenizer) -> None:
    texts = ["a", "b", "c", "d", "a b", "a c", "a d", "b c"]
    rows = [(text.upper() if i % 3 else text, "xy"[j % 2]) for i in range(10) for j, text in enumerate(texts)]
    data = read(tmp_path, tokenizer, rows)
    assert data.held_out
    assert [of(data, name).rows for name in ("train", "dev")] == [60, 20]
    assert of(data, "dev").in_train == 0
    assert of(data, "dev").classes == {"x": 10, "y": 10}
    assert not read(tmp_path, tokenizer, rows, rows).held_out


@pytest.mark.parametrize("limit", [1, 2])
def test_a_class_is_never_lost_by_a_limit(limit: int, tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [(f"film {i}", "x" if i in (4, 11) else "y") for i in range(20)]
    if limit == 1:
        with pytest.raises(
            DataError, match=r"train\.csv: 1 examples are used, which leave out 1 of 2 classes: [xy]; set "
        ):
            read(tmp_path, tokenizer, rows, max_train_examples=limit)
    for seed in range(5):
        data = read(tmp_path, tokenizer, rows, max_train_examples=2, split_seed=seed)
        assert of(data, "train").classes == {"x": 1, "y": 1}


def test_nothing_is_lost_in_json(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = read(tmp_path, tokenizer, TRAIN, TRAIN)
    values = json.loads(json.dumps(Understood(data.summaries, ("a new pooler",)).to_json()))
    assert values["model"] == ["a new pooler"]
    assert [split["name"] for split in values["splits"]] == ["train", "dev"]
    assert values["splits"][0]["classes"] == {"x": 3, "y": 3}
    assert Understood(data.summaries, ("a new pooler",)).lines == [
        *map(str, data.summaries), "model: a new pooler",
    ]  # fmt: skip
