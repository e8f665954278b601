"""A smaller vocabulary: the given texts keep their tokens, whatever the vocabulary; other words are still spelled."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

import tiny_texts
from dynabert_jax import subnetwork
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer import Tokenizer, load_tokenizer, tokenize
from dynabert_jax.data.vocabulary import with_fewer_tokens
from dynabert_jax.export.folder import write_tokenizer

BERT = tiny_texts.config("bert")
ROBERTA = tiny_texts.config("roberta")
# Texts enough to learn a vocabulary from.
LINES = Path(subnetwork.__file__).read_text(encoding="utf-8").splitlines()
TEXTS = [(line,) for line in LINES[20:40] if line.strip()]


def learned(folder: Path, family: str) -> Tokenizer:
    """A tokenizer that the tokenizers library learned from texts, of a few hundred tokens."""
    special = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "roberta": ["<s>", "<pad>", "</s>", "<unk>"]}
    if family == "bert":
        backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special[family]))
    else:
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special[family], initial_alphabet=alphabet)
        backend.train_from_iterator(LINES, trainer)
    backend.model.save(str(folder))
    cls: Any = {"bert": transformers.BertTokenizer, "roberta": transformers.RobertaTokenizer}[family]
    cls.from_pretrained(folder).save_pretrained(folder)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) + 1  # BPE: <mask> comes behind
    return load_tokenizer(folder, tiny_texts.config(family).replace(vocab_size=size))


def same_tokens(large: Tokenizer, small: Tokenizer, kept: np.ndarray, texts: Sequence[tuple[str, ...]]) -> bool:
    pairs = zip(tokenize(large, texts), tokenize(small, texts), strict=True)
    return all(np.array_equal(old.input_ids, kept[new.input_ids]) for old, new in pairs)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_the_given_texts_keep_their_tokens_and_others_are_spelled(family: str, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    large = learned(tmp_path / "large", family)
    small, kept = with_fewer_tokens(large, TEXTS)
    assert len(kept) < 0.9 * large.model.vocab_size
    assert small.model.vocab_size == len(kept) == len(small.base.get_vocab())
    assert same_tokens(large, small, kept, TEXTS)
    others = [(line,) for line in LINES if line.strip()]
    assert not same_tokens(large, small, kept, others)
    assert not any(small.unknown_id in tokens.input_ids for tokens in tokenize(small, others))
    names = [one.base.convert_ids_to_tokens(ids) for one, ids in ((large, kept.tolist()), (small, range(len(kept))))]
    assert names[0] == names[1]
    # What transformers itself reads from the folder, against what it read from the larger one.
    (tmp_path / "small").mkdir()
    write_tokenizer(tmp_path / "small", small, 64)
    theirs = [transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("large", "small")]
    assert type(theirs[0]) is type(theirs[1])
    for (text,) in TEXTS:
        old, new = (one(text)["input_ids"] for one in theirs)
        assert old == kept[new].tolist()
    older = {"bert": ("vocab.txt",), "roberta": ("vocab.json", "merges.txt")}[family]
    (tmp_path / "older").mkdir()
    for name in older:
        (tmp_path / "older" / name).write_bytes((tmp_path / "small" / name).read_bytes())
    cls: Any = type(theirs[0])
    assert cls.from_pretrained(tmp_path / "older")(TEXTS[0][0])["input_ids"] == theirs[1](TEXTS[0][0])["input_ids"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_vocabulary_is(seed: int, tmp_path: Path) -> None:
    """Vocabularies in which words are given up on, and every character may be missing alone."""
    draw = random.Random(seed)
    pieces = {"".join(draw.choices("abcd", k=draw.randint(1, 4))) for _ in range(30)}
    pieces = {prefix + piece for piece in pieces for prefix in draw.sample(["", "##"], draw.randint(1, 2))}
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(pieces)]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    large = load_tokenizer(tmp_path, BERT.replace(vocab_size=len(vocabulary)))
    texts = [(" ".join("".join(draw.choices("abcd", k=draw.randint(1, 7))) for _ in range(4)),) for _ in range(3)]
    small, kept = with_fewer_tokens(large, texts)
    assert same_tokens(large, small, kept, texts)


def test_a_word_that_is_given_up_on_is_given_up_on_again(tmp_path: Path) -> None:
    """Of abc, the larger vocabulary takes ab and has no ##c. With a and ##bc alone, it would be known."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "ab", "##bc", "x", "never"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    large = load_tokenizer(tmp_path, BERT.replace(vocab_size=len(vocabulary)))
    small, kept = with_fewer_tokens(large, [("abc abc",)])
    assert tokenize(small, [("abc x",)])[0].input_ids.tolist() == [2, 1, 8, 3]
    assert "never" not in small.base.get_vocab()
    assert len(kept) == 9


def test_ids_by_hand_of_bpe(tmp_path: Path) -> None:
    """good is joined of go and od, which stay with it; the token of a space and good, which was not met, does not."""
    large = load_tokenizer(tiny_texts.write_model(tmp_path / "large", ROBERTA), ROBERTA)
    small, kept = with_fewer_tokens(large, [("good",)])
    lost = set(range(ROBERTA.vocab_size)) - set(kept.tolist())
    assert [large.base.convert_ids_to_tokens(i) for i in lost] == ["\u0120good"]
    assert small.base.tokenize("good good") == ["good", "\u0120", "good"]
    state = json.loads(small.base.backend_tokenizer.to_str())
    assert state["model"]["merges"] == [["g", "o"], ["o", "d"], ["go", "od"]]
    assert (small.base.pad_token_id, small.model.pad_token_id, small.base.mask_token_id) == (1, 1, len(kept) - 1)


def test_positions_count_from_the_padding_token_of_roberta(tmp_path: Path) -> None:
    """So its id stays, and the tokens before it, which no text has."""
    tokens = [*(f"unused{i}" for i in range(5)), "<pad>", "<s>", "</s>", "<unk>", "<mask>", *"abc"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    transformers.RobertaTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    config = ROBERTA.replace(vocab_size=len(tokens), pad_token_id=5)
    small, kept = with_fewer_tokens(load_tokenizer(tmp_path, config), [("abc",)])
    assert (small.model.pad_token_id, small.base.pad_token_id) == (5, 5)
    assert kept[:6].tolist() == [0, 1, 2, 3, 4, 5]


def test_tokens_that_were_added_stay(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(tiny_texts.VOCABULARY) + "\n", encoding="utf-8")
    base = transformers.BertTokenizer.from_pretrained(tmp_path)
    base.add_tokens(["@user", "\U0001f600"])
    base.add_special_tokens({"additional_special_tokens": ["[URL]"]})
    base.save_pretrained(tmp_path)
    large = load_tokenizer(tmp_path, BERT.replace(vocab_size=len(base)))
    small, kept = with_fewer_tokens(large, [("good film",)])
    text = [("@user good [URL] film \U0001f600",)]
    assert len(kept) < len(base)
    assert same_tokens(large, small, kept, text)
    assert len(tokenize(small, text)[0].input_ids) == 7


def test_pairs_and_long_texts_are_read_whole(tmp_path: Path) -> None:
    large = load_tokenizer(tiny_texts.write_model(tmp_path, BERT), BERT)
    small, kept = with_fewer_tokens(large, [("the " * 100 + "film", "plot")])
    words = {word for word in tiny_texts.WORDS if word in small.base.get_vocab()}
    assert words == {"the", "film", "plot"}
    assert same_tokens(large, small, kept, [("the film", "plot")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Unigram", "unk_id": 1, "vocab": [["[PAD]", 0.0], ["[UNK]", 0.0], ["a", -1.0]]}, "kind Unigram, not"),
        ({"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[PAD]": 0, "[UNK]": 1}}, "kind WordLevel, not"),
        ({"type": "BPE", "byte_fallback": True, "vocab": {"[PAD]": 0, "[UNK]": 1}, "merges": []}, "byte_fallback"),
    ],
)
def test_other_kinds_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "model": change, "added_tokens": []}))
    base = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    base.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path, BERT.replace(type_vocab_size=1))
    with pytest.raises(DataError, match=f"cannot be made smaller: .*{message}"):
        with_fewer_tokens(tokenizer, [("a",)])


def test_a_padding_token_without_a_name_is_refused(tmp_path: Path) -> None:
    large = load_tokenizer(tiny_texts.write_model(tmp_path, BERT), BERT.replace(vocab_size=200, pad_token_id=150))
    with pytest.raises(DataError, match="the model's padding token is 150, and the tokenizer has no token 150"):
        with_fewer_tokens(large, [("good",)])
