"""Runs of rows that a program gives: the same as of files, kept in the folder, and compared when the run resumes."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from dynabert_jax.config import RunConfig
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.data.rows import DataError
from dynabert_jax.export.export import export_run
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.train.run import dry_run, train_run
from dynabert_jax.weights.files import load_model
from tiny_run import Materials, assert_equal_trees, messages_logged

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def frames(materials: Materials) -> dict[str, pandas.DataFrame]:
    return {split: pandas.read_csv(materials.file(split)) for split in SPLITS}


def without_files(materials: Materials, run_dir: Path, **data: Any) -> RunConfig:
    files = {f"{split}_file": None for split in SPLITS}
    return materials.fine_tuning(run_dir, data=materials.data(**files, **data))


@pytest.fixture(scope="module")
def of_frames(
    materials: Materials, frames: dict[str, pandas.DataFrame], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run that was trained on DataFrames."""
    folder = tmp_path_factory.mktemp("of_frames") / "run"
    train_run(without_files(materials, folder), **frames)
    return folder


def test_it_is_the_run_of_the_same_files(materials: Materials, of_frames: Path, tmp_path: Path) -> None:
    ours, theirs = read_finished(of_frames), train_run(materials.fine_tuning(tmp_path / "files"))
    assert ours.rows == theirs.rows
    assert ours.record["data"] == theirs.record["data"]
    assert ours.scored == theirs.scored
    assert_equal_trees(ours.model.params, theirs.model.params)
    assert str(ours) == str(theirs).replace(str(theirs.path), str(ours.path))


def test_datasets_and_dicts_are_the_same_again(
    materials: Materials, frames: dict[str, pandas.DataFrame], of_frames: Path, tmp_path: Path
) -> None:
    config = without_files(materials, tmp_path / "run")
    run = train_run(
        config,
        train=datasets.Dataset.from_pandas(frames["train"]),
        dev=frames["dev"].to_dict("records"),
        test=frames["test"],
    )
    assert run.rows == read_finished(of_frames).rows
    assert_equal_trees(run.model.params, load_model(of_frames / "model").params)


def test_later_commands_find_the_rows(of_frames: Path, tmp_path: Path) -> None:
    """Also where the folder has been moved to."""
    moved = Path(shutil.copytree(of_frames, tmp_path / "moved"))
    shutil.move(of_frames / "data", of_frames / "away")
    try:
        assert evaluate_run(moved).rows == read_finished(of_frames).rows
        exported = export_run(moved, "hf", tmp_path / "export", subs=["w1_d1"])
        assert exported.check.origin == "sentences of dev"
    finally:
        shutil.move(of_frames / "away", of_frames / "data")


def test_the_same_rows_again_are_no_work(
    materials: Materials, frames: dict[str, pandas.DataFrame], of_frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.stat() for file in of_frames.rglob("*") if file.is_file()}
    monkeypatch.setattr("dynabert_jax.train.run.walk", lambda _: pytest.fail("there is nothing to do"))
    with messages_logged() as messages:
        assert train_run(without_files(materials, of_frames), **frames).rows == read_finished(of_frames).rows
    assert any(f"the run in {of_frames} is finished, and nothing has changed" in message for message in messages)
    assert {file: file.stat() for file in of_frames.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("split", SPLITS)
def test_other_rows_do_not_resume_it(
    materials: Materials, frames: dict[str, pandas.DataFrame], of_frames: Path, split: str
) -> None:
    config = without_files(materials, of_frames)
    with pytest.raises(RunFolderError, match=f"{split}.jsonl has other rows than those that are given for {split}"):
        train_run(config, **(frames | {split: frames[split].iloc[::-1]}))


def test_a_run_of_given_rows_is_not_resumed_without_them(
    materials: Materials, frames: dict[str, pandas.DataFrame], of_frames: Path
) -> None:
    config = without_files(materials, of_frames)
    with pytest.raises(RunFolderError, match=r"data\.dev_file was '.*dev.jsonl' and is None"):
        train_run(config, train=frames["train"], test=frames["test"])


def test_what_is_refused_leaves_nothing(
    materials: Materials, frames: dict[str, pandas.DataFrame], tmp_path: Path
) -> None:
    config = without_files(materials, tmp_path / "run")
    bad = frames["train"].copy()
    bad.loc[11, "label"] = None
    with pytest.raises(DataError, match="train, row 12: label is missing; allowed: bad"):
        train_run(config, train=bad)
    with pytest.raises(DataError, match=r"dev: no column 'label'; .*there are: text"):
        train_run(config, train=frames["train"], dev=frames["dev"][["text"]])
    with pytest.raises(ConfigError, match=r"train rows are given, and data\.train_file names others; leave one"):
        train_run(materials.fine_tuning(tmp_path / "run"), train=frames["train"])
    with pytest.raises(ConfigError, match=r"dev rows are given, and data\.dev_file names others"):
        train_run(materials.fine_tuning(tmp_path / "run"), dev=frames["dev"])
    with pytest.raises(ConfigError, match="need a train_file"):
        train_run(config, dev=frames["dev"])
    assert "44 train, 21 dev examples" in str(dry_run(config, train=frames["train"], dev=frames["dev"]))
    assert not (tmp_path / "run").exists()
