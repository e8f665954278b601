"""Runs, cards and exports that an older version made are read, resumed and asked by this one."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dynabert_jax.choose.choose import Limits
from dynabert_jax.choose.question import Question, choose_run
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.tasks import Task
from dynabert_jax.config.unit import Unit
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.report.report import report_run
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.latency_card import Where
from dynabert_jax.runs.older import read_config
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.train.run import train_run
from tiny_run import STEPS, lines, sentences

FOLDER = Path(__file__).parent / "older_versions"
TEXTS = [text for text, _ in sentences(9, seed=5)]
ONE_EXAMPLE = {"dev": 1 / 21, "test": 1 / 13}  # what another order of sums may change of an accuracy


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of it, in a folder `older`, as the configurations name it."""
    place = tmp_path_factory.mktemp("place")
    for archive in sorted(FOLDER.glob("*.tar.xz")):
        with tarfile.open(archive) as tar:
            tar.extractall(place / "older", filter="data")
    return place / "older"


@pytest.fixture(autouse=True)
def _there(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(older.parent)


def assert_close(rows: tuple[Row, ...], others: tuple[Row, ...]) -> None:
    assert [(row.sub, row.split, row.examples) for row in rows] == [
        (row.sub, row.split, row.examples) for row in others
    ]
    for ours, theirs in zip(rows, others, strict=True):
        assert ours.score == pytest.approx(theirs.score, abs=1.01 * ONE_EXAMPLE[ours.split])


def test_a_finished_run_is_read(older: Path) -> None:
    run = read_finished(older / "run")
    assert [sub.name for sub in run.subs] == ["w1_d1", "w1_d0.5"]
    assert run.config.data.task == Task(name="words", text_columns=("text",), labels=("bad", "good"))
    assert len(run.rows) == 4
    assert report_run(older / "run", older / "page.html").page.exists()


def test_a_size_is_chosen_by_its_latency_card(older: Path) -> None:
    answer = choose_run(older / "run", Question(Limits(max_latency_ms=1e3), Where(backend="jax", batch=1)))
    assert answer.measured
    assert answer.best.sub in ("w1_d1", "w1_d0.5")


def test_a_finished_run_is_scored_again(older: Path) -> None:
    before = read_finished(older / "run").rows
    assert_close(evaluate_run(older / "run").rows, before)


def test_a_regression_is_one_by_its_older_setting(older: Path) -> None:
    values = json.loads((older / "ratings" / "config.json").read_text())["data"]["task"]
    assert "kind" not in values
    run = read_finished(older / "ratings")
    assert run.config.data.task.kind == run.shape.head == "regression"
    prediction = Predictor(older / "ratings", batch_size=4)(["good film"])[0]
    assert prediction.label is None
    assert prediction.number is not None


def test_a_regression_was_learned_as_its_numbers_are(older: Path) -> None:
    run = read_finished(older / "ratings")
    assert not run.config.data.task.standardise
    assert run.shape.unit == Unit()
    assert read_finished(older / "run").config.data.task.standardise  # of classes; it does not matter there


def test_an_older_f1_is_of_the_second_class(older: Path) -> None:
    values = json.loads((older / "run" / "config.json").read_text())
    values["data"]["task"]["metrics"] = ["f1"]
    assert read_config(values).data.task.positive_label == "good"
    values["data"]["task"]["labels"] = []
    assert read_config(values).data.task.positive_class(("fraud", "ok")) == "ok"


@pytest.mark.parametrize(("regression", "kind"), [(True, "classification"), (False, "regression")])
def test_two_settings_that_contradict_each_other_are_refused(regression: bool, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"kind '{kind}' and regression {regression} contradict each other"):
        Task(name="words", text_columns=("text",), regression=regression, kind=kind)


def test_a_run_that_was_stopped_resumes_where_it_was(older: Path) -> None:
    """Its logged steps stay; the rest is trained, and it ends as the run that was not stopped did."""
    folder = RunFolder(older / "stopped")
    before = lines(folder.path / "training.jsonl")
    assert [line["step"] for line in before if line["stage"] == "depth"] == [5]
    rows = train_run(folder.config()).rows
    after = lines(folder.path / "training.jsonl")
    assert after[: len(before)] == before
    assert [line["step"] for line in after if line["stage"] == "depth"] == [5, 10, STEPS]
    assert_close(rows, read_finished(older / "run").rows)


@pytest.mark.parametrize("format", ["hf", "hf-exact", "onnx", "stablehlo"])
def test_an_export_answers_as_its_run(format: str, older: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    ours = Predictor(older / "exports" / format, batch_size=4).logits(TEXTS)
    np.testing.assert_allclose(ours, Predictor(older / "run", "w1_d0.5", batch_size=4).logits(TEXTS), atol=1e-4)
