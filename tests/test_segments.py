"""Pairs get the segments that their model has: in training, in predictions and in every export, for every tokenizer."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import tiny_texts
from dynabert_jax.config import ModelConfig
from dynabert_jax.config.complete import CompleteData, CompleteRun
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer import load_tokenizer, tokenize
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.export.export import export_run
from dynabert_jax.export.formats import FORMATS
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.weights.files import save_model
from tiny import random_params
from tiny_run import write_csv

for package in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(package)

PAIRS = [("good film", "the plot"), ("bad", "very very bad film"), ("", "good"), ("a plot", "")]
TASK = Task(name="pairs", text_columns=("first", "second"), labels=("bad", "good"))
TWO = tiny_texts.config("bert")


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, settings of its tokenizer, which is a BERT's, and whether pairs have two segments."""

    shape: ModelConfig
    settings: dict[str, object]
    segments: bool


CASES = {
    "bert": Case(TWO, {}, segments=True),
    "generic": Case(TWO, {"tokenizer_class": "PreTrainedTokenizerFast"}, segments=True),
    "generic-5": Case(TWO, {"tokenizer_class": "TokenizersBackend"}, segments=True),
    "other-class": Case(TWO, {"tokenizer_class": "DistilBertTokenizer"}, segments=True),
    "names": Case(TWO, {"model_input_names": ["input_ids", "attention_mask"]}, segments=False),
    "one-segment": Case(TWO.replace(type_vocab_size=1), {}, segments=False),
    "one-segment-generic": Case(
        TWO.replace(type_vocab_size=1), {"tokenizer_class": "PreTrainedTokenizerFast"}, segments=False
    ),
    "roberta": Case(
        TWO.replace(model_type="roberta", type_vocab_size=1, max_position_embeddings=21), {}, segments=False
    ),
    "roberta-two": Case(TWO.replace(model_type="roberta", max_position_embeddings=21), {}, segments=True),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def run(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder, as if nothing had been trained."""
    folder = tmp_path_factory.mktemp("run")
    model = tiny_texts.write_model(folder / "pretrained", case.shape, "bert", **case.settings)
    for split in ("train", "dev"):
        rows = [(*pair, TASK.labels[i % 2]) for i, pair in enumerate(PAIRS)]
        write_csv(folder / f"{split}.csv", ("first", "second", "label"), rows)
    data = CompleteData(
        task=TASK, train_file=str(folder / "train.csv"), dev_file=str(folder / "dev.csv"), lengths=(20,), batch_size=4,
        eval_batch_size=4,
    )  # fmt: skip
    config = CompleteRun(
        model=str(model), run_dir=str(folder / "run"), data=data, importance=None, width=None, depth=None,
    )  # fmt: skip
    save_model(folder / "run" / "model", case.shape, random_params(case.shape), tokenizer_from=model)
    (folder / "run" / "config.json").write_text(config.to_json())
    row = Row(
        sub="w1_d1", width=1.0, depth=1.0, split="dev", examples=4, metric="accuracy", scores={"accuracy": 0.5},
        parameters=1, flops=1, length=20,
    )  # fmt: skip
    (folder / "run" / "results.json").write_text(json.dumps({"rows": [row.model_dump()], "provenance": {}}))
    return folder / "run"


@pytest.fixture(scope="module")
def tokens(run: Path, case: Case) -> tuple[list[list[int]], list[list[int]]]:
    """The right ids and segments, as BERT's own tokenizer gives them."""
    import transformers

    encoded = transformers.BertTokenizer.from_pretrained(run / "model")(
        *map(list, zip(*PAIRS, strict=True)), return_token_type_ids=True
    )
    assert any(map(any, encoded["token_type_ids"]))
    types = [[kind * case.segments for kind in row] for row in encoded["token_type_ids"]]
    return encoded["input_ids"], types


@pytest.fixture(scope="module")
def expected(run: Path, tokens: tuple[list[list[int]], list[list[int]]]) -> np.ndarray:
    return tiny_texts.answers_on_ids(run / "model", *tokens)


def test_training_gets_them(run: Path, tokens: tuple[list[list[int]], list[list[int]]]) -> None:
    finished = read_finished(run)
    data = load_data(finished.config.data, load_tokenizer(finished.config.model, finished.shape))
    assert [row.tolist() for row in data.train.input_ids] == tokens[0]
    assert [row.tolist() for row in data.train.token_type_ids] == tokens[1]


def test_predictions_get_them(run: Path, expected: np.ndarray) -> None:
    for folder in (run, run / "model"):
        np.testing.assert_allclose(Predictor(folder, batch_size=4).logits(PAIRS), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_every_export_gets_them(format: str, run: Path, expected: np.ndarray, tmp_path: Path) -> None:
    out = export_run(run, format, tmp_path / "out").folder
    np.testing.assert_allclose(Predictor(out, batch_size=4).logits(PAIRS), expected, rtol=0, atol=2e-5)
    if FORMATS[format].library == "transformers":
        options = {"trust_remote_code": True} if format == "hf-exact" else {}
        theirs = tiny_texts.answers_of_transformers(out, PAIRS, **options)
        np.testing.assert_allclose(theirs, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("format", ["hf", "onnx"])
def test_an_export_with_their_words_alone_gets_them(
    format: str, run: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    files = [run.parent / f"{split}.csv" for split in ("dev", "train")]
    exported = export_run(run, format, tmp_path / "out", vocabulary_of=files)
    assert exported.saving is not None
    assert exported.saving.tokens < exported.saving.tokens_before
    np.testing.assert_allclose(Predictor(exported.folder, batch_size=4).logits(PAIRS), expected, rtol=0, atol=2e-5)
    if format == "hf":
        theirs = tiny_texts.answers_of_transformers(exported.folder, PAIRS)
        np.testing.assert_allclose(theirs, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bert", ""),
        ("generic", "pairs get the segments 0 and 1, which this tokenizer's class returns only when asked"),
        ("names", "model_input_names in tokenizer_config.json leaves out segments: all are 0"),
        ("one-segment", "the model has one segment; the tokenizer's others are left out: all are 0"),
    ],
)
def test_what_was_taken_for_granted_is_said(name: str, words: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = tiny_texts.write_model(tmp_path, case.shape, "bert", **case.settings)
    assert load_tokenizer(folder, case.shape).assumed == ((words,) if words else ())


def test_segments_are_those_of_the_post_processor(tmp_path: Path) -> None:
    """A tokenizer whose own file marks no second sentence gives what it gives in transformers, and that is said."""
    folder = tiny_texts.write_model(tmp_path, TWO, "bert", tokenizer_class="PreTrainedTokenizerFast")
    change_pair(folder, segment=0)
    tokenizer = load_tokenizer(folder, TWO)
    assert not tokenize(tokenizer, PAIRS[:1])[0].token_type_ids.any()
    assert tokenizer.assumed == ("the model has 2 segments, but the tokenizer marks no second one in a pair",)


def test_segments_that_the_model_has_not_are_refused(tmp_path: Path) -> None:
    folder = tiny_texts.write_model(tmp_path, TWO, "bert", tokenizer_class="PreTrainedTokenizerFast")
    change_pair(folder, segment=2)
    tokenizer = load_tokenizer(folder, TWO)
    assert len(tokenize(tokenizer, [("good",)])) == 1
    with pytest.raises(DataError, match="gives the segment 2, but the weights have only 2 segments; use the tokenizer"):
        tokenize(tokenizer, PAIRS)


def change_pair(folder: Path, segment: int) -> None:
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    for piece in values["post_processor"]["pair"][3:]:
        next(iter(piece.values()))["type_id"] = segment
    file.write_text(json.dumps(values))
