"""Models that read any text, whole folders with tokenizers, and what transformers' own pipeline answers from them."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from dynabert_jax.config import ModelConfig
from dynabert_jax.config.model import head_of
from dynabert_jax.weights.files import save_model
from tiny import random_params

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CHARACTERS = ".,!?-'\"[]<>/|人中文ñßжя"
WORDS = ("good", "bad", "film", "plot", "the", "very", "good##ness")
VOCABULARY = tuple(dict.fromkeys((
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *CHARACTERS,
)))  # fmt: skip
# Every byte is a token, so every text can be read; RoBERTa's padding is not its first token.
PIECES = {
    token: i
    for i, token in enumerate(
        ("<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "go", "od", "good", "\u0120good", "<mask>")
    )
}
MERGES = "#version: 0.2\ng o\no d\ngo od\n\u0120 good\n"
SIZES = {"bert": len(VOCABULARY), "roberta": len(PIECES)}
LONGEST = 20  # tokens

Text = str | tuple[str, str]


def config(family: str, labels: Sequence[str] = ("bad", "good"), **changes: Any) -> ModelConfig:
    values = {
        "model_type": family,
        "vocab_size": SIZES[family],
        "hidden_size": 12,
        "head_size": 3,
        "heads": (4, 4),
        "neurons": (20, 20),
        "max_position_embeddings": LONGEST + (2 if family == "roberta" else 0),
        "type_vocab_size": {"bert": 2, "roberta": 1}[family],
        "layer_norm_eps": 1e-12,
        "pad_token_id": {"bert": 0, "roberta": 1}[family],
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "labels": tuple(labels),
        "head": head_of(labels),
    }
    return ModelConfig(**(values | changes))


def write_model(folder: Path, shape: ModelConfig, tokenizer: str | None = None, **settings: Any) -> Path:
    """A model with every file of its tokenizer.

    Args:
        tokenizer: the family of the tokenizer; None: the model's own.
        settings: in its tokenizer_config.json.
    """
    import transformers

    save_model(folder, shape, random_params(shape))
    if (tokenizer or shape.model_type) == "bert":
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
        transformers.BertTokenizer.from_pretrained(folder, model_max_length=LONGEST).save_pretrained(folder)
    else:
        (folder / "vocab.json").write_text(json.dumps(PIECES))
        (folder / "merges.txt").write_text(MERGES, encoding="utf-8")
        transformers.RobertaTokenizer.from_pretrained(folder, model_max_length=LONGEST).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


def answers_of_transformers(folder: Path, texts: Sequence[Text], **options: Any) -> np.ndarray:
    """The logits of its own tokenizer and model, both asked by the folder's name alone, `[n, C]`.

    Texts are tokenized as lists of one: alone, a pair whose second sentence is empty would be taken for one sentence.
    """
    import torch

    tokenizer, model = _of_transformers(folder, **options)
    rows = []
    for text in texts:
        parts = [[part] for part in ([text] if isinstance(text, str) else text)]
        with torch.no_grad():
            rows.append(model(**tokenizer(*parts, truncation=True, return_tensors="pt")).logits[0].numpy())
    return np.stack(rows)


@functools.cache
def _of_transformers(folder: Path, **options: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    return AutoTokenizer.from_pretrained(folder), model.eval()


def answers_on_ids(folder: Path, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> np.ndarray:
    """The logits of transformers' own model on these tokens and segments, `[n, C]`."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = [
            model(input_ids=torch.tensor([one]), token_type_ids=torch.tensor([kind])).logits[0].numpy()
            for one, kind in zip(ids, types, strict=True)
        ]
    return np.stack(rows)
