"""What is wrong with a JSON text is reported by one type of error."""

import gzip
import json
from pathlib import Path

import pytest

from dynabert_jax.system.json_file import JsonError, parse, parse_object, read_object


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\ufeff{}", "not JSON"),
        ("[" * 100_000, "nested too deep"),
        ("[" * 500 + "]" * 500, "nested too deep"),
        ('{"a":' * 50_000, "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "a number that is too long"),
        ('{"a": NaN}', "has NaN"),
        ('{"a": -Infinity}', "has -Infinity"),
        ('{"a": 1, "a": 2}', "the key 'a' twice, with different values"),
        ('[{"b": {"a": true, "a": 1}}]', "the key 'a' twice"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_texts_are_refused_in_words(content: str | bytes, said: str) -> None:
    with pytest.raises(JsonError, match=said):
        parse(content)


@pytest.mark.parametrize("value", [{"a": [1, None, 1.5, "é", {"b": True}]}, [1], "x", 10**30, [[[[]]]]])
def test_values_are_those_of_pythons_reader(value: object) -> None:
    assert parse(json.dumps(value)) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


def test_the_same_value_twice_is_one() -> None:
    assert parse('{"a": [1], "a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(("text", "kind"), [("[1]", "a list"), ("3", "a number"), ("null", "null"), ('"x"', "a text")])
def test_an_object_is_needed(text: str, kind: str) -> None:
    with pytest.raises(JsonError, match=rf"must be a JSON object, .* it is {kind}"):
        parse_object(text)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_object(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "b.json")
    (tmp_path / "a.json").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(JsonError, match="not UTF-8"):
        read_object(tmp_path / "a.json")
