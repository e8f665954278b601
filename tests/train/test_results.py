"""The end of a run: what the table says is in the log, too, and once; a model that cannot be right is reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tiny_run
from dynabert_jax.evaluate.evaluate import EvaluationError
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.weights.files import load_model, save_model
from tiny_run import Finished, lines


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """The finished run's folder, moved to another place."""
    shutil.copytree(finished.folder, tmp_path / "moved")
    return tmp_path / "moved"


def logged(folder: Path) -> list[dict[str, Any]]:
    """All lines, without what differs from one time to the next."""
    return [{**line, "time": None} for line in lines(folder / "evaluations.jsonl")]


def test_the_rows_of_the_table_are_logged_with_their_origin(finished: Finished) -> None:
    written = json.loads((finished.folder / "results.json").read_text(encoding="utf-8"))
    found = [line for line in logged(finished.folder) if line["stage"] == "results"]
    origin = {**written["provenance"], "time": None}
    assert found == [{"stage": "results", "step": None, **row, **origin} for row in written["rows"]]
    assert [row["sub"] for row in written["rows"]] == [row.sub for row in finished.results.rows]


def test_a_run_that_is_evaluated_again_tells_its_results_once(finished: Finished, run: Path) -> None:
    for _ in range(2):
        assert evaluate_run(run).rows == finished.results.rows
    assert logged(run) == logged(finished.folder)


def test_a_run_that_was_moved_is_evaluated_where_it_is(finished: Finished, run: Path, tmp_path: Path) -> None:
    """Though its configuration names the folder that it was made in, which need not be there."""
    config = finished.config.replace(run_dir=str(tmp_path / "gone" / "run"))
    RunFolder(run).config_file.write_text(config.to_json(), encoding="utf-8")
    assert evaluate_run(run).rows == finished.results.rows
    assert not (tmp_path / "gone").exists()


def test_evaluating_needs_no_space_for_training(finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: pytest.fail("nothing large is written"))
    assert evaluate_run(run).rows == finished.results.rows


def test_a_full_network_far_below_chance_is_reported(
    finished: Finished, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for the split that says the opposite, and not for each of its sub-networks."""
    opposite = [(text, {"good": "bad", "bad": "good"}[label]) for text, label in tiny_run.sentences(120, seed=9)]
    tiny_run.write_csv(tmp_path / "dev.csv", ("text", "label"), opposite)
    data = finished.config.data.replace(dev_file=str(tmp_path / "dev.csv"))
    RunFolder(run).config_file.write_text(finished.config.replace(data=data).to_json(), encoding="utf-8")
    evaluate_run(run)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("dev: accuracy 0.")
    assert "over 120 examples is far below the 0.500 of guessing" in caplog.messages[0]
    assert "0 bad, 1 good" in caplog.messages[0]


def test_a_full_network_as_good_as_it_should_be_is_no_news(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate_run(run)
    assert caplog.messages == []


def test_weights_that_have_diverged_leave_the_results_as_they_were(run: Path) -> None:
    model = load_model(run / "model")
    broken = jax.tree.map(np.array, model.params)
    broken["classifier"]["bias"][0] = np.nan
    save_model(run / "model", model.config, broken)
    before = (run / "results.json").read_bytes(), logged(run)
    with pytest.raises(EvaluationError, match=r"w1_d1 answers 21 of 21 examples of dev with NaN"):
        evaluate_run(run)
    assert ((run / "results.json").read_bytes(), logged(run)) == before


def test_a_run_is_not_scored_on_data_of_other_classes(finished: Finished, run: Path, tmp_path: Path) -> None:
    """As many classes, of other names: nothing says which is which."""
    for split in ("train", "dev", "test"):
        renamed = [(text, {"good": "pos", "bad": "neg"}[label]) for text, label in tiny_run.sentences(20, seed=3)]
        tiny_run.write_csv(tmp_path / f"{split}.csv", ("text", "label"), renamed)
    files = {f"{split}_file": str(tmp_path / f"{split}.csv") for split in ("train", "dev", "test")}
    data = finished.config.data.replace(task=finished.config.data.task.replace(labels=("neg", "pos")), **files)
    RunFolder(run).config_file.write_text(finished.config.replace(data=data).to_json(), encoding="utf-8")
    before = (run / "results.json").read_bytes()
    with pytest.raises(RunFolderError, match="classes"):
        evaluate_run(run)
    assert (run / "results.json").read_bytes() == before
