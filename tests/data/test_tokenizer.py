"""What a tokenizer's files say counts, in a known order; what they cannot mean is refused; and it is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers

import tiny_texts
from dynabert_jax.data import tokenizer as module
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer import Tokenizer, is_unknown, load_tokenizer, tokenize
from dynabert_jax.export.folder import write_tokenizer

MODEL = tiny_texts.config("bert").replace(vocab_size=200)
CASED = (*tiny_texts.VOCABULARY, "Film", "É")
TEXT = "Film É"


def write(folder: Path, *, changes: Any = None, settings: Any = None, files: str = "both") -> Path:
    """A tokenizer with upper-case words, whose normalizer and settings are changed; an older and a newer file."""
    (folder / "vocab.txt").write_text("\n".join(CASED) + "\n", encoding="utf-8")
    transformers.BertTokenizer.from_pretrained(folder, do_lower_case=False).save_pretrained(folder)
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    if changes is not None:
        values["normalizer"].update(changes)
    file.write_text(json.dumps(values))
    (folder / "tokenizer_config.json").unlink()
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    for name, kind in (("vocab.txt", "old"), ("tokenizer.json", "new")):
        if files not in ("both", kind):
            (folder / name).unlink()
    return folder


def words(tokenizer: Tokenizer, text: str = TEXT) -> list[str]:
    (tokens,) = tokenize(tokenizer, [(text,)])
    names: list[str] = tokenizer.base.convert_ids_to_tokens(tokens.input_ids)
    return names[1:-1]


AS_IT_IS, LOWER = ["Film", "É"], ["film", "e"]


@pytest.mark.parametrize("settings", [None, {}, {"tokenizer_class": "BertTokenizer"},
                                      {"tokenizer_class": "PreTrainedTokenizerFast"}])  # fmt: skip
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, AS_IT_IS),
        ({"lowercase": True}, LOWER),
        ({"lowercase": True, "strip_accents": False}, ["film", "[UNK]"]),
        ({"strip_accents": True}, ["Film", "[UNK]"]),
    ],
)
def test_the_normalizer_of_tokenizer_json_counts(
    settings: Any, changes: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    """It is what the tokenizers library itself makes of the file."""
    from tokenizers import Tokenizer as Backend

    folder = write(tmp_path, changes=changes, settings=settings, files="new")
    tokenizer = load_tokenizer(folder, MODEL)
    assert words(tokenizer) == expected
    assert Backend.from_file(str(folder / "tokenizer.json")).encode(TEXT).tokens[1:-1] == expected


@pytest.mark.parametrize(("lower", "expected"), [(True, LOWER), (False, AS_IT_IS)])
def test_a_setting_of_its_own_comes_before_and_is_said(lower: bool, expected: list[str], tmp_path: Path) -> None:
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    folder = write(tmp_path, changes={"lowercase": not lower}, settings=settings, files="new")
    tokenizer = load_tokenizer(folder, MODEL)
    assert words(tokenizer) == expected
    assert words(tokenizer) == transformers.AutoTokenizer.from_pretrained(folder).tokenize(TEXT)
    assert tokenizer.assumed[0].startswith("tokenizer_config.json counts: do_lower_case is")


def test_a_setting_that_the_class_ignores_is_said(tmp_path: Path) -> None:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}
    folder = write(tmp_path, settings=settings, files="new")
    tokenizer = load_tokenizer(folder, MODEL)
    assert words(tokenizer) == transformers.AutoTokenizer.from_pretrained(folder).tokenize(TEXT) == AS_IT_IS
    assert tokenizer.assumed[0].startswith("tokenizer.json counts: do_lower_case is true")


@pytest.mark.parametrize("part", [{"type": "Lowercase"}, None])
def test_another_kind_of_normalizer_counts_too(part: Any, tmp_path: Path) -> None:
    folder = write(tmp_path, settings={"tokenizer_class": "BertTokenizer"}, files="new")
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(values | {"normalizer": part}))
    tokenizer = load_tokenizer(folder, MODEL)
    assert words(tokenizer) == (AS_IT_IS if part is None else ["film", "[UNK]"])
    assert "where it differs from what BertTokenizer makes: normalizer" in tokenizer.assumed[0]


@pytest.mark.parametrize("settings", [None, {}, {"tokenizer_class": "BertTokenizer"}])
def test_a_vocabulary_with_upper_case_words_is_cased(
    settings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(write(tmp_path, settings=settings, files="old"), MODEL)
    assert words(tokenizer) == AS_IT_IS
    assert tokenizer.assumed == ("vocab.txt has upper-case words, so the tokenizer is taken for cased",)
    assert 'if it is not, add a tokenizer_config.json with "do_lower_case": true' in caplog.text


def test_a_vocabulary_without_them_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(tiny_texts.VOCABULARY) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path, MODEL)
    assert words(tokenizer) == LOWER
    assert tokenizer.assumed == ("vocab.txt has no upper-case words, so the tokenizer is taken for uncased",)
    assert not caplog.messages


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "BertTokenizer"}, {"do_lower_case": True}])
@pytest.mark.parametrize("files", ["old", "new", "both"])
def test_what_an_export_writes_is_read_alike(settings: Any, files: str, tmp_path: Path) -> None:
    """By transformers, and by this package."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    tokenizer = load_tokenizer(write(tmp_path / "in", settings=settings, files=files), MODEL)
    before = words(tokenizer)
    write_tokenizer(tmp_path / "out", tokenizer, 16)
    assert words(load_tokenizer(tmp_path / "out", MODEL)) == before
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").tokenize(TEXT) == before


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({"truncation_side": "left"}, "film plot Film bad", ["Film", "bad"]),
        ({"split_special_tokens": True}, "[SEP]", ["[", "[UNK]"]),
        ({"extra_special_tokens": ["[NEW]"]}, "[NEW] Film", ["[NEW]", "Film"]),
        ({"added_tokens_decoder": {"150": {"content": "good film", "special": False}}}, "good film Film",
         ["good film", "Film"]),
    ],
)  # fmt: skip
def test_other_settings_are_kept_where_tokenizer_json_counts(
    settings: Any, text: str, expected: list[str], tmp_path: Path
) -> None:
    """In the class that transformers falls back to, and in an export."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    folder = write(tmp_path / "in", settings={"tokenizer_class": "BertTokenizer"} | settings)
    tokenizer = load_tokenizer(folder, MODEL)
    assert "tokenizer.json counts, where it differs" in tokenizer.assumed[0]
    write_tokenizer(tmp_path / "out", tokenizer, 16)
    written = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    bases = (tokenizer.base, load_tokenizer(tmp_path / "out", MODEL).base, written)
    ids = [base(text, truncation=True, max_length=4)["input_ids"][1:-1] for base in bases]
    assert [base.convert_ids_to_tokens(row) for base, row in zip(bases, ids, strict=True)] == [expected] * 3


@pytest.mark.parametrize("side", ["left", "right"])
def test_tokenizer_json_alone_truncates_as_the_run_did(side: str, tmp_path: Path) -> None:
    """Read by the library that users of exports in ONNX and StableHLO have."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    tokenizer = load_tokenizer(write(tmp_path / "in", settings={"truncation_side": side}), MODEL)
    texts = ("good film bad film plot", "plot " * 9)
    expected = [tokenize(tokenizer, [(text,)], 5)[0].input_ids.tolist() for text in texts]
    write_tokenizer(tmp_path / "out", tokenizer, 5)
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert [alone.encode(text).ids for text in texts] == expected


def test_a_text_without_any_token_is_refused(tmp_path: Path) -> None:
    """Its answer would depend on the length of the padding."""
    folder = write(tmp_path, settings={"tokenizer_class": "PreTrainedTokenizerFast"})
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": None}))
    tokenizer = load_tokenizer(folder, MODEL)
    assert len(tokenize(tokenizer, [("good film",)])[0].input_ids) == 2
    assert [is_unknown(tokenizer, word) for word in ("good", "\u2603", " ")] == [False, True, False]
    with pytest.raises(
        DataError, match=r"adds no special tokens and makes no token of .+, so there is nothing to answer"
    ):
        tokenize(tokenizer, [("good film",), (" ",)])


@pytest.mark.parametrize(
    ("model", "number"),
    [
        (tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"), 1),
        (tokenizers.models.WordPiece({"a": 0, "?": 1}, unk_token="?"), 1),
        (tokenizers.models.BPE({"a": 0, "?": 1}, [], unk_token="?"), 1),
        (tokenizers.models.Unigram([("a", 0.0), ("?", -1.0)], unk_id=1), 1),
        (tokenizers.models.BPE({"a": 0, "?": 1}, []), None),
    ],
)
def test_what_is_unknown_is_known_without_a_setting(model: Any, number: int | None, tmp_path: Path) -> None:
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = load_tokenizer(tmp_path, MODEL)
    assert (tokenizer.base.unk_token_id, tokenizer.unknown_id) == (None, number)
    assert is_unknown(tokenizer, "b") == (number is not None)


def test_a_vocabulary_of_another_model_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path)
    expected = words(load_tokenizer(folder, MODEL))
    (folder / "vocab.txt").write_text("\n".join(reversed(CASED)) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(folder, MODEL)
    assert words(tokenizer) == expected
    assert "tokenizer.json counts: vocab.txt has" in tokenizer.assumed[-1]
    assert "remove the file that is not the model's" in caplog.text


# What cannot be meant, and foreign failures


def with_settings(folder: Path, **changes: Any) -> Path:
    tiny_texts.write_model(folder, MODEL.replace(vocab_size=len(tiny_texts.VOCABULARY)), **changes)
    return folder


@pytest.mark.parametrize("value", [1, 3, 0, -5, 20.5, True])
def test_a_limit_that_no_text_fits_into_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer_config\.json: model_max_length is .*; it must be a whole number"):
        load_tokenizer(with_settings(tmp_path, model_max_length=value), MODEL)


@pytest.mark.parametrize(("value", "limit"), [(20, 20), (20.0, 20), (1e30, 2**62), (10**30, 2**62), (None, 2**62)])
def test_other_limits_are_whole_numbers(value: Any, limit: int, tmp_path: Path) -> None:
    assert load_tokenizer(with_settings(tmp_path, model_max_length=value), MODEL).base.model_max_length == limit


def change(folder: Path, **parts: Any) -> Path:
    with_settings(folder, tokenizer_class="PreTrainedTokenizerFast")
    values = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(values | parts))
    return folder


@pytest.mark.parametrize("number", [200, 2**20, 2**31, 2**32 - 1])
def test_tokens_without_an_embedding_are_refused(number: int, tmp_path: Path) -> None:
    """At once, if the library would count to their ids in everything it does."""
    vocabulary = {word: i for i, word in enumerate(tiny_texts.VOCABULARY)} | {"film": number}
    folder = change(tmp_path, model={"type": "WordPiece", "unk_token": "[UNK]", "vocab": vocabulary,
                                     "continuing_subword_prefix": "##", "max_input_chars_per_word": 100})  # fmt: skip
    if number > 2**24:
        with pytest.raises(DataError, match=f"a token has the id {number}; no model has so many tokens"):
            load_tokenizer(folder, MODEL)
        return
    tokenizer = load_tokenizer(folder, MODEL)
    assert len(tokenize(tokenizer, [("good",)])) == 1
    with pytest.raises(DataError, match=f"gives the token {number}, but the weights have only 200 tokens"):
        tokenize(tokenizer, [("good",), ("film",)])


def test_a_panic_names_the_text(tmp_path: Path) -> None:
    """An expression that tries too many ways: the library's panic is not even an `Exception`."""
    split = {"type": "Split", "pattern": {"Regex": "^(a+)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer = load_tokenizer(change(tmp_path, pre_tokenizer=split), MODEL)
    assert len(tokenize(tokenizer, [("good",), ("aaa",)])) == 2
    with pytest.raises(DataError, match=r"the tokenizer fails on \('a{40}!',\) \(PanicException: .*retry-limit"):
        tokenize(tokenizer, [("good",), ("a" * 40 + "!",), ("film",)])


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000},
        {"type": "Prepend", "prepend": "a" * 1000},
        {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 11},
            {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "."}, "content": "a" * 10}]},
        ]},
    ],
)  # fmt: skip
def test_a_normalizer_that_fills_the_memory_is_refused(normalizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: the normalizer may make a text 1\d+ times as long"):
        load_tokenizer(change(tmp_path, normalizer=normalizer), MODEL)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_key_with_two_values_is_refused(name: str, tmp_path: Path) -> None:
    file = with_settings(tmp_path) / name
    text = file.read_text()
    key = next(iter(json.loads(text)))
    file.write_text(f'{{"{key}": "another", {text.lstrip()[1:]}')
    with pytest.raises(DataError, match=rf"{name}: the tokenizer cannot be read \(it has the key '{key}' twice"):
        load_tokenizer(tmp_path, MODEL)


def test_few_characters_are_tokenized_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(with_settings(tmp_path), MODEL)
    texts = [("good " * count, "film") for count in (1, 50, 3, 0, 7, 100, 2)]
    whole = tokenize(tokenizer, texts, 12)
    monkeypatch.setattr(module, "CHARACTERS_AT_ONCE", 60)
    chunks = [list(chunk) for chunk in module._chunks(texts)]
    assert [text for chunk in chunks for text in chunk] == texts
    assert all(len(chunk) == 1 or sum(len("".join(text)) for text in chunk) <= 60 for chunk in chunks)
    assert len(chunks) > 3
    for ours, theirs in zip(tokenize(tokenizer, texts, 12), whole, strict=True):
        assert ours.input_ids.tolist() == theirs.input_ids.tolist()
        assert ours.token_type_ids.tolist() == theirs.token_type_ids.tolist()
