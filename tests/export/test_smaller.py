"""Exports that are smaller on disk answer as the run does, or say what they cost."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_texts
from dynabert_jax.cli import commands
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.data.vocabulary import with_fewer_tokens
from dynabert_jax.evaluate.table import escaped
from dynabert_jax.export import onnx_file
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import export_run
from dynabert_jax.export.folder import write_tokenizer
from dynabert_jax.export.formats import FORMATS
from dynabert_jax.export.hugging_face import write_padded
from dynabert_jax.export.manifest import read_manifest
from dynabert_jax.infer.in_onnxruntime import open_file
from dynabert_jax.infer.runner import Source
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.embeddings import Stored, rounded, with_rows
from dynabert_jax.weights.files import load_model
from tiny import CONFIG, PER_LAYER, ROBERTA, random_batch
from tiny_export import assert_answers, source_of
from tiny_run import VOCABULARY, Finished, record_model

for package in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(package)

HALF = "w1_d0.5"
LEFT_OUT = ("awful", "actor")  # of the twenty tokens
TEXTS = ["the good film was bad", "a very great plot and a fine scene", "poor"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    return file


@pytest.mark.parametrize("embeddings", ["float32", "float16"])
@pytest.mark.parametrize("format", FORMATS)
def test_words_of_the_given_texts_answer_as_before(
    format: Any, embeddings: Stored, finished: Finished, texts: Path, tmp_path: Path
) -> None:
    subs = () if format == "reference" else (HALF,)
    sub = "w1_d1" if format == "reference" else HALF
    out = tmp_path / "out"
    exported = export_run(finished.folder, format, out, subs=subs, vocabulary_of=[texts], embeddings=embeddings)
    assert exported.check.origin == "sentences of texts.txt"
    assert exported.check.sentences == len(TEXTS)
    wanted = Predictor(finished.folder, sub).logits(TEXTS)
    tolerance = {"float32": 2e-5, "float16": 2e-2}[embeddings]
    np.testing.assert_allclose(Predictor(out).logits(TEXTS), wanted, rtol=0, atol=tolerance)
    if FORMATS[format].library == "transformers":
        options = {"trust_remote_code": True} if format == "hf-exact" else {}
        theirs = tiny_texts.answers_of_transformers(out, TEXTS, **options)
        np.testing.assert_allclose(theirs, wanted, rtol=0, atol=tolerance)
    words = [word for word in VOCABULARY if word not in LEFT_OUT]
    assert (out / "vocab.txt").read_text().split() == words
    assert json.loads((out / "config.json").read_text())["vocab_size"] == len(words)
    manifest = read_manifest(out)
    assert manifest is not None
    saving = manifest.saving
    assert saving == exported.saving
    assert saving is not None
    assert (saving.tokens, saving.tokens_before, saving.texts) == (len(words), len(VOCABULARY), len(TEXTS))
    size = 16 * {"float32": 4, "float16": 2}[embeddings]
    assert (saving.embeddings_bytes, saving.embeddings_bytes_before) == (len(words) * size, len(VOCABULARY) * 64)
    assert saving.weights_bytes == (out / saving.weights).stat().st_size
    plain = export_run(finished.folder, format, tmp_path / "plain", subs=subs)
    assert plain.saving is None
    size_before = (tmp_path / "plain" / saving.weights).stat().st_size
    assert abs(saving.weights_bytes_before - size_before) < 100  # of the file's own header
    card = (out / "README.md").read_text()
    for line in saving.lines:
        assert f"- {escaped(line)}\n" in card
        assert line in str(exported)
    assert "on test" not in card  # where it was not scored
    assert f"scores on dev x 100 (21 examples): accuracy {100 * saving.changes[0].after['accuracy']:.2f}" in card


def test_what_a_smaller_vocabulary_costs_is_counted(finished: Finished, texts: Path, tmp_path: Path) -> None:
    """Against counts of words: each is a token, and none of the two that were left out can be spelled."""
    exported = export_run(finished.folder, "onnx", tmp_path / "out", subs=[HALF], vocabulary_of=[texts])
    rows = [line.split(",") for line in Path(finished.config.data.dev_file or "").read_text().splitlines()[1:]]
    sentences, right = zip(*rows, strict=True)
    words = [sentence.split() for sentence in sentences]
    lost = [sum(word in LEFT_OUT for word in sentence) for sentence in words]
    assert exported.saving is not None
    (spelled,) = exported.saving.spelled
    assert (spelled.split, spelled.texts, spelled.changed) == ("dev", len(words), sum(map(bool, lost)))
    assert spelled.tokens == sum(map(len, words)) + 2 * len(words)
    assert (spelled.replaced, spelled.unknown, spelled.unknown_before) == (sum(lost), sum(lost), 0)
    assert sum(lost) > 0
    (change,) = exported.saving.changes
    before = Predictor(finished.folder, HALF).logits(sentences)
    after = Predictor(tmp_path / "out").logits(sentences)
    assert change.largest == pytest.approx(np.abs(after - before).max(), abs=1e-4)
    (row,) = (row for row in read_finished(finished.folder).rows if (row.sub, row.split) == (HALF, "dev"))
    assert change.before == pytest.approx(row.scores)
    labels = Predictor(tmp_path / "out").labels
    hits = [labels[i] == label for i, label in zip(after.argmax(axis=1), right, strict=True)]
    assert change.after["accuracy"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("config", [CONFIG, ROBERTA])
@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_onnx_looks_up_small_rows(config: Any, stored: Stored, tmp_path: Path) -> None:
    """In model.onnx and, as they are, in model_int8.onnx."""
    import onnx

    plain = source_of(config, PER_LAYER)
    source = Source(rounded(plain.model, stored), plain.subs, stored)
    onnx_file.write(source, tmp_path)
    assert_answers(source, lambda _: open_file(tmp_path / "model.onnx", len(PER_LAYER.layers)))
    onnx_file.quantize(tmp_path)
    kind = {"float16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[stored]
    for name in ("model.onnx", "model_int8.onnx"):
        constants = onnx.load(tmp_path / name).graph.initializer
        (table,) = (one for one in constants if list(one.dims) == [config.vocab_size, config.hidden_size])
        assert table.data_type == kind
    batch = random_batch(config)
    runners = [open_file(tmp_path / name, 2) for name in ("model.onnx", "model_int8.onnx")]
    exact, near = (runner(batch.inputs).logits for runner in runners)
    assert 0.0 < np.abs(near - exact).max() < 0.1 * np.abs(exact).max()


def test_a_small_roberta_answers_in_transformers(tmp_path: Path) -> None:
    """Ids, positions, merges and weights fit together, in its own tokenizer and model."""
    large = load_model(tiny_texts.write_model(tmp_path / "large", tiny_texts.config("roberta")))
    tokenizer = load_tokenizer(tmp_path / "large", large.config)
    texts = ["good", "go\u00f1d good", "go od"]
    small, kept = with_fewer_tokens(tokenizer, [("good",), ("go\u00f1d",)])
    assert len(kept) < large.config.vocab_size
    (tmp_path / "small").mkdir()
    write_padded(Source(with_rows(large, kept), (SubNetwork.full(large.config),)), tmp_path / "small")
    write_tokenizer(tmp_path / "small", small, tiny_texts.LONGEST)
    answers = [tiny_texts.answers_of_transformers(tmp_path / name, texts[:1]) for name in ("large", "small")]
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=1e-6)
    ours = Predictor(tmp_path / "small").logits(texts)
    np.testing.assert_allclose(ours, tiny_texts.answers_of_transformers(tmp_path / "small", texts), rtol=0, atol=1e-5)


def test_the_command_says_it_all(
    finished: Finished, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.export(
        finished.folder, "onnx", tmp_path / "out", (HALF,), int8=True, vocabulary_of=(texts,), embeddings="int8"
    )
    said = capsys.readouterr().out
    for start in ("vocabulary: 18 of 20 tokens", "dev: ", "word embeddings: ", "model.onnx: ", f"{HALF}: accuracy",
                  "model_int8.onnx: accuracy"):  # fmt: skip
        assert f"\n{start}" in said
    commands.export(finished.folder, "onnx", tmp_path / "json", (HALF,), embeddings="int8", json=True)
    values = json.loads(capsys.readouterr().out)["saving"]
    assert (values["embeddings"], values["texts"], values["spelled"]) == ("int8", 0, [])


def test_what_cannot_be_made_smaller_is_refused(finished: Finished, texts: Path, tmp_path: Path) -> None:
    def export(format: Any = "hf", run: Path = finished.folder, **options: Any) -> None:
        export_run(run, format, tmp_path / "out", subs=[HALF], **options)

    with pytest.raises(
        ExportError,
        match=r"--format hf stores word embeddings in float32 or float16; got --embeddings int8; use --format onnx, or",
    ):
        export(embeddings="int8")
    with pytest.raises(ExportError, match=r"got --embeddings int4; use --embeddings int8$"):
        export("onnx", embeddings="int4")
    with pytest.raises(ExportError, match="vocabulary_of must be a list of names; got the single name"):
        export(vocabulary_of=str(texts))
    with pytest.raises(DataError, match=r"gone\.txt"):
        export(vocabulary_of=[tmp_path / "gone.txt"])
    other = tmp_path / "other.csv"
    other.write_text("sentence,label\ngood,1\n")
    with pytest.raises(DataError, match="text"):
        export(vocabulary_of=[other])
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    data = finished.config.data.replace(train_file="/gone.csv")
    RunFolder(run).config_file.write_text(finished.config.replace(data=data).to_json(), encoding="utf-8")
    record_model(run)
    for options in ({"vocabulary_of": [texts]}, {"embeddings": "float16"}):
        with pytest.raises(ExportError, match=r"is measured on the run's dev data, which cannot be read: .*/gone\.csv"):
            export(run=run, **options)
    assert not (tmp_path / "out").exists()
