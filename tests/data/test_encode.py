"""Files are written by pandas, pyarrow and the standard library, and encoded with a tokenizer of ten words."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from dynabert_jax.config.complete import CompleteData
from dynabert_jax.config.tasks import TASKS, Task, task
from dynabert_jax.data.encode import Split, load_data
from dynabert_jax.data.rows import LONGEST_CELL, DataError
from dynabert_jax.data.texts import read_texts
from dynabert_jax.data.tokenizer import Tokenizer, load_tokenizer
from full_disk import files_up_to
from tiny_run import MODEL

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", '"', "na", "null", "é", ","]
ID = {token: i for i, token in enumerate(VOCABULARY)}
CLS, SEP = ID["[CLS]"], ID["[SEP]"]

SENTENCES = Task(name="sentences", text_columns=("text",), labels=("bad", "good"))
PAIRS = Task(name="pairs", text_columns=("first", "second"), labels=("bad", "good"))
NUMBERS = Task(name="numbers", text_columns=("text",), kind="regression", metrics=("pearson",))
UNNAMED = Task(name="unnamed", text_columns=("text",))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return load_tokenizer(folder, MODEL)


def config(chosen: Task, max_length: int = 16, **source: Any) -> CompleteData:
    return CompleteData(task=chosen, lengths=(max_length,), **source)


def ids(sentence: str) -> list[int]:
    return [CLS, *(ID[word] for word in sentence.split()), SEP]


def write(path: Path, content: str) -> str:
    path.write_bytes(content.encode())
    return str(path)


def lists(arrays: Any) -> list[list[int]]:
    return [array.tolist() for array in arrays]


# Reading

FRAME = pandas.DataFrame(
    {"id": [7, 8, 9, 10], "text": ["a b", "NA", "", "null , d"], "label": ["good", "bad", "bad", "good"]}
)


def write_csv(path: Path) -> None:
    FRAME.to_csv(path, index=False)


def write_tsv(path: Path) -> None:
    FRAME.to_csv(path, index=False, sep="\t", quoting=csv.QUOTE_NONE)


def write_jsonl(path: Path) -> None:
    FRAME.to_json(path, orient="records", lines=True)


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pandas(FRAME), path)


@pytest.mark.parametrize("writer", [write_csv, write_tsv, write_jsonl, write_parquet])
def test_every_format_gives_the_same_examples(writer: Any, tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / f"train.{writer.__name__.removeprefix('write_')}"
    writer(path)
    data = load_data(config(SENTENCES, train_file=str(path), dev_file=str(path), test_file=str(path)), tokenizer)
    assert data.labels == ("bad", "good")
    assert set(data.dev) == {"dev"}
    assert set(data.test) == {"test"}
    for split in (data.train, data.dev["dev"], data.test["test"]):
        assert lists(split.input_ids) == [ids("a b"), ids("na"), ids(""), ids("null , d")]
        assert lists(split.token_type_ids) == [[0] * 4, [0] * 3, [0] * 2, [0] * 5]
        assert split.sizes.tolist() == [4, 3, 2, 5]
        np.testing.assert_array_equal(split.labels, np.array([1, 0, 0, 1], np.int32), strict=True)
        assert split.input_ids[0].dtype == split.token_type_ids[0].dtype == np.int32


def test_a_quote_in_a_tsv_is_a_character_like_any_other(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.tsv", 'text\tlabel\n" a\tgood\nb " c\tbad\n"a"\tbad\n')
    data = load_data(config(SENTENCES, train_file=file, dev_file=file), tokenizer)
    assert lists(data.train.input_ids) == [ids('" a'), ids('b " c'), ids('" a "')]


def test_a_csv_may_quote_commas_and_line_ends(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.csv", '\ufefftext,label\r\n"a, b\r\nc",good\r\n\r\né,bad\r\n')
    data = load_data(config(SENTENCES, train_file=file, dev_file=file), tokenizer)
    assert lists(data.train.input_ids) == [ids("a , b c"), [CLS, ID["[UNK]"], SEP]]  # uncased BERT strips accents


def test_labels_may_be_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name, content in {
        "a.tsv": "text\tlabel\na\t1\nb\t0\n",
        "a.jsonl": '{"text":"a","label":1}\n{"text":"b","label":0}',
    }.items():
        file = write(tmp_path / name, content)
        data = load_data(config(SENTENCES, train_file=file, dev_file=file), tokenizer)
        assert data.train.labels.tolist() == [1, 0]


def test_whole_numbers_that_became_floats_are_ids(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """As pandas writes a column of whole numbers in which one was missing for a while."""
    file = str(tmp_path / "train.parquet")
    pandas.DataFrame({"text": ["a", "b"], "label": [1.0, 0.0]}).to_parquet(file)
    assert load_data(config(SENTENCES, train_file=file, dev_file=file), tokenizer).train.labels.tolist() == [1, 0]
    assert load_data(config(UNNAMED, train_file=file, dev_file=file), tokenizer).labels == ("0", "1")


@pytest.mark.parametrize(
    ("values", "names"),
    [(["z", "a", "z"], ("a", "z")), (["10", "9", "10"], ("9", "10")), (["1", "2", "1"], ("1", "2"))],
)
def test_a_task_without_labels_takes_those_in_train(
    values: list[str], names: tuple[str, ...], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    file = write(tmp_path / "train.csv", "text,label\n" + "".join(f"a,{value}\n" for value in values))
    data = load_data(config(UNNAMED, train_file=file, dev_file=file), tokenizer)
    assert data.labels == names
    assert data.train.labels.tolist() == [names.index(value) for value in values]


def test_a_regression_takes_numbers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.csv", "text,label\na,-1.5\nb,3\n")
    data = load_data(config(NUMBERS, train_file=file, dev_file=file), tokenizer)
    assert data.labels == ()
    np.testing.assert_array_equal(data.train.labels, np.array([-1.5, 3.0], np.float32), strict=True)


def test_a_tenth_of_train_is_held_out_where_there_is_no_dev_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.csv", "text,label\n" + "".join(f"a {i},{i}.0\n" for i in range(50)))

    def labels(seed: int) -> tuple[list[float], list[float]]:
        data = load_data(config(NUMBERS, train_file=file, split_seed=seed), tokenizer)
        return data.train.labels.tolist(), data.dev["dev"].labels.tolist()

    train, dev = labels(seed=0)
    assert (len(train), len(dev)) == (45, 5)
    assert sorted(train + dev) == list(range(50))
    assert labels(seed=0) == (train, dev)
    assert labels(seed=1) != (train, dev)
    plain = np.random.default_rng(0).permutation(50)[:5]  # as before there was a share for every class
    assert dev == sorted(plain)


def test_fewer_examples_are_drawn_on_request(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.csv", "text,label\n" + "".join(f"a,{i}.0\n" for i in range(50)))
    files = {"train_file": file, "dev_file": file, "test_file": file}
    data = load_data(config(NUMBERS, **files, max_train_examples=7, max_eval_examples=3), tokenizer)
    drawn = [data.train.labels.tolist(), data.dev["dev"].labels.tolist(), data.test["test"].labels.tolist()]
    assert [len(set(labels)) for labels in drawn] == [7, 3, 3]
    assert drawn[0] != list(range(7))


# GLUE's folders: headers as in the files of gluebenchmark.com, '|' for a tab

GLUE_FILES = {
    "cola": 'gj04|1||a " b\ngj04|0|*|c',
    "mnli": "index|promptID|pairID|genre|sentence1_binary_parse|sentence2_binary_parse|sentence1_parse|sentence2_parse|"
    "sentence1|sentence2|label1|gold_label\n"
    '0|1|1a|g|x|x|x|x|a "|b|neutral|contradiction\n1|2|2a|g|x|x|x|x|c|d|neutral|entailment',
    "mrpc": 'Quality|#1 ID|#2 ID|#1 String|#2 String\n1|1|2|a "|b\n0|3|4|c|d',
    "qnli": 'index|question|sentence|label\n0|a "|b|not_entailment\n1|c|d|entailment',
    "qqp": 'id|qid1|qid2|question1|question2|is_duplicate\n0|1|2|a "|b|1\n3|4\n5|6|7|c|d|0',
    "rte": 'index|sentence1|sentence2|label\n0|a "|b|not_entailment\n1|c|d|entailment',
    "sst2": 'sentence|label\na " b |1\nc |0',
    "stsb": "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score\n"
    '0|g|f|2012|1|none|none|a "|b|5.000\n1|g|f|2012|2|none|none|c|d|1.25',
    "wnli": 'index|sentence1|sentence2|label\n0|a "|b|1\n1|c|d|0',
}
GLUE_LABELS = {"mnli": [2, 0], "stsb": [5.0, 1.25]}


@pytest.mark.parametrize("name", GLUE_FILES)
def test_a_glue_folder(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    content = GLUE_FILES[name].replace("|", "\t")
    dev_files = ["dev_matched.tsv", "dev_mismatched.tsv"] if name == "mnli" else ["dev.tsv"]
    for file in ("train.tsv", *dev_files):
        write(tmp_path / file, content)
    write(tmp_path / "test.tsv", "index\tsentence\n0\ta\n")
    data = load_data(config(task(name), glue_folder=str(tmp_path)), tokenizer)
    assert list(data.dev) == [file.removesuffix(".tsv") for file in dev_files]
    assert data.test == {}
    pair = len(task(name).text_columns) == 2
    wanted = [[*ids('a "'), ID["b"], SEP], [*ids("c"), ID["d"], SEP]] if pair else [ids('a " b'), ids("c")]
    for split in (data.train, *data.dev.values()):
        assert lists(split.input_ids) == wanted
        assert split.labels.tolist() == GLUE_LABELS.get(name, [1, 0])
    if pair:
        assert lists(data.train.token_type_ids) == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]


def test_every_glue_task_has_a_folder_above() -> None:
    assert set(GLUE_FILES) == {name for name, entry in TASKS.items() if entry.glue is not None}


def test_glues_malformed_rows_are_left_out_and_counted(
    tmp_path: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / name, "sentence\tlabel\na\t1\nb\nd\td\t1\nc\t0\n")
    data = load_data(config(task("sst2"), glue_folder=str(tmp_path)), tokenizer)
    assert lists(data.train.input_ids) == [ids("a"), ids("c")]
    assert "train.tsv: left out 2 rows with too few or too many cells" in caplog.text
    write(tmp_path / "train.tsv", "sentence\tlabel\nb\nd\td\t1\nc\tugly\n")
    with pytest.raises(DataError, match=r"train.tsv, row 1 \(line 4\): label 'ugly'"):
        load_data(config(task("sst2"), glue_folder=str(tmp_path)), tokenizer)


def test_a_glue_file_may_begin_with_a_malformed_row(
    tmp_path: Path, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train.tsv", "dev.tsv"):
        write(tmp_path / name, "sentence\tlabel\nd\td\t1\na\t1\nc\t0\n")
    data = load_data(config(task("sst2"), glue_folder=str(tmp_path)), tokenizer)
    assert lists(data.train.input_ids) == [ids("a"), ids("c")]
    assert [message.rpartition("/")[2] for message in caplog.messages] == [
        "train.tsv: left out 1 rows with too few or too many cells",
        "dev.tsv: left out 1 rows with too few or too many cells",
    ]
    write(tmp_path / "train.tsv", "sentence\tlabel\nd\td\t1\n")
    with pytest.raises(DataError, match=r"train\.tsv: the file holds no rows"):
        load_data(config(task("sst2"), glue_folder=str(tmp_path)), tokenizer)


# Hub data sets, which may also be folders


def write_hub_split(folder: Path, split: str, labels: list[int], names: list[str]) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    rows = {"text": ["a", "b", "c"][: len(labels)], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hub"
    folder.mkdir()
    write_hub_split(folder, "train", [0, 1, 1], ["good", "bad"])
    write_hub_split(folder, "validation", [1, 0], ["good", "bad"])
    return folder


def test_a_hub_data_set_names_its_classes(hub: Path, tokenizer: Tokenizer) -> None:
    data = load_data(config(UNNAMED, hub=str(hub)), tokenizer)
    assert data.labels == ("good", "bad")
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.dev["dev"].labels.tolist() == [1, 0]
    assert data.test == {}


def test_the_tasks_order_of_classes_wins_by_name(hub: Path, tokenizer: Tokenizer) -> None:
    data = load_data(config(SENTENCES, hub=str(hub)), tokenizer)
    assert data.labels == ("bad", "good")
    assert data.train.labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("labels", "names"), [([1, 0], {"test"}), ([-1, -1], set())])
def test_a_test_split_counts_if_it_has_labels(
    labels: list[int], names: set[str], hub: Path, tokenizer: Tokenizer
) -> None:
    write_hub_split(hub, "test", labels, ["good", "bad"])
    assert set(load_data(config(UNNAMED, hub=str(hub)), tokenizer).test) == names


def test_a_hub_data_set_without_the_dev_split_is_refused(hub: Path, tokenizer: Tokenizer) -> None:
    (hub / "validation.parquet").unlink()
    with pytest.raises(DataError, match="has no split 'validation'; there are: train"):
        load_data(config(UNNAMED, hub=str(hub)), tokenizer)


def test_a_hub_data_set_out_of_reach_names_the_local_ways(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"'nobody/nothing:here' could not be loaded.* train_file and dev_file"):
        load_data(config(SENTENCES, hub="nobody/nothing:here"), tokenizer)


def test_the_tasks_own_hub_data_set_is_the_default(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="'nyu-mll/glue:sst2' could not be loaded"):
        load_data(config(task("sst2")), tokenizer)


def test_a_task_without_data_says_so(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="'sentences' has no data of its own; name a train_file"):
        load_data(config(SENTENCES), tokenizer)


# What cannot be used

GOOD = "text\tlabel\na\tgood\nb\tbad\n"
BAD_TABLES = [
    ("train.tsv", "", "train.tsv: the file is empty"),
    ("train.tsv", "\n\n", "train.tsv: the file holds no rows"),
    ("train.tsv", "text\tlabel\n", "train.tsv: the file holds no rows"),
    ("train.txt", GOOD, "the extension '.txt' is not supported; use .csv, .tsv, .jsonl, .parquet"),
    ("train.tsv", "txt\tid\tlabel\na\t1\tgood\n", "no column 'text'; did you mean 'txt'? there are: txt, id, label"),
    ("train.tsv", "text\tlable\na\tgood\n", "no column 'label'; did you mean 'lable'?"),
    ("train.tsv", "text\ttext\tlabel\na\ta\tgood\n", "names a column twice"),
    ("train.tsv", GOOD + "\nc\tugly\n", "row 3 (line 5): label 'ugly' is not a class; allowed: bad (0), good (1)"),
    ("train.tsv", GOOD + "c\t2\n", "row 3 (line 4): label '2' is not a class"),
    ("train.tsv", GOOD + "c\t\n", "row 3 (line 4): label is missing"),
    ("train.tsv", GOOD + "c\n", "row 3 (line 4): cells: 1, columns: 2 (text, label); a text in a .tsv cannot"),
    (
        "train.csv",
        'text,label\n"a\nb",good\na, b,bad\n',
        "row 2 (line 4): cells: 3, columns: 2 (text, label); put a text",
    ),
    ("train.csv", 'text,label\n"a,good\nb,bad\n', "line 2: unexpected end of data on line 3; close its quotes"),
    ("train.csv", 'text,label\n"a" b,good\nb,bad\n', "line 2: ',' expected after '\"'; close its quotes"),
    ("train.tsv", "text\tlabel\na\tgood\nb\tgood\n", "every example has the class 'good'"),
    ("train.csv", "text,label\n,good\n  ,bad\n", "train.csv: the column 'text' is empty in every row; name one"),
    (
        "train.csv",
        "text;label\na;good\n",
        "the header is a single cell, 'text;label', but must name text, label; sep",
    ),
    ("train.csv", GOOD, "the header is a single cell, 'text\\tlabel'"),
]
BAD_JSON_LINES = [
    ('{"text": "a", "label": 1}\n\n{"label": 0}\n', "row 2 (line 3): a text must be a string; there is none"),
    ('{"text": 1, "label": 1}\n{"text": 2, "label": 0}\n', "row 1 (line 1): a text must be a string; got 1"),
    ('{"text": "a"}\n{"text": null}\n', "row 1 (line 1): no column 'label'; did you mean 'text'? there are: text"),
    ('{"text": null, "label": 0}\n', "row 1 (line 1): a text must be a string; there is none"),
    ('{"label": "good"}\n{"text": "b", "label": "bad"}\n', "row 1 (line 1): no column 'text'; did you mean 'label'?"),
    ('{"text": "a", "label": "good"}\n{"text": "b"}\n', "row 2 (line 2): label is missing"),
    ('{"text": "a", \n', "row 1 (line 1): not JSON ("),
    ('{"text": "\\ud800 x", "label": 1}\n', "row 1 (line 1): 'text' is not valid Unicode: '\\ud800 x'"),
    ('{"text": "a", "label": "\\ud800"}\n', "row 1 (line 1): label '\\ud800' is not a class"),
    ('{"txt": "a", "label": 0}\n', "no column 'text'; did you mean 'txt'?"),
    ('{"text": "a", "label": 1}\n{"text": "b", "label": NaN}\n', "row 2 (line 2): label is missing"),
    ('{"text": ["a", "b"], "label": 1}\n', "row 1 (line 1): a text must be a string; got ['a', 'b']"),
    ('{"text": "a", "label": [1]}\n', "row 1 (line 1): label [1] is not a class"),
    ('{"text": "", "label": 1}\n{"text": " ", "label": 0}\n', "the column 'text' is empty in every row"),
    ('[\n{"text": "a",\n"label": 1},\n{"text": "b",\n"label": 7}\n]', "row 2: label 7 is not a class"),
    ('[\n{"text": "a", "label": 1}\n{"text": "b", "label": 0}]', "not JSON (Expecting ',' delimiter: line 3 column 1"),
    ("[1]", "row 1: a JSON object is needed; got 1; write one JSON object per line"),
    ("[]", "the file holds no rows"),
]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *BAD_TABLES,
        *(("train.jsonl", content, message) for content, message in BAD_JSON_LINES),
        ("train.parquet", "no parquet", "not a readable .parquet file: "),
    ],
)
def test_what_cannot_be_used_is_named_with_its_place(
    name: str, content: str, message: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        load_data(config(SENTENCES, train_file=file), tokenizer)
    assert message in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("train.csv", "text,label\ncliché,good\n"), ("train.jsonl", '{"text": "cliché", "label": "good"}\n')],
)
def test_text_that_is_not_utf_8_is_refused(name: str, content: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=rf"{name}: not UTF-8 .*; save it as UTF-8"):
        load_data(config(SENTENCES, train_file=str(tmp_path / name)), tokenizer)


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "train.csv", "text,label\na,good\n")

    def forbidden(path: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(
        DataError, match=r"train.csv: cannot be read \(.*Permission denied.*\); choose a file that you can"
    ):
        load_data(config(SENTENCES, train_file=file), tokenizer)


def test_a_long_text_is_read_and_an_endless_one_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The csv module of Python stops at 131,072 characters, which a report or a book has."""
    book = "b " * 100_000
    file = write(tmp_path / "train.csv", f'text,label\na,good\n"{book}",bad\n')
    assert read_texts(config(SENTENCES, train_file=file, dev_file=file)).train.texts[1] == (book,)
    endless = write(tmp_path / "train.csv", f'text,label\na,good\n"{"b" * LONGEST_CELL}b,bad\n')
    with pytest.raises(DataError, match=r"line 3: field larger than field limit \(16777216\); close its quotes"):
        load_data(config(SENTENCES, train_file=endless), tokenizer)


def test_a_folder_is_no_file(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"is a folder; name a file \(\.csv, \.tsv, \.jsonl, \.parquet\)"):
        load_data(config(SENTENCES, train_file=str(tmp_path)), tokenizer)


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    FRAME[:0].to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train.parquet: the file holds no rows"):
        load_data(config(SENTENCES, train_file=str(tmp_path / "train.parquet")), tokenizer)


def test_a_parquet_file_of_times_that_python_has_no_room_for_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    labels = pyarrow.array([2**62, 0], pyarrow.duration("s"))
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": labels}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet: a value is out of range .*labels are words or numbers"):
        load_data(config(SENTENCES, train_file=str(tmp_path / "train.parquet")), tokenizer)


def test_a_column_that_is_empty_in_one_split_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    train = write(tmp_path / "train.csv", "first,second,label\na,b,good\nb,,bad\n")
    dev = write(tmp_path / "dev.csv", "first,second,label\na,,good\nb,,bad\n")
    assert len(load_data(config(PAIRS, train_file=train, dev_file=train), tokenizer).train) == 2
    with pytest.raises(DataError, match=r"dev.csv: the column 'second' is empty in every row"):
        load_data(config(PAIRS, train_file=train, dev_file=dev), tokenizer)


def test_a_task_without_labels_takes_no_lists_for_classes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.jsonl", '{"text": "a", "label": [0]}\n{"text": "b", "label": [1]}\n')
    with pytest.raises(DataError, match=r"row 1 \(line 1\): the label must be one word or number; got \[0\]"):
        load_data(config(UNNAMED, train_file=file), tokenizer)


def test_a_task_without_labels_takes_no_half_characters_for_classes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "label": "\\udfff"}\n')
    with pytest.raises(
        DataError, match=r"row 2 \(line 2\): the label '\\udfff' is not valid Unicode text; fix the label"
    ):
        load_data(config(UNNAMED, train_file=file), tokenizer)


def test_a_file_that_is_not_there_is_named_before_any_is_read(tmp_path: Path, tokenizer: Tokenizer) -> None:
    bad = write(tmp_path / "train.tsv", "nothing\nof use\n")
    with pytest.raises(DataError, match=r"dev\.tsv: no such file"):
        load_data(config(SENTENCES, train_file=bad, dev_file=str(tmp_path / "dev.tsv")), tokenizer)


@pytest.mark.parametrize("value", ["nan", "inf", "1e300", "much", ""])
def test_a_regression_needs_finite_numbers(value: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.csv", f"text,label\na,1\nb,{value}\n")
    with pytest.raises(DataError, match=rf"row 2 \(line 3\): the label must be a finite number; got '{value}'"):
        load_data(config(NUMBERS, train_file=file), tokenizer)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "null", "true", "[1]"])
def test_a_regression_needs_finite_numbers_in_json_too(value: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.jsonl", f'{{"text": "a", "label": 1}}\n{{"text": "b", "label": {value}}}\n')
    with pytest.raises(DataError, match=r"row 2 \(line 2\): the label must be a finite number; got"):
        load_data(config(NUMBERS, train_file=file), tokenizer)


def test_a_class_that_train_does_not_have_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    train = write(tmp_path / "train.tsv", GOOD)
    dev = write(tmp_path / "dev.tsv", "text\tlabel\na\tother\n")
    with pytest.raises(DataError, match=r"dev.tsv, row 1 \(line 2\): label 'other' is not a class; allowed: bad, good"):
        load_data(config(UNNAMED, train_file=train, dev_file=dev), tokenizer)


def test_one_row_cannot_be_held_out_from(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.csv", "text,label\na,1\n")
    with pytest.raises(DataError, match="one row cannot be divided into train and dev"):
        load_data(config(NUMBERS, train_file=file), tokenizer)


def test_a_task_outside_glue_has_no_glue_folder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="'sentences' has no GLUE layout"):
        load_data(config(SENTENCES, glue_folder=str(tmp_path)), tokenizer)


# Encoding


def test_long_texts_are_truncated_and_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    train = write(tmp_path / "train.tsv", "text\tlabel\na b c d\tgood\na b c\tbad\nd c b a a\tbad\n")
    dev = write(tmp_path / "dev.tsv", GOOD)
    data = load_data(config(SENTENCES, max_length=5, train_file=train, dev_file=dev), tokenizer)
    assert lists(data.train.input_ids) == [ids("a b c"), ids("a b c"), ids("d c b")]
    assert data.train.whole_sizes is not None
    assert data.train.whole_sizes.tolist() == [6, 5, 7]
    assert data.summaries[0].truncated == 2


def test_of_a_pair_the_longer_sentence_is_shortened(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = write(tmp_path / "train.tsv", "first\tsecond\tlabel\na b c d\tb\tgood\nb\ta b c d\tbad\n")
    data = load_data(config(PAIRS, max_length=6, train_file=file, dev_file=file), tokenizer)
    assert lists(data.train.input_ids) == [[*ids("a b"), ID["b"], SEP], [*ids("b"), ID["a"], ID["b"], SEP]]
    assert lists(data.train.token_type_ids) == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]


def test_many_texts_keep_their_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    words = np.random.default_rng(0).choice(["a", "b", "c d"], 2500).tolist()
    file = write(tmp_path / "train.csv", "text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(words)))
    data = load_data(config(SENTENCES, train_file=file, dev_file=file), tokenizer)
    assert lists(data.train.input_ids) == [ids(text) for text in words]


@pytest.fixture
def roberta_folder(tmp_path: Path) -> Path:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "b": 6, "Ġ": 7, "Ġb": 8}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nĠ b\n", encoding="utf-8")
    return tmp_path


def test_a_tokenizer_without_token_types_gives_zeros(roberta_folder: Path) -> None:
    file = write(roberta_folder / "train.tsv", "first\tsecond\tlabel\na b\tb\tgood\nb\ta\tbad\n")
    data = load_data(config(PAIRS, train_file=file, dev_file=file), load_tokenizer(roberta_folder, MODEL))
    assert lists(data.train.input_ids) == [[0, 5, 8, 2, 2, 6, 2], [0, 6, 2, 2, 5, 2]]
    assert lists(data.train.token_type_ids) == [[0] * 7, [0] * 6]


def test_a_saved_tokenizer_loads_as_hugging_face_loads_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.base.save_pretrained(tmp_path)
    text = 'a B, "c d" é'
    assert (
        load_tokenizer(tmp_path, MODEL).base(text)["input_ids"]
        == AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"]
    )


@pytest.mark.parametrize("files", [[], ["tokenizer_config.json"], ["vocab.json"]])
def test_a_folder_without_a_vocabulary_is_refused(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=r"no tokenizer; add a tokenizer.json, a vocab.txt"):
        load_tokenizer(tmp_path, MODEL)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "<html>no such page</html>", "version https://git-lfs", "[" * 100_000]
)
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_named_with_the_cure(
    name: str, content: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    tokenizer.base.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(
        DataError, match=rf"{tmp_path / name}: the tokenizer cannot be read \(.*\); copy or download it"
    ):
        load_tokenizer(tmp_path, MODEL)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"version": "1.0", "added_tokens": [], "model": {"type": "unheard of"}}'),
        ("tokenizer_config.json", '{"tokenizer_class": 3}'),
        ("tokenizer_config.json", '{"tokenizer_class": "BertTokenizer", "model_max_length": "long"}'),
    ],
)
def test_a_tokenizer_with_other_content_is_named(name: str, content: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.base.save_pretrained(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{tmp_path}: the tokenizer cannot be read \(.*\); copy or download it"):
        load_tokenizer(tmp_path, MODEL)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_damaged_vocabulary_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"{tmp_path}: the tokenizer cannot be read \(.*\); copy or download it"):
        load_tokenizer(tmp_path, MODEL)


@pytest.mark.parametrize(("name", "content"), [("vocab.json", '{"<s>": 0, "<pa'), ("merges.txt", "a b c\nd\n")])
def test_a_damaged_vocabulary_of_pairs_is_named(name: str, content: str, roberta_folder: Path) -> None:
    (roberta_folder / name).write_text(content)
    with pytest.raises(DataError, match=r"the tokenizer cannot be read .*; copy or download it"):
        load_tokenizer(roberta_folder, MODEL)


def test_a_tokenizer_that_brings_code_is_refused_without_a_question(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.base.save_pretrained(tmp_path)
    own_code = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own_code))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    with pytest.raises(DataError, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path, MODEL)
    assert not (tmp_path / "was_run").exists()


# What was read


def split(ids: list[list[int]], types: list[list[int]], labels: list[int]) -> Split:
    return Split("train", *([np.array(row, np.int32) for row in rows] for rows in (ids, types)), np.array(labels))


def test_a_fingerprint_tells_one_set_of_examples_from_another() -> None:
    ids, types = [[1, 2, 3], [4]], [[0, 0, 1], [0]]
    different = [
        split(ids, types, [0, 1]),
        split([[1, 2, 5], [4]], types, [0, 1]),
        split([[1, 2], [3, 4]], [[0, 0], [1, 0]], [0, 1]),  # the same tokens, otherwise divided
        split(ids, [[0, 1, 1], [0]], [0, 1]),
        split(ids, types, [0, 0]),
        split(ids[::-1], types[::-1], [1, 0]),
    ]
    assert len({examples.fingerprint for examples in different}) == len(different)
    assert split(ids, types, [0, 1]).fingerprint == different[0].fingerprint


def test_reading_needs_no_room_on_the_disk(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(4000)))
    pandas.read_csv(tmp_path / "train.csv").to_parquet(tmp_path / "train.parquet")
    for name in ("train.csv", "train.parquet"):
        with files_up_to(1000):
            texts = read_texts(config(SENTENCES, train_file=str(tmp_path / name)))
        assert len(texts.train.texts) == 3600
