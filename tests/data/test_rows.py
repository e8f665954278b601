"""Files that are read a row at a time: by the rules of training, damage included."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from dynabert_jax.data.rows import DataError, open_rows


@pytest.mark.parametrize(("name", "blank"), [("in.csv", "\n\n"), ("in.csv", "   \n"), ("in.tsv", " \n\n")])
def test_blank_lines_before_the_header_are_none_of_its_rows(name: str, blank: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"{blank}text\ngood\nbad\n")
    assert [row.values for row in open_rows(tmp_path / name)] == [{"text": "good"}, {"text": "bad"}]


@pytest.mark.parametrize(("name", "text"), [("in.csv", ",,\nid,text,label\n"), ("in.tsv", "\t\nid\ttext\n")])
def test_a_row_of_empty_cells_is_a_header_without_names(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="column"):
        open_rows(tmp_path / name)


def test_a_parquet_file_that_is_damaged_behind_its_schema_is_told(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pyarrow.table({"text": [f"sentence number {i}, which is no other's" for i in range(5000)]})
    pyarrow.parquet.write_table(table, path, compression="snappy", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[200:20000] = bytes(19800)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.parquet file"):
        list(open_rows(path))


def test_json_that_is_nested_too_deep_is_told(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"row 2 \(line 2\): not JSON \(maximum recursion depth"):
        list(open_rows(tmp_path / "in.jsonl"))


def test_a_time_that_python_has_no_room_for_is_told(tmp_path: Path) -> None:
    column = pyarrow.array([2**62], pyarrow.duration("s"))
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "in.parquet")
    with pytest.raises(DataError, match=r"in\.parquet: not a readable .*\.parquet file"):
        list(open_rows(tmp_path / "in.parquet"))


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .*File name too long.*bring a file that you may read"):
        open_rows(tmp_path / ("x" * 300 + ".csv"))
