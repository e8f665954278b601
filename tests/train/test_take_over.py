"""A run that starts from the finished stages of another one: what is taken over, and what is not."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from dynabert_jax.cli.train import read_arguments
from dynabert_jax.config import ConfigError
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.system.files import file_checksum
from dynabert_jax.train import loop
from dynabert_jax.train.checkpoint import CheckpointError
from dynabert_jax.train.context import TrainingError
from dynabert_jax.train.run import dry_run, train_one_stage, train_run
from same_runs import assert_same_runs
from tiny_run import STEPS, Finished, lines, messages_logged, write_config


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stage of every step that is taken."""
    stages: list[str] = []
    step = loop.train_step

    def counted(programs: Any, update: Any, objective: Any, *rest: Any) -> Any:
        stages.append(objective.stage.name)
        return step(programs, update, objective, *rest)

    monkeypatch.setattr(loop, "train_step", counted)
    return stages


@pytest.fixture
def before_final(finished: Finished, tmp_path: Path) -> Path:
    """The finished run as it was before its last stage."""
    run = Path(shutil.copytree(finished.folder, tmp_path / "before"))
    for name in ("final", "model"):
        shutil.rmtree(run / name)
    for name in ("model.json", "results.json", "results.md"):
        (run / name).unlink()
    return run


def files_of(folder: Path) -> dict[Path, str]:
    return {path.relative_to(folder): file_checksum(path) for path in folder.rglob("*") if path.is_file()}


def test_a_run_from_another_ones_stages_is_the_same_run(
    finished: Finished, before_final: Path, tmp_path: Path, trained: list[str]
) -> None:
    """Bit for bit, with its logs; the other run stays as it is, and the rest needs no --from."""
    config, before = finished.config.replace(run_dir=str(tmp_path / "run")), files_of(before_final)
    with messages_logged() as messages:
        results = train_run(config, from_run=before_final)
    assert trained == ["final"] * STEPS
    assert results.rows == finished.results.rows
    assert_same_runs(finished.config, config)
    for stage in ("fine_tune", "width", "depth"):
        assert f"stage {stage} is taken over from {before_final}" in messages
        assert len(list((tmp_path / "run" / "tensorboard" / stage).iterdir())) >= 1
    assert f"importance is taken over from {before_final}" in messages
    assert f"stage final trains; it is not taken over from {before_final}: that run has not trained it" in messages
    assert files_of(before_final) == before
    shutil.rmtree(before_final)
    assert train_run(config).rows == finished.results.rows
    assert trained == ["final"] * STEPS


def test_a_changed_stage_trains_again_and_those_before_it_do_not(
    finished: Finished, tmp_path: Path, trained: list[str]
) -> None:
    assert finished.config.depth is not None
    config = finished.config.replace(
        run_dir=str(tmp_path / "run"), depth=finished.config.depth.replace(keep="last"), final=None
    )
    with messages_logged() as messages:
        train_one_stage(config, "depth", from_run=finished.folder)
    assert trained == ["depth"] * STEPS
    source = finished.folder
    said = f"stage depth trains; it is not taken over from {source}: depth.keep was 'best' and is 'last'"
    assert said in messages
    logged = lines(tmp_path / "run" / "training.jsonl")
    assert len({line["run"] for line in logged}) == 1
    assert {line["stage"] for line in logged} == {"fine_tune", "width", "depth"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 43}, "stage fine_tune before it cannot be taken over .*: seed was 42 and is 43"),
        ({"dtype": "bfloat16"}, "dtype was 'float32' and is 'bfloat16'"),
        ({"width": tiny_run.CompleteWidthStage(epochs=1)}, r"stage width before it .*: width\.epochs was 2 and is 1"),
    ],
)
def test_with_one_stage_alone_what_is_before_it_must_be_the_same(
    finished: Finished, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = finished.config.replace(run_dir=str(tmp_path / "run"), **changes)
    with pytest.raises(TrainingError, match=message):
        train_one_stage(config, "depth", from_run=finished.folder)
    assert not (tmp_path / "run").exists()


def test_other_data_and_other_weights_are_noticed(finished: Finished, tmp_path: Path) -> None:
    rows = tiny_run.sentences(44, seed=0)
    tiny_run.write_csv(tmp_path / "train.csv", ("text", "label"), [(*rows[0][:-1], "bad"), *rows[1:-1], ("a", "good")])
    data = finished.config.data.replace(train_file=str(tmp_path / "train.csv"))
    config = finished.config.replace(run_dir=str(tmp_path / "run"), data=data)
    with pytest.raises(TrainingError, match="it was made with other train or dev data"):
        train_one_stage(config, "width", from_run=finished.folder)
    shutil.copytree(finished.folder / "model", tmp_path / "other")
    config = finished.config.replace(run_dir=str(tmp_path / "run"), model=str(tmp_path / "other"))
    with pytest.raises(TrainingError, match="it was made with other pretrained weights"):
        train_one_stage(config, "width", from_run=finished.folder)


def test_a_stage_that_was_not_finished_is_not_taken(finished: Finished, before_final: Path, tmp_path: Path) -> None:
    config = finished.config.replace(run_dir=str(tmp_path / "run"))
    shutil.rmtree(before_final / "width" / "last" / str(STEPS))
    with pytest.raises(TrainingError, match=r"stage width .*: that run has not finished it \(step 8 of 12\)"):
        train_one_stage(config, "depth", from_run=before_final)


def test_a_damaged_stage_is_not_taken(finished: Finished, before_final: Path, tmp_path: Path) -> None:
    largest = max((before_final / "fine_tune" / "last" / str(STEPS)).rglob("d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))
    config = finished.config.replace(run_dir=str(tmp_path / "run"))
    with pytest.raises(
        CheckpointError, match=r"fine_tune cannot be taken over: .* is missing or not as it was written"
    ):
        train_run(config, from_run=before_final)
    assert not (tmp_path / "run" / "fine_tune").exists()


def test_a_command_that_was_killed_can_be_repeated(
    finished: Finished, before_final: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[str]
) -> None:
    """Whatever was copied by then."""
    config = finished.config.replace(run_dir=str(tmp_path / "run"))
    take_logs = RunFolder.take_logs

    def killed(folder: RunFolder, source: RunFolder, stage: str, run: str | None) -> None:
        take_logs(folder, source, stage, run)
        if stage == "width":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "take_logs", killed)
        with pytest.raises(KeyboardInterrupt):
            train_one_stage(config, "depth", from_run=before_final)
    assert not (tmp_path / "run" / "width").exists()
    train_one_stage(config, "depth", from_run=before_final)
    assert trained == []
    logged = [(line["stage"], line["step"]) for line in lines(tmp_path / "run" / "training.jsonl")]
    assert logged == [(stage, step) for stage in ("fine_tune", "width", "depth") for step in (5, 10, 12)]


def test_a_run_is_not_taken_over_from_itself_or_from_no_run(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is the run's own folder"):
        dry_run(finished.config, from_run=finished.folder)
    config = finished.config.replace(run_dir=str(tmp_path / "run"))
    with pytest.raises(RunFolderError, match="is not a run folder"):
        train_run(config, from_run=tmp_path)


def test_the_command_line_names_the_other_run(finished: Finished, tmp_path: Path) -> None:
    file = str(write_config(tmp_path / "config.py", finished.config))
    asked = read_arguments([file, "--from", "runs/a=b", "--stage=depth", "--dry-run", "--seed", "7"])
    assert (asked.from_run, asked.only, asked.is_dry, asked.config.seed) == ("runs/a=b", "depth", True, 7)
    assert read_arguments([file, "--from=runs/a=b"]).from_run == "runs/a=b"
    with pytest.raises(ConfigError, match="--from needs the folder of a run"):
        read_arguments([file, "--from"])
