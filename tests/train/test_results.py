"""The end of a run: what the table says is in the log, too, and once; a model that cannot be right is reported."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tiny_run
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.origin import Origin
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.weights.files import WeightsError, load_model, save_model
from tiny_run import Finished, any_origin, lines


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


def test_a_run_is_not_evaluated_while_it_is_written_to(run: Path) -> None:
    with RunFolder(run).locked(), pytest.raises(RunFolderError, match="another process is training or evaluating in"):
        evaluate_run(run)


def test_what_was_understood_is_written_with_the_results(finished: Finished, run: Path) -> None:
    """The same numbers that the log has, and again after an evaluation."""
    written = json.loads((finished.folder / "results.json").read_text(encoding="utf-8"))["understood"]
    rows = {split: [label for _, label in csv_rows(finished, split)] for split in ("train", "dev", "test")}
    assert [split["name"] for split in written["splits"]] == list(rows)
    for split in written["splits"]:
        labels = rows[split["name"]]
        assert split["rows"] == len(labels)
        assert split["classes"] == {name: labels.count(name) for name in ("bad", "good")}
        assert f"{split['name']}: {len(labels)} rows; bad {labels.count('bad')}, good" in "\n".join(finished.messages)
    said, trained = (
        [i for i, message in enumerate(finished.messages) if words in message] for words in ("rows; bad", "first step")
    )
    assert max(said) < min(trained)
    assert written["model"] == ["vocab.txt has no upper-case words, so the tokenizer is taken for uncased"]
    evaluate_run(run)
    assert json.loads((run / "results.json").read_text(encoding="utf-8"))["understood"] == written


def csv_rows(finished: Finished, split: str) -> list[tuple[str, str]]:
    file = Path(getattr(finished.config.data, f"{split}_file"))
    return [(text, label) for text, label in (line.split(",") for line in file.read_text().splitlines()[1:])]


def without_a_dev_file(finished: Finished, run: Path, fingerprint: str | None) -> None:
    """The run as if a tenth of its train data had been held out, of this fingerprint."""
    config = finished.config.replace(data=finished.config.data.replace(dev_file=None))
    RunFolder(run).config_file.write_text(config.to_json(), encoding="utf-8")
    model = load_model(run / "model").fingerprint
    RunFolder(run).write_model_record(Origin("model", config, fingerprint, None, model))


@pytest.mark.parametrize("fingerprint", [None, "of other rows"])
def test_a_run_is_not_scored_on_what_it_was_trained_on(finished: Finished, run: Path, fingerprint: str | None) -> None:
    """Where other rows are held out now; an older version says nothing of its rows."""
    without_a_dev_file(finished, run, fingerprint)
    before = (run / "results.json").read_bytes()
    with pytest.raises(RunFolderError, match="other rows are held out now than when the run was trained"):
        evaluate_run(run)
    assert (run / "results.json").read_bytes() == before


def test_a_run_is_scored_again_on_the_rows_that_it_held_out(finished: Finished, run: Path) -> None:
    data = load_data(finished.config.data.replace(dev_file=None), load_tokenizer(run / "model", tiny_run.MODEL))
    without_a_dev_file(finished, run, data.fingerprint)
    for _ in range(2):
        assert evaluate_run(run).rows[0].examples == len(data.dev["dev"])


def test_a_run_that_was_moved_is_evaluated_where_it_is(finished: Finished, run: Path, tmp_path: Path) -> None:
    """Though its configuration names the folder that it was made in, which need not be there."""
    config = finished.config.replace(run_dir=str(tmp_path / "gone" / "run"))
    RunFolder(run).config_file.write_text(config.to_json(), encoding="utf-8")
    assert evaluate_run(run).rows == finished.results.rows
    assert not (tmp_path / "gone").exists()


def test_evaluating_needs_no_space_for_training(finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: pytest.fail("nothing large is written"))
    assert evaluate_run(run).rows == finished.results.rows


def of_scores(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is said of the scores; the sentences of the splits are short, and some are the same."""
    return [message for message in caplog.messages if "accuracy" in message]


def test_a_full_network_far_below_chance_is_reported(
    finished: Finished, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for the split that says the opposite, and not for each of its sub-networks."""
    opposite = [(text, {"good": "bad", "bad": "good"}[label]) for text, label in tiny_run.sentences(120, seed=9)]
    tiny_run.write_csv(tmp_path / "dev.csv", ("text", "label"), opposite)
    data = finished.config.data.replace(dev_file=str(tmp_path / "dev.csv"))
    RunFolder(run).config_file.write_text(finished.config.replace(data=data).to_json(), encoding="utf-8")
    evaluate_run(run)
    (message,) = of_scores(caplog)
    assert any("the train or dev data are not those that the run was trained on" in text for text in caplog.messages)
    assert message.startswith("dev: accuracy x 100 is ")
    assert "over 120 examples, far below the 50.00 of guessing" in message
    assert "0 bad, 1 good" in message


def test_a_full_network_as_good_as_it_should_be_is_no_news(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate_run(run)
    assert of_scores(caplog) == []


def test_weights_that_have_diverged_leave_the_results_as_they_were(finished: Finished, run: Path) -> None:
    model = load_model(run / "model")
    broken = jax.tree.map(np.array, model.params)
    broken["classifier"]["bias"][0] = np.nan
    save_model(run / "model", model.config, broken)
    RunFolder(run).write_model_record(any_origin(finished.config, "model"))
    before = (run / "results.json").read_bytes(), logged(run)
    with pytest.raises(WeightsError, match=r"not all finite numbers: classifier\.bias; the first is nan at \[0\]"):
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
    with pytest.raises(RunFolderError, match=r"data\.task\.labels was .+ and is "):
        evaluate_run(run)
    RunFolder(run).write_model_record(any_origin(RunFolder(run).config(), "model"))
    with pytest.raises(RunFolderError, match="its model has other classes than the data now"):
        evaluate_run(run)
    assert (run / "results.json").read_bytes() == before


def test_a_run_is_evaluated_on_another_number_of_devices(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches of 8 do not divide over three devices, and are rounded up."""
    before = (run / "results.md").read_text()
    monkeypatch.setattr("dynabert_jax.system.devices.local", lambda: jax.devices()[:3])
    monkeypatch.setattr("dynabert_jax.system.devices.num_devices", lambda: 3)
    evaluate_run(run)
    assert (run / "results.md").read_text() == before


def test_a_run_of_an_older_version_is_read_after_it_was_evaluated_on_other_devices(
    finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of its model, which is written then, has the run's own batch size and not the rounded one."""
    older = {key: value for key, value in json.loads((run / "results.json").read_text()).items() if key == "rows"}
    (run / "results.json").write_text(json.dumps(older))
    (run / "model.json").unlink()
    monkeypatch.setattr("dynabert_jax.system.devices.local", lambda: jax.devices()[:3])
    monkeypatch.setattr("dynabert_jax.system.devices.num_devices", lambda: 3)
    evaluate_run(run)
    assert read_finished(run).rows == finished.results.rows


def test_a_run_whose_data_now_lists_its_classes_in_another_order_can_be_read(finished: Finished, run: Path) -> None:
    """The results are of the weights that are in the folder, whose order of classes is another one than the data's."""
    swapped = load_model(run / "model", labels=tiny_run.LABELS[::-1])
    save_model(run / "model", swapped.config, swapped.params)
    tiny_run.record_model(run)
    evaluate_run(run)
    assert read_finished(run).rows == finished.results.rows
