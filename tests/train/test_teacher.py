"""The scores of the teacher: those of the fine-tuned network, kept with the results, and never of something else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from dynabert_jax.choose.choose import Limits
from dynabert_jax.choose.question import Question, choose_run
from dynabert_jax.config import RunConfig
from dynabert_jax.evaluate.rows import Teacher
from dynabert_jax.runs.files import sealed
from dynabert_jax.runs.finished import Finished as FinishedRun
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.latency_card import Where
from dynabert_jax.train.results import Results, evaluate_run
from dynabert_jax.train.run import train_run
from dynabert_jax.weights.files import load_model
from tiny_run import Finished, Materials


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """The finished run's folder, moved to another place."""
    shutil.copytree(finished.folder, tmp_path / "moved")
    return tmp_path / "moved"


ROW_OF_OLDER_VERSIONS = {
    "sub", "width", "depth", "split", "examples", "metric", "scores", "parameters", "flops", "length"
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def fine_tuned(
    materials: Materials,
    tmp_path_factory: pytest.TempPathFactory,
) -> Results:
    """A run whose only stage is the first one of the finished run."""
    return train_run(materials.fine_tuning(tmp_path_factory.mktemp("fine_tuned") / "run"))


def depth_alone(materials: Materials, run_dir: Path, **changes: Any) -> RunConfig:
    """The stage of every depth, of one width, with at most fine-tuning before it."""
    config = materials.config(run_dir, **({"importance": None, "width": None, "final": None} | changes))
    assert config.depth is not None
    return config.replace(depth=config.depth.replace(widths=(1.0,)))


def taught(results: Results | FinishedRun) -> Teacher:
    assert results.teacher is not None
    return results.teacher


def without_time(teacher: Teacher | None) -> Teacher:
    assert teacher is not None
    return teacher.replace(time="")


def said(results: Results) -> str:
    (message,) = [warning for warning in results.warnings if "teacher was not scored" in warning]
    return message


def test_the_teacher_is_the_fine_tuned_network(finished: Finished, fine_tuned: FinishedRun) -> None:
    """Which a run that ends with the fine-tuning stage writes and scores as its only size."""
    teacher = taught(finished.results)
    assert teacher.weights == fine_tuned.model.fingerprint
    assert [row.replace(sub="w1_d1") for row in teacher.rows] == list(fine_tuned.rows)
    assert [row.split for row in teacher.rows] == ["dev", "test"]
    assert {row.sub for row in teacher.rows} == {"teacher"}
    assert teacher.weights != finished.results.model.fingerprint


def test_where_nothing_is_distilled_there_is_no_teacher(fine_tuned: FinishedRun) -> None:
    assert fine_tuned.teacher is None
    assert "teacher:" not in str(fine_tuned)
    assert evaluate_run(fine_tuned.path).teacher is None
    assert not any("teacher" in warning for warning in fine_tuned.warnings)


def test_without_fine_tuning_the_given_model_is_the_teacher(
    finished: Finished,
    materials: Materials,
    tmp_path: Path,
) -> None:
    """Scored again from where it was given; once it is gone, its earlier scores are kept and that is said."""
    model = Path(shutil.copytree(finished.folder / "model", tmp_path / "given"))
    config = depth_alone(materials, tmp_path / "run", model=str(model), fine_tune=None)
    results = train_run(config)
    teacher = taught(results)
    assert teacher.weights == load_model(model).fingerprint
    full = [row for row in finished.results.rows if row.sub == "w1_d1"]
    assert [row.replace(sub="w1_d1") for row in teacher.rows] == full
    assert without_time(evaluate_run(tmp_path / "run").teacher) == without_time(teacher)
    shutil.rmtree(model)
    again = evaluate_run(tmp_path / "run")
    assert again.teacher == taught(read_finished(tmp_path / "run"))
    assert "was not scored again" in said(again)


def test_the_teacher_is_written_read_and_shown(finished: Finished) -> None:
    teacher = taught(finished.results)
    read = read_finished(finished.folder)
    assert (read.teacher, read.majorities) == (teacher, finished.results.majorities)
    text = (finished.folder / "results.md").read_text()
    assert text == finished.results.table + "\n"
    for row in teacher.rows:
        assert f"teacher: {100 * row.score:.2f}\n" in text.partition(f"{row.split}: ")[2]
    most = {one.split: one for one in read.majorities}
    for split in ("dev", "test"):
        labels = [label for _, label in (line.split(",") for line in lines_of(finished, split))]
        label = max(("bad", "good"), key=labels.count)
        assert (most[split].label, most[split].score) == (label, labels.count(label) / len(labels))
        assert f"always the most frequent class ({label}): {100 * most[split].score:.2f}" in text
    answer = choose_run(finished.folder, Question(Limits(max_loss=100.0), Where()))
    assert answer.teacher == teacher.on("dev")


def lines_of(finished: Finished, split: str) -> list[str]:
    return Path(getattr(finished.config.data, f"{split}_file")).read_text().splitlines()[1:]


def test_an_evaluation_scores_it_again(finished: Finished, run: Path) -> None:
    again = evaluate_run(run)
    assert without_time(again.teacher) == without_time(finished.results.teacher)
    assert again.warnings == finished.results.warnings


def test_an_older_run_gets_its_teachers_scores_by_an_evaluation(finished: Finished, run: Path) -> None:
    older = json.loads((run / "results.json").read_text())
    for name in ("teacher", "majorities", "warnings", "checksum"):
        del older[name]
    for row in older["rows"]:
        for name in set(row) - ROW_OF_OLDER_VERSIONS:
            del row[name]
    (run / "results.json").write_text(sealed(older))
    read = read_finished(run)
    assert (read.teacher, read.majorities, read.warnings) == (None, (), ())
    assert [row.scores for row in read.rows] == [row.scores for row in finished.results.rows]
    assert without_time(evaluate_run(run).teacher) == without_time(finished.results.teacher)
    assert read_finished(run).teacher is not None


def test_scores_of_a_teacher_that_is_gone_are_kept_of_the_same_data_alone(finished: Finished, run: Path) -> None:
    shutil.rmtree(run / "fine_tune")
    again = evaluate_run(run)
    assert again.teacher == finished.results.teacher
    assert f"last has no checkpoint. Its scores are those of {taught(again).time}, of the same data" in said(again)
    assert said(again) in (run / "results.md").read_text()
    assert evaluate_run(run).teacher == finished.results.teacher


def test_scores_of_a_teacher_that_is_gone_are_dropped_of_other_data(
    finished: Finished, run: Path, tmp_path: Path
) -> None:
    shutil.rmtree(run / "fine_tune")
    tiny_run.write_csv(tmp_path / "test.csv", ("text", "label"), tiny_run.sentences(13, seed=77))
    data = finished.config.data.replace(test_file=str(tmp_path / "test.csv"))
    RunFolder(run).config_file.write_text(finished.config.replace(data=data).to_json(), encoding="utf-8")
    again = evaluate_run(run)
    assert again.teacher is None
    assert "no checkpoint. Its earlier scores are of other data and are dropped" in said(again)
    assert read_finished(run).teacher is None


def test_other_weights_than_the_teachers_are_not_scored_in_its_name(
    finished: Finished,
    materials: Materials,
    run: Path,
    tmp_path: Path,
) -> None:
    """The checkpoints of a run with another seed, and of later steps; the earlier scores are kept."""
    train_run(materials.fine_tuning(tmp_path / "other", seed=7))
    shutil.rmtree(run / "fine_tune")
    shutil.copytree(tmp_path / "other" / "fine_tune", run / "fine_tune")
    again = evaluate_run(run)
    assert again.teacher == finished.results.teacher
    assert "does not belong here: seed was 7 and is 42" in said(again)


def test_a_teacher_that_was_chosen_by_its_score_is_read_from_there(
    materials: Materials,
    tmp_path: Path,
) -> None:
    config = depth_alone(materials, tmp_path / "run")
    assert config.fine_tune is not None
    config = config.replace(fine_tune=config.fine_tune.replace(keep="best"))
    results = train_run(config)
    assert without_time(evaluate_run(tmp_path / "run").teacher) == without_time(results.teacher)
    rows = (
        RunFolder(tmp_path / "run").evaluation("fine_tune", 6),
        RunFolder(tmp_path / "run").evaluation("fine_tune", 12),
    )
    dev = taught(results).on("dev")
    assert dev is not None
    assert dev.score == max(row.score for step in rows for row in step)
