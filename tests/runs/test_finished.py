"""A finished run is read back as it was left, and one that has not finished is told from it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dynabert_jax.runs.files import RunFolderError, sealed
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.weights.files import load_model
from tiny_run import MODEL, assert_equal_trees
from tiny_run import Finished as FinishedRun


def test_a_finished_run_is_read_back(finished: FinishedRun) -> None:
    read = read_finished(finished.folder)
    assert read.config == finished.config
    assert read.rows == finished.results.rows
    assert read.model.config == MODEL
    assert_equal_trees(read.model.params, load_model(finished.folder / "model").params)
    assert [sub.name for sub in read.subs] == ["w1_d1", "w1_d0.5"]
    assert read.sub("w1_d0.5") == read.subs[1]
    with pytest.raises(RunFolderError, match=r"no sub-network 'w1_d5'; did you mean 'w1_d0.5'\? it has w1_d1, w1_d0.5"):
        read.sub("w1_d5")


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "f1"},
        {"scores": {}},
        {"examples": 0},
        {"scores": {"accuracy": 70.0}},
    ],
)
def test_a_row_whose_score_can_be_none_is_reported(
    change: dict[str, Any], finished: FinishedRun, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    file = tmp_path / "run" / "results.json"
    results = json.loads(file.read_text())
    results["rows"][1] |= change
    file.write_text(sealed(without(results, "checksum")))
    with pytest.raises(RunFolderError, match=r"results\.json is damaged \(w1_d0.5 has no score on dev\)"):
        read_finished(tmp_path / "run")


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def test_a_run_that_is_not_whole_is_reported(finished: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        read_finished(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    (run / "results.json").write_text(sealed({"rows": [{"sub": "w1_d1"}]}))
    with pytest.raises(RunFolderError, match=r"results\.json is damaged .+ run `dynabert evaluate"):
        read_finished(run)
    (run / "results.json").write_text(sealed({"model": read_finished(finished.folder).record["start"], "rows": []}))
    with pytest.raises(RunFolderError, match=r"results\.json is damaged \(it has no rows\)"):
        read_finished(run)
    (run / "results.json").write_text("[" * 100_000)
    with pytest.raises(RunFolderError, match=r"results\.json is damaged \(it is nested too deep"):
        read_finished(run)
    (run / "results.json").unlink()
    with pytest.raises(RunFolderError, match=r"results\.json is missing: the run has not finished"):
        read_finished(run)
    shutil.rmtree(run / "model")
    with pytest.raises(RunFolderError, match="has no finished model; run its training command again"):
        read_finished(run)
