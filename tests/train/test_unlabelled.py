"""Texts without labels: what the width and depth stages learn from them, and what scores then mean."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
from dynabert_jax.choose.choose import Limits
from dynabert_jax.choose.question import Question, choose_run
from dynabert_jax.config import ConfigError, RunConfig
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.evaluate.evaluate import logits_of
from dynabert_jax.infer import in_jax
from dynabert_jax.model.params import Model
from dynabert_jax.report.facts import facts
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.latency_card import Where
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.train.log import StageLog
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.train.run import dry_run, train_run
from dynabert_jax.weights.files import load_model
from same_runs import logs_of
from tiny_run import LABELS, Materials, assert_equal_trees, lines

UNNAMED = Task(name="words", text_columns=("text",))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Different texts, none of which is in dev or test."""
    scored = {text for seed, count in ((1, 21), (2, 13)) for text, _ in tiny_run.sentences(count, seed)}
    found = dict.fromkeys(text for text, _ in tiny_run.sentences(90, seed=7) if text not in scored)
    return list(found)[:60]


@pytest.fixture(scope="module")
def teacher(
    materials: Materials,
    shared_programs: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A fine-tuned model, as the user has it."""
    folder = tmp_path_factory.mktemp("teacher")
    train_run(materials.fine_tuning(folder))
    return folder / "model"


def write_lines(path: Path, texts: Sequence[str]) -> str:
    path.write_text("\n".join(texts) + "\n")
    return str(path)


def distilling(materials: Materials, teacher: Path, run_dir: Path, **data: Any) -> RunConfig:
    """The width and depth stages, with a teacher that is there already."""
    files = {"train_file": None, "dev_file": None, "test_file": None}
    changes = materials.data(**(files | {"task": UNNAMED} | data))
    return materials.few_students(run_dir).replace(model=str(teacher), fine_tune=None, final=None, data=changes)


def losses_of(run: Path) -> list[dict[str, Any]]:
    """The training log without the losses on the labels."""
    return [
        {name: {k: v for k, v in parts.items() if k != "label"} for name, parts in line["losses"].items()}
        for line in lines(run / "training.jsonl")
    ]


# Nothing but unlabelled texts


def test_unlabelled_texts_teach_what_the_same_texts_with_the_teachers_answers_teach(
    materials: Materials, teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    """Bit for bit, with the importance that both are rewired by; and dev may have labels."""
    answers = [found.label for found in Predictor(teacher)(texts)]
    assert set(answers) == set(LABELS)
    tiny_run.write_csv(tmp_path / "train.csv", ("text", "label"), zip(texts, answers, strict=True))
    files = (write_lines(tmp_path / "a.txt", texts[:25]), write_lines(tmp_path / "b.txt", texts[25:]))
    base = distilling(materials, teacher, tmp_path / "alone", dev_file=materials.file("dev"), unlabelled_files=files)
    alone, labelled = (
        base,
        base.replace(
            run_dir=str(tmp_path / "labelled"),
            data=base.data.replace(unlabelled_files=(), train_file=str(tmp_path / "train.csv"), task=tiny_run.TASK),
        ),
    )
    theirs, ours = train_run(labelled), train_run(alone)
    assert ours.rows == theirs.rows
    assert {row.against for row in ours.rows} == {"labels"}
    models = [load_model(tmp_path / run / "model") for run in ("labelled", "alone")]
    assert_equal_trees(models[0].params, models[1].params)
    assert losses_of(tmp_path / "alone") == losses_of(tmp_path / "labelled")
    assert all("label" not in parts for line in lines(tmp_path / "alone" / "training.jsonl")
               for parts in line["losses"].values())  # fmt: skip


@pytest.fixture(scope="module")
def alone(
    materials: Materials, teacher: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, Any]:
    """A run on unlabelled texts alone, with what it returned and said."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(teacher, folder / "teacher")
    config = distilling(
        materials, teacher, folder / "run", unlabelled_files=(write_lines(folder / "a.txt", texts),)
    ).replace(model=str(folder / "teacher"))
    with tiny_run.messages_logged() as messages:
        results = train_run(config)
    return config, (results, messages)


def test_scores_are_agreement_with_the_teacher(alone: tuple[RunConfig, Any]) -> None:
    """Counted by hand: how often a size gives the class that the teacher gives, on the texts that were held out."""
    config, (results, _) = alone
    pretrained, trained = load_model(config.model), load_model(Path(config.run_dir) / "model")
    assert trained.config.labels == LABELS
    tokenizer = load_tokenizer(config.model, pretrained.config)
    dev = load_data(config.data, tokenizer, LABELS).dev["dev"]
    assert (len(dev), dev.against) == (6, None)

    def classes(model: Model) -> Any:
        return logits_of(in_jax.open_model(model), dev, config.data, 0).argmax(axis=1)

    assert [row.sub for row in results.rows] == ["w1_d1", "w1_d0.5"]
    for row in results.rows:
        sub = SubNetwork.uniform(trained.config, row.width or 0, row.depth or 0)
        agreed = np.mean(classes(trained.cut(sub)) == classes(pretrained))
        assert (row.against, row.examples, row.scores) == ("teacher", 6, {"accuracy": pytest.approx(agreed)})


def test_everything_says_so(alone: tuple[RunConfig, Any]) -> None:
    config, (results, messages) = alone
    run, words = Path(config.run_dir), "agreement with the teacher (accuracy)"
    assert f"dev: {words} x 100, 6 examples" in str(results)
    assert f"dev: {words} x 100, 6 examples" in (run / "results.md").read_text()
    written = json.loads((run / "results.json").read_text())
    assert {row["against"] for row in written["rows"]} == {"teacher"}
    assert {line["against"] for line in lines(run / "evaluations.jsonl")} == {"teacher"}
    assert any(f"depth step 14: mean dev {words}" in message for message in messages)
    said = [message for message in messages if message.startswith(("train:", "dev:", "model:"))]
    assert said[0].startswith("train: 54 rows; no labels; ")
    assert said[1].startswith("dev: 6 rows; no labels; ")
    assert "model: the classes are those that its config.json names, in its order: bad, good" in said
    assert any("scores are agreement with the teacher" in message for message in said)
    assert any("importance of heads and neurons is that for the teacher's answers" in message for message in said)
    chosen = choose_run(run, Question(Limits(), Where()))
    assert words in str(chosen)
    assert json.loads(chosen.to_json())["against"] == "teacher"
    assert facts(run).metric == words


def test_a_run_is_scored_again_without_its_teacher(alone: tuple[RunConfig, Any], tmp_path: Path) -> None:
    config, (results, _) = alone
    shutil.copytree(config.run_dir, tmp_path / "run")
    Path(config.model).rename(tmp_path / "teacher")
    try:
        assert evaluate_run(tmp_path / "run").rows == results.rows
        (tmp_path / "run" / "answers.npz").unlink()
        with pytest.raises(RunFolderError, match=r"answers\.npz is missing; restore it"):
            evaluate_run(tmp_path / "run")
    finally:
        (tmp_path / "teacher").rename(config.model)


def test_answers_to_other_texts_are_refused(alone: tuple[RunConfig, Any], tmp_path: Path, texts: list[str]) -> None:
    config, _ = alone
    shutil.copytree(config.run_dir, tmp_path / "run")
    other = config.replace(
        run_dir=str(tmp_path / "other"),
        data=config.data.replace(unlabelled_files=(write_lines(tmp_path / "other.txt", texts[:30]),)),
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(other.to_json())
    shutil.copy(tmp_path / "run" / "answers.npz", tmp_path / "other")
    with pytest.raises(RunFolderError, match=r"answers\.npz does not belong here: it was made with other train or dev"):
        train_run(other)


def test_a_run_on_unlabelled_texts_goes_on_where_it_was_stopped(
    alone: tuple[RunConfig, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = alone[0].replace(run_dir=str(tmp_path / "run"))
    step = StageLog.step

    def stop(log: StageLog, taken: Any, *args: Any) -> None:
        step(log, taken, *args)
        if (log.stage.name, taken.number + 1) == ("depth", 9):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StageLog, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            train_run(config)
    assert train_run(config).rows == alone[1][0].rows
    assert logs_of(tmp_path / "run") == logs_of(Path(alone[0].run_dir))
    models = [load_model(Path(run.run_dir) / "model") for run in (config, alone[0])]
    assert_equal_trees(models[0].params, models[1].params)


def test_a_regression_agrees_with_its_teachers_numbers(
    materials: Materials, teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    shape = tiny_run.MODEL.replace(head="regression", labels=("value",))
    tiny_run.write_model(tmp_path / "teacher", shape)
    task = Task(name="values", text_columns=("text",), kind="regression", metrics=("pearson", "mean_absolute_error"))
    config = distilling(
        materials, teacher, tmp_path / "run", task=task, unlabelled_files=(write_lines(tmp_path / "a.txt", texts),)
    ).replace(model=str(tmp_path / "teacher"))
    rows = train_run(config).rows
    assert {row.measure for row in rows} == {"agreement with the teacher (pearson)"}
    assert min(row.score for row in rows) > 0.5
    with pytest.raises(ConfigError, match=r"describes a regression \(value\), and the task is a classification"):
        train_run(config.replace(run_dir=str(tmp_path / "other"), data=config.data.replace(task=UNNAMED)))


# Beside labelled texts


def test_unlabelled_texts_beside_labelled_ones_teach_as_if_they_were_among_them(
    materials: Materials, teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    """Bit for bit, whatever labels they would have had, where importance does not depend on them."""
    labelled = tiny_run.sentences(44, 0)
    rows = [*labelled, *((text, LABELS[i % 2]) for i, text in enumerate(texts))]
    tiny_run.write_csv(tmp_path / "all.csv", ("text", "label"), rows)
    pandas_like = tmp_path / "texts.tsv"
    tiny_run.write_csv(pandas_like, ("other", "text"), [("-", text) for text in texts], delimiter="\t")
    files = {"dev_file": materials.file("dev"), "task": tiny_run.TASK}
    together = distilling(materials, teacher, tmp_path / "together", train_file=str(tmp_path / "all.csv"), **files)
    beside = distilling(
        materials,
        teacher,
        tmp_path / "beside",
        train_file=materials.file("train"),
        unlabelled_files=(str(pandas_like),),
        **files,
    )
    by_dev = together.importance and together.importance.replace(split="dev")
    theirs, ours = (train_run(config.replace(importance=by_dev)) for config in (together, beside))
    assert ours.rows == theirs.rows
    assert losses_of(tmp_path / "beside") == losses_of(tmp_path / "together")
    models = [load_model(tmp_path / run / "model") for run in ("together", "beside")]
    assert_equal_trees(models[0].params, models[1].params)
    assert len(facts(tmp_path / "beside").importance) == 2  # its file is found to be of this run


def test_stages_that_learn_labels_do_without_unlabelled_texts(
    materials: Materials, texts: list[str], tmp_path: Path
) -> None:
    """44 labelled and 60 unlabelled texts in batches of 8: 6 steps of an epoch for the first, 13 with the second."""
    base = materials.few_students(tmp_path / "run")
    config = base.replace(data=base.data.replace(unlabelled_files=(write_lines(tmp_path / "a.txt", texts),)))
    assert "44 train, 60 unlabelled, 21 dev, 13 test examples" in str(dry_run(config))
    train_run(config)
    last = {line["stage"]: line["step"] for line in lines(tmp_path / "run" / "training.jsonl")}
    assert last == {"fine_tune": 12, "width": 26, "depth": 26, "final": 12}
    labelled = {line["stage"] for line in lines(tmp_path / "run" / "training.jsonl")
                if all("label" in parts for parts in line["losses"].values())}  # fmt: skip
    assert labelled == {"fine_tune", "final"}


def test_what_is_scored_on_is_not_trained_on(materials: Materials, teacher: Path, tmp_path: Path) -> None:
    """Neither where dev is a file nor where it is held out."""
    train = tiny_run.sentences(44, 0)
    file = write_lines(tmp_path / "a.txt", [text.upper() for text, _ in train] + ["never seen", "  ", ""])
    config = materials.data(dev_file=None, test_file=None, unlabelled_files=(file,))
    data = load_data(config, load_tokenizer(teacher, tiny_run.MODEL))
    assert data.held_out
    assert data.unlabelled is not None
    held_out = {train[row][0] for row in np.setdiff1d(np.arange(44), data.train.origins)}
    kept = [text for text, _ in train if text not in held_out]
    assert len(data.unlabelled) == len(kept) + 1
    summary = next(one for one in data.summaries if one.name == "unlabelled")
    assert (summary.left_out, summary.is_labelled, summary.classes) == (44 - len(kept), False, {})
    assert f"{44 - len(kept)} more texts left out, because they are in dev or test" in str(summary)
    assert not summary.warnings


# What is refused


@pytest.mark.parametrize(
    ("changes", "data", "message"),
    [
        ({"fine_tune": tiny_run.CompleteFineTune()}, {}, "fine_tune need labels, and data.unlabelled_files have none"),
        ({"final": tiny_run.CompleteFinalStage()}, {}, "final need labels"),
        ({"width": tiny_run.CompleteWidthStage(label_weight=0.5)}, {}, r"width\.label_weight needs labels"),
        ({"depth": tiny_run.CompleteDepthStage(label_weight=0.5)}, {"train_file": "a.csv"}, r"depth\.label_weight"),
        ({}, {"test_file": "a.csv"}, "a test_file with labels needs a dev_file with labels"),
    ],
)  # fmt: skip
def test_what_needs_labels_is_refused_without_them(
    materials: Materials, teacher: Path, tmp_path: Path, changes: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        distilling(materials, teacher, tmp_path / "run", unlabelled_files=("a.txt",), **data).replace(**changes)


@pytest.mark.parametrize(
    ("files", "data", "message"),
    [
        ({"a.txt": "\n \n"}, {}, "every line is blank"),
        ({"a.txt": "a\n"}, {"task": Task(name="pairs", text_columns=("one", "two"))}, "a .txt has one text a line"),
        ({"a.txt": "a\n", "b.csv": "words\nb\n"}, {}, "b.csv: no column 'text'"),
        ({"a.txt": "a\n", "b.md": "b\n"}, {}, "the extension '.md' is not supported"),
        ({"a.txt": "a film\x00\n"}, {}, "contains a NUL character"),
        ({"a.txt": "a\n"}, {}, "one row cannot be divided into train and dev"),
        ({"a.txt": "a plot\n"}, {"dev": "text,label\nA  plot,good\n"}, "every text is also in dev or test"),
        ({"a.txt": "a\nb\n"}, {"dev": "text,label\nc,nice\n"}, "those that the model's config.json names"),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    materials: Materials, teacher: Path, tmp_path: Path, files: dict[str, str], data: dict[str, Any], message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    if "dev" in data:
        (tmp_path / "dev.csv").write_text(data["dev"])
        data = {"dev_file": str(tmp_path / "dev.csv")}
    named = tuple(str(tmp_path / name) for name in files)
    with pytest.raises(DataError, match=message):
        train_run(distilling(materials, teacher, tmp_path / "run", unlabelled_files=named, **data))
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_classifier_cannot_teach(
    materials: Materials, teacher: Path, texts: list[str], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(teacher, tmp_path / "encoder")
    file = tmp_path / "encoder" / "model.safetensors"
    save_file({name: a for name, a in load_file(file).items() if "classifier" not in name}, file)
    config = distilling(
        materials, teacher, tmp_path / "run", unlabelled_files=(write_lines(tmp_path / "a.txt", texts),)
    )
    with pytest.raises(ConfigError, match="has no classifier, and nothing is labelled"):
        train_run(config.replace(model=str(tmp_path / "encoder")))


def test_unlabelled_texts_that_no_stage_would_use_are_refused(materials: Materials, tmp_path: Path) -> None:
    data = materials.data(unlabelled_files=(write_lines(tmp_path / "a.txt", ["a"]),))
    with pytest.raises(ConfigError, match="are trained on by the width and depth stages, and the run has neither"):
        train_run(materials.fine_tuning(tmp_path / "run", data=data))
