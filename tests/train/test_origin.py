"""Files of a run that belong to something else are refused: lost, swapped, older, or of another run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dynabert_jax.config.complete import CompleteFineTune, CompleteOptimizer, CompleteRun
from dynabert_jax.runs.files import RunFolderError, unsealed
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.origin import Origin, settings_of
from dynabert_jax.train.checkpoint import Checkpoints
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.train.run import train_run
from dynabert_jax.weights.files import load_model
from tiny_run import Finished, Materials, any_origin, lines


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture(scope="module")
def another(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with another seed."""
    folder = tmp_path_factory.mktemp("another") / "run"
    train_run(finished.config.replace(seed=7, run_dir=str(folder)))
    return folder


def again(finished: Finished, run: Path) -> None:
    """The same command once more, where nothing is left to train."""
    train_run(finished.config.replace(run_dir=str(run)))


def swap(left: Path, right: Path) -> None:
    aside = left.with_name("aside")
    left.rename(aside)
    right.rename(left)
    aside.rename(right)


def put(source: Path, target: Path) -> None:
    """In the place of what is there."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


# Stages


def test_stages_that_changed_places_are_refused(finished: Finished, run: Path) -> None:
    swap(run / "width", run / "depth")
    with pytest.raises(RunFolderError, match=r"width/last/12 does not belong here: it is of depth, not of width"):
        again(finished, run)


@pytest.mark.parametrize("part", ["last", "best"])
@pytest.mark.parametrize("stage", ["fine_tune", "width", "depth"])
def test_a_stage_is_not_taken_for_another(stage: str, part: str, finished: Finished, run: Path) -> None:
    put(run / "final" / part, run / stage / part)
    with pytest.raises(RunFolderError, match=rf"{stage}/{part}/\d+ does not belong here: it is of final, not of"):
        again(finished, run)


@pytest.mark.parametrize("part", ["last", "best"])
def test_a_stage_of_another_configuration_is_refused(part: str, finished: Finished, run: Path, another: Path) -> None:
    put(another / "width" / part, run / "width" / part)
    with pytest.raises(RunFolderError, match=rf"width/{part}/\d+ does not belong here: seed was 7 and is 42"):
        again(finished, run)


def test_a_stage_that_began_with_other_weights_is_refused(
    finished: Finished, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage before it was trained again, on a machine that adds in another order."""
    fingerprint = Origin.record
    monkeypatch.setattr(Origin, "record", lambda origin: fingerprint(origin) | {"start": "of other weights"})
    shutil.rmtree(run / "width")
    shutil.rmtree(run / "depth")
    shutil.rmtree(run / "final")
    again(finished, run)
    monkeypatch.setattr(Origin, "record", fingerprint)
    with pytest.raises(RunFolderError, match="it was made with other weights than the stage before it has now"):
        again(finished, run)


def test_the_best_weights_that_are_lost_are_missed(finished: Finished, run: Path) -> None:
    """Without them, the last ones would be passed on."""
    shutil.rmtree(run / "width" / "best")
    with pytest.raises(RunFolderError, match=r"width/best is missing, and stage width had chosen .+ trains them again"):
        again(finished, run)


def test_the_best_weights_that_are_lost_halfway_are_missed(finished: Finished, run: Path) -> None:
    """The log of the evaluation that chose them is lost, too, and the stage is not at an evaluation."""
    shutil.rmtree(run / "depth" / "last" / "12")
    shutil.rmtree(run / "depth" / "best")
    (run / "evaluations.jsonl").unlink()
    with pytest.raises(RunFolderError, match=r"depth/best is missing, and stage depth had chosen"):
        again(finished, run)


def test_best_weights_of_before_the_last_evaluation_are_refused(materials: Materials, tmp_path: Path) -> None:
    """The newest checkpoint is from before it; only the log knows that there were better ones."""
    stage = CompleteFineTune(epochs=1, optimizer=CompleteOptimizer(learning_rate=1e-2), keep="best")
    config = materials.fine_tuning(tmp_path / "run", fine_tune=stage)
    train_run(config)
    folder = tmp_path / "run" / "fine_tune" / "best"
    with Checkpoints(folder) as best:
        saved = best.restore({"params": load_model(tmp_path / "run" / "model").params})
    assert saved is not None
    shutil.rmtree(folder)
    with Checkpoints(folder) as best:
        best.save(1, saved.tree, saved.record | {"score": saved.record["score"] - 0.1})
    with pytest.raises(
        RunFolderError, match=r"best has weights with a score x 100 of .+, and stage fine_tune had chosen"
    ):
        train_run(config)


def test_best_weights_that_are_not_passed_on_are_not_missed(finished: Finished, run: Path) -> None:
    """The first stage keeps its last weights."""
    shutil.rmtree(run / "fine_tune" / "best")
    again(finished, run)


def test_a_checkpoint_under_the_name_of_another_step_is_refused(finished: Finished, run: Path) -> None:
    last = run / "width" / "last"
    shutil.rmtree(last / "12")
    (last / "8").rename(last / "12")
    with pytest.raises(RunFolderError, match=r"width/last/12 is of step 8\. Restore"):
        again(finished, run)


def test_a_lost_stage_is_trained_again_to_the_same_weights(finished: Finished, run: Path) -> None:
    shutil.rmtree(run / "fine_tune")
    (run / "importance.npz").unlink()
    again(finished, run)
    before, after = ((folder / "model" / "model.safetensors").read_bytes() for folder in (finished.folder, run))
    assert before == after


def test_a_checkpoint_of_an_older_version_may_have_held_out_other_rows(finished: Finished) -> None:
    """Those versions recorded no more than the data and the pretrained weights."""
    origin = Origin("width", settings_of(finished.config, "width"), "a", "b", "c")
    origin.check({"data": "a", "weights": "b"}, "file", "cure")
    with pytest.raises(
        RunFolderError, match=r"other train or dev data .+ an older version held out other rows for dev"
    ):
        origin.check({"data": "another", "weights": "b"}, "file", "cure")
    with pytest.raises(RunFolderError, match=r"other train or dev data \(texts, labels or tokens\)\. cure"):
        origin.check(origin.record() | {"data": "another"}, "file", "cure")


# Logs

LOGS = ("training.jsonl", "evaluations.jsonl")


def test_lines_of_another_run_are_dropped(finished: Finished, run: Path, another: Path) -> None:
    """Those of an older version do not say what run they are of, and stay."""
    before = [lines(run / name) for name in LOGS]
    for name in LOGS:
        with (run / name).open("a") as file:
            file.writelines((another / name).read_text().splitlines(keepends=True))
    again(finished, run)
    assert [[line for line in lines(run / name) if line["stage"] != "results"] for name in LOGS] == [
        [line for line in log if line["stage"] != "results"] for log in before
    ]
    for name in LOGS:
        older = [{key: value for key, value in line.items() if key != "run"} for line in lines(run / name)]
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in older))
    again(finished, run)
    assert [len(lines(run / name)) for name in LOGS] == [len(log) for log in before]


def test_an_evaluation_that_another_run_logged_is_done_again(finished: Finished, run: Path, another: Path) -> None:
    put(another / "evaluations.jsonl", run / "evaluations.jsonl")
    again(finished, run)
    steps = {(line["stage"], line["step"]) for line in lines(run / "evaluations.jsonl") if line["stage"] != "results"}
    assert steps == {(stage, 12) for stage in ("fine_tune", "width", "depth", "final")}
    assert len({line.get("run") for line in lines(run / "evaluations.jsonl") if line["stage"] != "results"}) == 1


def test_a_run_in_logs_is_its_fixed_settings_data_and_weights(finished: Finished) -> None:
    config = finished.config
    run = Origin("model", config, "a", "b", None).run
    changes = {"run_dir": "elsewhere", "model": "moved", "log_every": 7, "checkpoint_every": 7}
    assert Origin("model", config.replace(**changes), "a", "b", "c").run == run
    for other in (
        ("model", config.replace(seed=7), "a", "b"),
        ("model", config, "c", "b"),
        ("model", config, "a", "c"),
    ):
        assert Origin(*other, None).run not in (run, None)
    assert Origin("model", config, None, "b", None).run is None


# Importance


def test_importance_of_another_run_is_refused(finished: Finished, run: Path, another: Path) -> None:
    put(another / "importance.npz", run / "importance.npz")
    refused = pytest.raises(RunFolderError, match=r"importance\.npz does not belong here: seed was 7 and is 42")
    with refused:
        again(finished, run)
    with refused:
        RunFolder(run).read_importance(any_origin(finished.config, "importance"))


@pytest.mark.parametrize("name", ["data", "weights", "start"])
def test_importance_of_anything_else_is_refused(name: str, finished: Finished, run: Path) -> None:
    folder, config = RunFolder(run), settings_of(finished.config, "importance")
    scores = folder.read_importance(any_origin(finished.config, "importance"))
    made_from = {"data": "a", "weights": "b", "start": "c"}
    folder.write_importance(scores, Origin("importance", config, **(made_from | {name: "another"})))
    with pytest.raises(RunFolderError, match=r"importance\.npz does not belong here: it was made with other"):
        folder.read_importance(Origin("importance", config, **made_from))


# The model and its scores


def forget(*names: str) -> Callable[[Path, Path], None]:
    return lambda run, _: [(run / name).unlink() for name in names] and None


def take(*names: str) -> Callable[[Path, Path], None]:
    return lambda run, another: [put(another / name, run / name) for name in names] and None


def add(name: str, text: str) -> Callable[[Path, Path], None]:
    return lambda run, _: (run / name).write_text(text) and None


READERS = {"read": read_finished, "evaluate": evaluate_run, "weights": lambda run: read_finished(run).model}
ANOTHER = "is damaged, or was changed after it was written"


@pytest.mark.parametrize(
    ("change", "message", "readers"),
    [
        (take("model"), ANOTHER, ("evaluate", "weights")),
        (take("model/model.safetensors"), ANOTHER, ("evaluate", "weights")),
        (take("model", "model.json"), "seed was 7 and is 42", READERS),
        (take("model.json"), "seed was 7 and is 42", READERS),
        (take("results.json"), "has the scores of another model", ("read", "weights")),
        (take("config.json"), "seed was 42 and is 7", READERS),
        (forget("model.json"), "model.json is missing", READERS),
        (forget("model/vocab.txt"), "vocab.txt cannot be read", ("evaluate", "weights")),
        (
            add("model/special_tokens_map.json", '{"cls_token": "good"}'),
            "is not of this run, and would change",
            READERS,
        ),
        (add("model/added_tokens.json", '{"film": 5}'), "is not of this run, and would change", READERS),
    ],
)
def test_a_model_of_another_run_is_refused(
    change: Callable[[Path, Path], None], message: str, readers: tuple[str, ...], run: Path, another: Path
) -> None:
    change(run, another)
    for reader in readers:
        with pytest.raises(RunFolderError, match=message):
            READERS[reader](run)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model/config.json", '"1": "good"', '"1": "evil"'),
        ("model/vocab.txt", "good\ngreat", "great\ngood"),
        ("results.json", '"examples": 21', '"examples": 22'),
        ("model.json", '"seed": 42', '"seed": 43'),
    ],
)
def test_a_changed_file_is_refused(file: str, old: str, new: str, run: Path) -> None:
    text = (run / file).read_text()
    assert old in text
    (run / file).write_text(text.replace(old, new))
    with pytest.raises(RunFolderError, match="changed"):
        READERS["weights"](run)


def test_training_again_removes_what_is_of_another_tokenizer(finished: Finished, run: Path) -> None:
    (run / "model" / "special_tokens_map.json").write_text('{"cls_token": "good"}')
    (run / "model" / "notes.txt").write_text("mine")
    again(finished, run)
    names = {path.name for path in (run / "model").iterdir()}
    assert names == {path.name for path in (finished.folder / "model").iterdir()} | {"notes.txt"}
    assert evaluate_run(run).rows == finished.results.rows


def test_a_run_of_an_older_version_is_read_and_evaluated(run: Path) -> None:
    """It has no record of its model; the first evaluation writes one."""
    results = {name: value for name, value in unsealed((run / "results.json").read_text()).items() if name != "model"}
    (run / "results.json").write_text(json.dumps(results))
    (run / "model.json").unlink()
    rows = read_finished(run).rows
    assert evaluate_run(run).rows == rows == read_finished(run).rows
    assert read_finished(run).record["start"] == read_finished(run).model.fingerprint


def test_moved_data_and_other_paths_are_no_other_configuration(finished: Finished, run: Path, tmp_path: Path) -> None:
    """What lies there is compared, and not where."""
    for split in ("train", "dev", "test"):
        shutil.copyfile(getattr(finished.config.data, f"{split}_file"), tmp_path / f"{split}.csv")
    files = {f"{split}_file": str(tmp_path / f"{split}.csv") for split in ("train", "dev", "test")}
    moved = finished.config.replace(data=finished.config.data.replace(**files), model="gone")
    (run / "config.json").write_text(moved.to_json())
    assert evaluate_run(run).rows == finished.results.rows


def test_what_a_part_depends_on(materials: Materials, tmp_path: Path) -> None:
    config: CompleteRun = materials.config(tmp_path)
    assert settings_of(config, "fine_tune").stages.keys() == {"fine_tune"}
    assert settings_of(config, "fine_tune").importance is None
    assert settings_of(config, "importance").importance == config.importance
    assert settings_of(config, "width").stages.keys() == {"fine_tune", "width"}
    assert settings_of(config, "model") == config
