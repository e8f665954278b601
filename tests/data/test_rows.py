"""Files of rows: training and prediction read the same values, and damage is reported with its place."""

import contextlib
import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_jax.config import DataConfig
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.rows import DataError, Lines, Row, open_rows, text_fault
from dynabert_jax.data.sources import Table, read_tables
from dynabert_jax.data.texts import read_texts

SENTENCES = Task(name="sentences", text_columns=("text",))


def trained_on(path: Path, task: Task = SENTENCES) -> Table:
    """The rows of a file as training reads them."""
    return read_tables(DataConfig(task=task, train_file=str(path), dev_file=str(path), lengths=(16,))).train


def values_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as prediction reads them."""
    return [dict(row.values) for row in open_rows(path)]


def assert_read_alike(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Prediction reads these rows, and training their text and label, in the same places."""
    assert values_of(path) == list(rows)
    table = trained_on(path)
    assert list(table.texts["text"]) == [row.get("text") for row in rows]
    assert list(table.labels) == [row.get("label") for row in rows]
    assert [table.place(i) for i in range(len(rows))] == [row.place for row in open_rows(path)]


# The same rows for training and for prediction

WORDS = ("NA", "null", "1.0", "01", "2021-01-10", "nan", "True", '"', '""', "'", ",", " ", "  a", "\\", "#", "é", "\0")
LINE_ENDS = ("\n", "\r", "\r\n", "\t", "\x1c", "\x85", "\u2028")


def texts(*words: str) -> st.SearchStrategy[str]:
    parts = st.sampled_from(words) | st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), max_size=4)
    return st.lists(parts, max_size=4).map("".join)


def tables(*columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.tuples(*columns).map(lambda values: dict(zip(("", "text", "label"), values, strict=True)))
    return st.lists(row, min_size=1, max_size=6)


@contextlib.contextmanager
def written(name: str, content: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        yield path


@given(tables(*[texts(*WORDS, *LINE_ENDS)] * 3), st.sampled_from(["in.csv", "in.CSV", "in.csv.gz"]), st.booleans())
def test_cells_of_a_csv_are_read_as_they_are(rows: list[dict[str, Any]], name: str, quoted: bool) -> None:
    content = io.StringIO("\ufeff" if quoted else "")
    content.seek(0, io.SEEK_END)
    writer = csv.DictWriter(content, list(rows[0]), quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writeheader()
    writer.writerows(rows)
    with written(name, content.getvalue().encode()) as path:
        assert_read_alike(path, rows)


@given(
    tables(*[texts(*WORDS)] * 3),
    st.sampled_from(["in.tsv", "in.TSV", "in.tsv.gz"]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n  \n"]),
)
def test_cells_of_a_tsv_are_read_as_they_are(rows: list[dict[str, Any]], name: str, end: str) -> None:
    content = end.join("\t".join(cells) for cells in (rows[0], *(row.values() for row in rows)))
    with written(name, content.encode()) as path:
        assert_read_alike(path, rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts(*WORDS, *LINE_ENDS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts(*WORDS), inner, max_size=2),
    max_leaves=4,
)


@given(
    tables(JSON, JSON, JSON),
    st.sets(st.sampled_from(["", "text", "label"])),
    st.sampled_from(["in.jsonl", "in.JSONL", "in.jsonl.gz"]),
    st.booleans(),
)
def test_values_of_a_jsonl_keep_their_types(
    rows: list[dict[str, Any]], missing: set[str], name: str, one_list: bool
) -> None:
    for key in missing if len(rows) > 1 else ():
        del rows[-1][key]
    content = json.dumps(rows, indent=1) if one_list else "\n\n".join(json.dumps(row) for row in rows)
    with written(name, content.encode()) as path:
        assert_read_alike(path, rows)
        assert repr(values_of(path)) == repr(rows)  # 1, 1.0 and True are equal


@given(
    tables(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | texts(*WORDS, *LINE_ENDS),
        st.none() | st.floats(allow_nan=False),
    )
)
def test_values_of_a_parquet_keep_their_types(rows: list[dict[str, Any]]) -> None:
    types = [("", pyarrow.int64()), ("text", pyarrow.string()), ("label", pyarrow.float64())]
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema(types)), sink, row_group_size=2)
    with written("in.parquet", sink.getvalue().to_pybytes()) as path:
        assert_read_alike(path, rows)


@given(tables(*[texts(*WORDS, *LINE_ENDS)] * 3), st.sampled_from([".csv", ".jsonl"]))
def test_what_prediction_writes_is_read_as_it_was(rows: list[dict[str, Any]], extension: str) -> None:
    lines = Lines(extension, tuple(rows[0]))
    content = lines.header + "".join(lines.line(Row("in", i, None, row)) for i, row in enumerate(rows, start=1))
    with written(f"out{extension}", content.encode()) as path:
        assert values_of(path) == rows


# Columns


def test_a_jsonl_whose_unused_column_changes_its_type(tmp_path: Path) -> None:
    rows = [
        {"text": f"sentence {i}", "label": i % 2, "note": None if i < 11_000 else f"note {i}"} for i in range(11_100)
    ]
    rows[3]["note"], rows[11_050]["note"] = {"by": ["me"]}, 1.5
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert_read_alike(tmp_path / "in.jsonl", rows)


def test_dates_in_a_jsonl_stay_strings(tmp_path: Path) -> None:
    rows = [{"text": f"2021-01-{day} 10:00:00", "label": f"2021-01-{day}T00:00:00Z"} for day in range(10, 30)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert_read_alike(tmp_path / "in.jsonl", rows)


@pytest.mark.parametrize("read", [trained_on, values_of])
def test_a_jsonl_names_its_columns_in_its_first_row(read: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('\n{"label": 1}\n{"text": "good", "label": 0}\n')
    with pytest.raises(DataError, match=r"in\.jsonl, row 1 \(line 2\): no column 'text'; .+there are: label"):
        open_rows(path).check(("text",))
    with pytest.raises(DataError, match=r"in\.jsonl, row 1 \(line 2\): no column 'text'"):
        trained_on(path)
    path.write_text("[3]")
    with pytest.raises(DataError, match=r"in\.jsonl, row 1: a JSON object is needed; got 3; write one JSON object per"):
        read(path)


def test_the_index_that_pandas_writes_may_be_there(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(',text,label\n0,a lovely film,positive\n1,"slow, dull",negative\n')
    assert_read_alike(
        path,
        [
            {"": "0", "text": "a lovely film", "label": "positive"},
            {"": "1", "text": "slow, dull", "label": "negative"},
        ],
    )
    with pytest.raises(DataError, match=r"no column ''; .*there are: text, label"):
        open_rows(path).check(("",))


@pytest.mark.parametrize("names", [("", ""), ("note", "note")])
def test_an_unused_column_may_be_named_twice(names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(",".join(("text", "label", *names)) + "\ngood,1,,\nbad,0,x,y\n")
    table = trained_on(path)
    assert (table.texts["text"], table.labels) == (["good", "bad"], ["1", "0"])
    with pytest.raises(DataError, match=r"in\.csv: the header names a column twice: '(note)?' in"):
        open_rows(path)  # prediction writes all of them
    path.write_text("text,label,text\ngood,1,bad\n")
    with pytest.raises(DataError, match="the header names a column twice: 'text'"):
        trained_on(path)


def test_classes_that_a_parquet_declares_are_training_labels_by_their_names(tmp_path: Path) -> None:
    """The rows themselves keep their values."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "in.parquet")
    path = tmp_path / "in.parquet"
    assert open_rows(path).classes == {"label": ["bad", "good"]}
    assert values_of(path) == [{"text": "a", "label": 1}, {"text": "b", "label": 0}, {"text": "c", "label": -1}]
    assert list(trained_on(path).labels) == ["good", "bad", None]


@pytest.mark.parametrize(
    "metadata",
    [
        "not json",
        "[1]",
        '{"info": 3}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 5}}}}',
        '{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1]}}}}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:70],
)
def test_damaged_metadata_of_a_parquet_are_reported(tmp_path: Path, metadata: str) -> None:
    table = pyarrow.table({"text": ["a"], "label": [0]}).replace_schema_metadata({b"huggingface": metadata.encode()})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(
        DataError, match=r"rows\.parquet: the metadata of `datasets` are damaged \(.+; write the file again"
    ):
        open_rows(tmp_path / "rows.parquet")


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    for name in ("in[1].parquet", "in*.parquet", "in1.parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"text": [name], "label": [1]}), tmp_path / name)
        assert_read_alike(tmp_path / name, [{"text": name, "label": 1}])


def test_a_parquet_without_rows_has_none(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "in.parquet")
    assert open_rows(tmp_path / "in.parquet").columns == ("text",)
    assert values_of(tmp_path / "in.parquet") == []


# Lines


@pytest.mark.parametrize(("name", "blank"), [("in.csv", "\n\n"), ("in.csv", "   \n"), ("in.tsv", " \n\n")])
def test_blank_lines_before_the_header_are_none_of_its_rows(name: str, blank: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"{blank}text\ngood\nbad\n")
    assert values_of(tmp_path / name) == [{"text": "good"}, {"text": "bad"}]


@pytest.mark.parametrize(("name", "text"), [("in.csv", ",,\nid,text,label\n"), ("in.tsv", "\t\nid\ttext\n")])
def test_a_row_of_empty_cells_is_a_header_without_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="names a column twice: ''"):
        open_rows(tmp_path / name)


STRAY_QUOTES = [
    (
        '"A lovely film,good\na dull film,bad\n"So-so" said he,bad\n',
        r"line 2: ',' expected after '\"' on line 4; close",
    ),
    ('good film,good\n"So-so" said he,bad\nslow,bad\n', r"line 3: ',' expected after '\"'; close its quotes"),
    ('good film,good\n"two\nlines",bad\n"slow,bad\nfine,good\n', r"line 5: unexpected end of data on line 6; close"),
]


@pytest.mark.parametrize(("rows", "message"), STRAY_QUOTES)
@pytest.mark.parametrize("read", [trained_on, values_of])
def test_a_stray_quote_is_refused_with_its_line(
    read: Callable[[Path], Any], rows: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text(f"text,label\n{rows}")
    with pytest.raises(DataError, match=rf"in\.csv, {message}"):
        read(tmp_path / "in.csv")


# Quotes in a .tsv, which are ordinary characters

FRAME = pandas.DataFrame(
    {"text": ['a film she called "fine"', 'a "so-so" one', "a dull one"], "label": ["b", "a", "b"]}
)
WRITERS: dict[str, Callable[[Path], None]] = {
    "minimal": lambda path: FRAME.to_csv(path, sep="\t", index=False),
    "not numbers": lambda path: FRAME.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_NONNUMERIC),
    "all": lambda path: (
        FRAME.replace('"', "", regex=True)
        .replace("^a", '"a', regex=True)
        .replace("e$", 'e"', regex=True)
        .to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_NONE)
    ),
}


@pytest.mark.parametrize("writer", ["minimal", "all"])
@pytest.mark.parametrize("read", [trained_on, lambda path: [values_of(path), values_of(path)]])
def test_cells_that_another_program_quoted_are_reported_once_a_column(
    read: Callable[[Path], Any], writer: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    WRITERS[writer](tmp_path / "in.tsv")
    rows = open_rows(tmp_path / "in.tsv")
    for _ in range(2):
        read_as_they_stand = [row.values["text"] for row in rows]
        assert read_as_they_stand[0].startswith('"a film')
    (message,) = caplog.messages
    assert "in.tsv, row 1 (line 2): the cells of 'text' that begin with a quote" in message
    assert 'such as "a film' in message
    assert "in pandas, with quoting=csv.QUOTE_NONE" in message
    caplog.clear()
    read(tmp_path / "in.tsv")
    assert {found.partition("; ")[2] for found in caplog.messages} == {message.partition("; ")[2]}


@pytest.mark.parametrize(
    "text",
    [
        '"So-so" said he\n"a ""dull"" one"\n',  # the first quote is closed within
        '"two\n"a ""dull"" one"\n',
        '"a "dull" one"\n"a ""slow"" one"\n',
        '"a dull one"\na slow one\n',  # none is doubled, and not all have them
        '"\n"a ""slow"" one"\n',
        'a "slow" one\nthe ""plot""\n',
    ],
)
def test_quotes_that_belong_to_the_texts_are_no_reason_to_warn(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "in.tsv").write_text(f"text\n{text}")
    assert [row["text"] for row in values_of(tmp_path / "in.tsv")] == text.splitlines()
    assert caplog.messages == []


def test_a_quoted_header_of_a_tsv_says_how_to_write_it(tmp_path: Path) -> None:
    WRITERS["not numbers"](tmp_path / "in.tsv")
    with pytest.raises(
        DataError, match=r"the header's names are in quotes: \"text\", \"label\"; a \.tsv has no quoting"
    ):
        trained_on(tmp_path / "in.tsv")


def test_a_quote_after_a_space_is_reported_in_a_csv(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in.csv").write_text('label,text\n1, "good film"\n0,so so\n')
    rows = open_rows(tmp_path / "in.csv")
    for _ in range(2):
        assert [row.values["text"] for row in rows] == [' "good film"', "so so"]
    (message,) = caplog.messages
    assert "in.csv, row 1 (line 2): the cells of 'text' that begin with a quote" in message
    assert message.endswith("no space may stand before a quoted cell: remove it")
    caplog.clear()
    (tmp_path / "in.csv").write_text('label,text\n1, "good" film\n0,"so ""so"" "\n')
    values_of(tmp_path / "in.csv")
    assert caplog.messages == []


@pytest.mark.parametrize("read", [trained_on, values_of])
def test_an_object_that_names_a_value_twice_is_refused(read: Callable[[Path], Any], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 0, "text": "c"}\n')
    with pytest.raises(DataError, match=r"row 2 \(line 2\): not JSON \(it has the key 'text' twice, .+\); write one"):
        read(tmp_path / "in.jsonl")


# What is not one table of UTF-8


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.jsonl"])
def test_other_encodings_are_refused(name: str, encoding: str, tmp_path: Path) -> None:
    content = '{"text": "a", "label": "b"}\n' if name == "in.jsonl" else "text,label\na,b\n"
    (tmp_path / name).write_bytes(content.replace(",", "\t" if name == "in.tsv" else ",").encode(encoding))
    with pytest.raises(DataError, match=r"but UTF-16 or UTF-32; save it as UTF-8|NUL characters: .+ as UTF-8|not JSON"):
        trained_on(tmp_path / name)


@pytest.mark.parametrize("name", ["in.csv", "in.tsv"])
@pytest.mark.parametrize("again", ["text,label\n", "\ufefftext,label\n", "Text, LABEL\n"])
@pytest.mark.parametrize("read", [trained_on, values_of])
def test_a_header_in_the_middle_is_no_example(
    read: Callable[[Path], Any], again: str, name: str, tmp_path: Path
) -> None:
    content = f"text,label\ngood film,1\n{again}bad film,0\n".replace(",", "," if name == "in.csv" else "\t")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"row 2 \(line 3\): this is the header again; remove the line"):
        read(tmp_path / name)


@pytest.mark.parametrize("needed", [("text",), ("text", "label")])
@pytest.mark.parametrize(("name", "sign"), [("in.csv", ";"), ("in.csv", "\t"), ("in.csv", "|"), ("in.tsv", ",")])
def test_cells_that_another_sign_divides_are_refused(
    name: str, sign: str, needed: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(f"text{sign}label\ngood film{sign}1\n")
    with pytest.raises(DataError, match=r"the header is a single cell, .+; separate cells by commas in a \.csv"):
        open_rows(tmp_path / name).check(needed)


def test_a_text_with_a_nul_is_refused(tmp_path: Path) -> None:
    assert text_fault("text", "a\0b") == (
        "'text' contains a NUL character: 'a\\x00b'; the file is damaged or not UTF-8; write it again"
    )
    (tmp_path / "in.csv").write_text("text,label\ngood film,1\nbad \0\0\0,0\n")
    task = DataConfig(task=SENTENCES, train_file=str(tmp_path / "in.csv"), lengths=(16,))
    with pytest.raises(DataError, match=r"in\.csv, row 2 \(line 3\): 'text' contains a NUL character"):
        read_texts(task)


# Damage


def damaged_archives() -> dict[str, bytes]:
    whole = gzip.compress(b"text,label\n" + b"".join(b"sentence number %d,%d\n" % (i, i % 2) for i in range(5000)))
    return {
        "no archive": b"text,label\ngood,1\n",
        "cut off": whole[: len(whole) // 2],
        "another sum": whole[:-8] + bytes(8),
        "other bytes": whole[:10] + b"\xff" * 20 + whole[30:],
    }


@pytest.mark.parametrize("damage", damaged_archives())
@pytest.mark.parametrize("read", [trained_on, values_of])
def test_a_damaged_archive_is_reported(read: Callable[[Path], Any], damage: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv.gz").write_bytes(damaged_archives()[damage])
    with pytest.raises(DataError, match=r"in\.csv\.gz: not a readable \.gz file .+; compress or copy it again"):
        read(tmp_path / "in.csv.gz")


@pytest.mark.parametrize("name", ["in.parquet.gz", "in.gz", "in.csv.zip", "in"])
def test_other_extensions_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text\ngood\n")
    with pytest.raises(DataError, match=r"is not supported; use \.csv, \.tsv, \.jsonl, \.parquet; .+ as in \.csv\.gz"):
        open_rows(tmp_path / name)


def test_a_parquet_file_that_is_damaged_after_its_schema_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pyarrow.table({"text": [f"sentence number {i}, which is no other's" for i in range(5000)]})
    pyarrow.parquet.write_table(table, path, compression="snappy", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200:20000] = bytes(19800)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.parquet file"):
        list(open_rows(path))


def test_json_that_is_nested_too_deep_is_reported(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"row 2 \(line 2\): not JSON \(maximum recursion depth"):
        list(open_rows(tmp_path / "in.jsonl"))
    (tmp_path / "in.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"in\.jsonl: not JSON \(maximum recursion depth"):
        open_rows(tmp_path / "in.jsonl")


def test_a_time_that_python_has_no_room_for_is_reported_where_it_is_read(tmp_path: Path) -> None:
    times = pyarrow.array([2**62], pyarrow.duration("s"))
    table = pyarrow.table({"text": ["a"], "label": ["b"], "time": times})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"in\.parquet: a value is out of range"):
        list(open_rows(tmp_path / "in.parquet"))
    assert trained_on(tmp_path / "in.parquet").labels == ["b"]


def test_a_name_that_no_file_can_have_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*File name too long.*choose a file that you can read"):
        open_rows(tmp_path / ("x" * 300 + ".csv"))


@pytest.mark.parametrize(
    "declared", ["{}", '{"info": null}', '{"info": {"features": []}}', '{"info": {"features": null}}']
)
def test_a_parquet_that_declares_nothing_is_read_as_it_is(declared: str, tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a"], "label": [1]}).replace_schema_metadata({"huggingface": declared})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    assert trained_on(tmp_path / "in.parquet").labels == [1]
