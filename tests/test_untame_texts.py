"""Whatever a text holds, the answer is that of transformers' own tokenizer and model, asked by the folder's name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_texts
from dynabert_jax.serve.predict import Predictor

pytest.importorskip("torch")

HEADS = {"two": ("bad", "good"), "five": ("1", "2", "3", "4", "5"), "number": ("score",)}
MODELS = [(family, head) for family in ("bert", "roberta") for head in HEADS]
PIECES = (
    "good", "Good", "film", " ", "  ", "\n", "\t", "\u00a0", "\u200b", "\ufeff", "\0", "[SEP]", "[CLS]", "[PAD]",
    "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<mask>", "<unk>", "[sep]", "\U0001f600", "\U0001f468\u200d\U0001f469",
    "人中文", "жя", "ñ", "n\u0303", "É", "ß", "\u0130", "עברית", "हिन्दी", "\ufdfa", "\u00ad", "...", "a" * 150,
    "good " * 30,
)  # fmt: skip
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
)
# Every kind once, whatever is drawn.
ALWAYS = ["", *PIECES, "good <pad> film", "good[PAD]film", "</s>", "a</s>b", "<pad>" * 30]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Path, Predictor]]:
    made = {}
    for family, head in MODELS:
        folder = tmp_path_factory.mktemp("models") / family
        tiny_texts.write_model(folder, tiny_texts.config(family, HEADS[head]))
        made[family, head] = folder, Predictor(folder, batch_size=8)
    return made


def assert_same(model: tuple[Path, Predictor], texts: list[tiny_texts.Text]) -> None:
    folder, predictor = model
    ours, theirs = predictor.logits(texts), tiny_texts.answers_of_transformers(folder, texts)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5, err_msg=repr(texts))


@pytest.mark.parametrize(("family", "head"), MODELS)
def test_every_kind_of_text(family: str, head: str, models: dict[tuple[str, str], tuple[Path, Predictor]]) -> None:
    assert_same(models[family, head], list(ALWAYS))
    if head == "two":
        assert_same(models[family, head], [(text, ALWAYS[-1 - i]) for i, text in enumerate(ALWAYS)])


@given(st.sampled_from(MODELS), st.lists(TEXTS, min_size=1, max_size=4))
def test_any_text(
    models: dict[tuple[str, str], tuple[Path, Predictor]], model: tuple[str, str], texts: list[str]
) -> None:
    assert_same(models[model], list(texts))


@given(st.sampled_from(MODELS), st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_any_pair(
    models: dict[tuple[str, str], tuple[Path, Predictor]], model: tuple[str, str], pairs: list[tuple[str, str]]
) -> None:
    assert_same(models[model], list(pairs))
