"""Whole runs: what a run leaves behind, and that a run that was stopped ends as if it never had been."""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

import tiny_run
import train
from dynabert_jax.config import ModelConfig
from dynabert_jax.config.complete import CompleteOptimizer, CompleteRun
from dynabert_jax.config.tasks import DevSplit, GlueLayout, Task
from dynabert_jax.config.unit import Unit
from dynabert_jax.data.batches import make_batch, plan_batch
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.model.bert import Bert
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.serve.predict import predict_texts
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.train import loop
from dynabert_jax.train.checkpoint import Checkpoints
from dynabert_jax.train.context import TrainingError
from dynabert_jax.train.log import StageLog
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.train.run import prepare, train_one_stage, train_run
from dynabert_jax.train.step_order import PlannedStep
from dynabert_jax.weights.files import load_model, save_model
from same_runs import assert_same_runs, kept_params, last_state, logs_of
from tiny import Params, run
from tiny_run import STEPS, Finished, Materials, any_origin, assert_equal_trees, lines, write_config

STUDENTS = {"fine_tune": 1, "width": 2, "depth": 4, "final": 2}
EVALUATED = (6, 12)  # the steps that end an epoch
LOGGED = (5, 10, 12)  # every fifth step, and the last one


# What a run leaves behind


def test_the_folder_holds_what_it_promises(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {
        "config.json", "importance.npz", "training.jsonl", "evaluations.jsonl", "tensorboard", "model",
        "model.json", "results.json", "results.md", "fine_tune", "width", "depth", "final", ".lock",
    }  # fmt: skip
    for stage in STUDENTS:
        assert {path.name for path in (finished.folder / stage / "last").iterdir()} == {"8", str(STEPS)}
        assert len(list((finished.folder / stage / "best").iterdir())) == 1
    assert RunFolder(finished.folder).config() == finished.config


def test_every_evaluation_of_every_sub_network_is_logged_with_its_origin(finished: Finished) -> None:
    logged = lines(finished.folder / "evaluations.jsonl")
    found = [(line["stage"], line["step"]) for line in logged]
    stages = [(stage, step) for stage, many in STUDENTS.items() for step in EVALUATED for _ in range(many)]
    assert found == stages + 4 * [("results", None)]
    splits = ["dev"] * len(stages) + ["dev", "dev", "test", "test"]
    for line, split in zip(logged, splits, strict=True):
        count = {"dev": 21, "test": 13}[split]
        assert (line["split"], line["examples"], line["metric"]) == (split, count, "accuracy")
        assert line["scores"]["accuracy"] * count == pytest.approx(round(line["scores"]["accuracy"] * count))
        assert (line["seed"], line["dtype"]) == (42, "float32")
        assert (line["jax"], line["devices"]) == (jax.__version__, jax.local_device_count())
        assert line["device"] == jax.local_devices()[0].device_kind
        assert line["python"] == ".".join(map(str, sys.version_info[:3]))
        time.strptime(line["time"], "%Y-%m-%dT%H:%M:%SZ")
    depth = [line["sub"] for line in logged if line["stage"] == "depth" and line["step"] == STEPS]
    assert depth == ["w1_d1", "w1_d0.5", "w0.5_d1", "w0.5_d0.5"]


def test_training_is_logged_every_few_steps(finished: Finished) -> None:
    logged = lines(finished.folder / "training.jsonl")
    assert [(line["stage"], line["step"]) for line in logged] == [(s, step) for s in STUDENTS for step in LOGGED]
    for line in logged:
        assert len(line["losses"]) == STUDENTS[line["stage"]]
        totals = [parts["total"] for parts in line["losses"].values()]
        assert line["loss"] == pytest.approx(np.mean(totals))
        assert line["grad_norm"] > 0
        assert line["examples_per_second"] > 0
        assert 0 < line["flops_utilization"] < 1
        # The schedule falls to 0 at the end of a stage; the rate is that of the step that was taken.
        assert line["learning_rate"] == pytest.approx(1e-2 * (1 - (line["step"] - 1) / STEPS), rel=1e-5)


def test_tensorboard_gets_what_the_logs_hold(finished: Finished) -> None:
    for stage in STUDENTS:
        expected = (
            {
                (name, line["step"]): line[name]
                for line in lines(finished.folder / "training.jsonl")
                for name in ("loss", "learning_rate", "grad_norm", "examples_per_second", "flops_utilization")
                if line["stage"] == stage
            }
            | {
                (f"loss/{sub}", line["step"]): parts["total"]
                for line in lines(finished.folder / "training.jsonl")
                for sub, parts in line["losses"].items()
                if line["stage"] == stage
            }
            | {
                (f"dev/accuracy/{line['sub']}", line["step"]): line["scores"]["accuracy"]
                for line in lines(finished.folder / "evaluations.jsonl")
                if line["stage"] == stage
            }
        )
        found = dict(read_scalars(finished.folder / "tensorboard" / stage))
        assert found.pop(("seconds_to_first_step", 1)) > 0
        assert found == {key: pytest.approx(value, rel=1e-6) for key, value in expected.items()}


def read_scalars(folder: Path) -> Iterator[tuple[tuple[str, int], float]]:
    """Name and step, and value, of every scalar, read as TensorFlow's record files are laid out."""
    from tensorboardX.proto.event_pb2 import Event

    for file in folder.iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)  # then a checksum of 4 bytes, the record, and another
            event = Event.FromString(data[at + 12 : at + 12 + length])
            yield from (((value.tag, event.step), value.simple_value) for value in event.summary.value)
            at += 16 + length


def test_the_results_are_those_of_the_published_model(finished: Finished) -> None:
    """Scored once more one sentence at a time, with the sub-network sliced inside the full-size model."""
    written = json.loads((finished.folder / "results.json").read_text())
    assert written["rows"] == [row.model_dump() for row in finished.results.rows]
    assert written["provenance"].items() >= {"seed": 42, "jax": jax.__version__}.items()
    model = load_model(finished.folder / "model")
    assert model.config == tiny_run.MODEL
    assert [(row.split, row.width, row.depth) for row in finished.results.rows] == [
        (split, 1.0, depth) for split in ("dev", "test") for depth in (1.0, 0.5)
    ]
    data = load_data(finished.config.data, load_tokenizer(finished.folder / "model", tiny_run.MODEL))
    for row in finished.results.rows:
        split = {**data.dev, **data.test}[row.split]
        sub = SubNetwork.uniform(model.config, row.width or 0, row.depth or 0)
        answers = answer_one_by_one(model.config, model.params, split.input_ids, sub).argmax(1)
        assert row.scores == {"accuracy": pytest.approx(np.mean(answers == split.labels))}
        assert row.examples == len(split.labels)


def answer_one_by_one(config: ModelConfig, params: Params, sentences: Sequence[np.ndarray], sub: Any) -> np.ndarray:
    """Logits `[n, C]` of sentences that are padded to one length, so that one compiled function does for all."""

    @jax.jit
    def forward(ids: jax.Array, mask: jax.Array) -> jax.Array:
        return Bert(config).apply({"params": params}, ids, mask, jnp.zeros_like(ids), sub).logits

    length = max(map(len, sentences))
    padded = [np.pad(ids, (0, length - len(ids)))[None] for ids in sentences]
    masks = [(np.arange(length) < len(ids)).astype(np.int32)[None] for ids in sentences]
    return np.concatenate([forward(ids, mask) for ids, mask in zip(padded, masks, strict=True)])


def test_the_published_model_is_rewired_and_trained(finished: Finished) -> None:
    """Its heads stand by importance: those of the fine-tuned model in the order of their scores, and then trained."""
    scores = RunFolder(finished.folder).read_importance(any_origin(finished.config, "importance"))
    assert [len(heads) for heads in scores.heads] == [4, 4]
    assert [len(neurons) for neurons in scores.neurons] == [24, 24]
    kept = kept_params(finished.config, "final")
    assert_equal_trees(load_model(finished.folder / "model").params, kept)


def test_the_sub_networks_have_learnt(finished: Finished) -> None:
    """Every size of the depth stage tells most sentences right, though narrow ones were never shown a label."""
    depth = [line for line in lines(finished.folder / "evaluations.jsonl") if line["stage"] == "depth"]
    assert min(line["scores"]["accuracy"] for line in depth if line["step"] == STEPS) > 0.75


def test_the_table_is_returned_and_written(finished: Finished) -> None:
    table = (finished.folder / "results.md").read_text()
    assert str(finished.results) == f"{table}\nwritten to {finished.folder / 'results.md'}"
    assert "| depth 0.5 |" in table


def test_without_a_terminal_the_bar_is_lines(finished: Finished) -> None:
    assert "\r" not in finished.errors
    pattern = r"depth: 100 %, 88 of 88 examples \[\d\d:\d\d<00:00, .+, loss=\d\.\d{4}\]"  # 44 in each of 2 epochs
    shown = [line for line in finished.errors.splitlines() if line.startswith("depth: 100 %")]
    assert re.fullmatch(pattern, shown[-1])
    assert any("depth step 12: mean dev accuracy" in message for message in finished.messages)


def test_every_stage_tells_how_long_its_first_step_took(finished: Finished) -> None:
    pattern = r"(\w+): first step after \d+\.\d s, including compilation"
    said = [found[1] for message in finished.messages if (found := re.fullmatch(pattern, message))]
    assert said == list(STUDENTS)


def test_importance_has_a_bar(finished: Finished) -> None:
    (shown,) = (line for line in finished.errors.splitlines() if line.startswith("importance: "))
    assert "20 of 20 examples" in shown


# Going on


def test_a_finished_run_trains_nothing_and_tells_its_results_again(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its folder has been moved to another place."""
    moved = tmp_path / "moved"
    shutil.copytree(finished.folder, moved)
    before = logs_of(moved)
    monkeypatch.setattr("dynabert_jax.train.loop.train_step", lambda *_: pytest.fail("there is nothing to train"))
    results = train_run(finished.config.replace(run_dir=str(moved)))
    assert list(results.rows) == list(finished.results.rows)
    assert logs_of(moved) == before
    assert (moved / "results.md").read_text() in str(results)


@pytest.mark.usefixtures("kept_programs")
def test_stages_one_by_one_are_the_whole_run(finished: Finished, tmp_path: Path) -> None:
    config = finished.config.replace(run_dir=str(tmp_path))
    with pytest.raises(TrainingError, match="stage fine_tune before it has done 0 of 12 steps; run it first"):
        train_one_stage(config, "depth")
    assert list(tmp_path.iterdir()) == []
    rows = list(train_one_stage(config, "fine_tune").rows)
    assert [row.sub for row in rows] == ["w1_d1"] * 2
    with pytest.raises(TrainingError, match="stage width before it has done 0 of 12 steps; run it first"):
        train_one_stage(config, "depth")
    assert not RunFolder(tmp_path).importance_file.exists()  # that would have been work
    for stage in ("width", "depth", "final"):
        rows = list(train_one_stage(config, stage).rows)
    assert rows == list(finished.results.rows)
    assert_same_runs(finished.config, config)


Points = list[tuple[str, str, int]]


class Interruptions:
    """Presses Ctrl-C at points of a run, one after another: the function that is left, the stage, and the step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, points: Points):
        self.points = points
        step, evaluation, save = StageLog.step, StageLog.evaluation, Checkpoints.save

        def log_step(log: StageLog, taken: PlannedStep, *args: Any) -> None:
            step(log, taken, *args)
            self.reach("step", log.stage.name, taken.number + 1)

        def log_evaluation(log: StageLog, done: int, *args: Any) -> None:
            evaluation(log, done, *args)
            self.reach("evaluation", log.stage.name, done)

        def save_checkpoint(checkpoints: Checkpoints, done: int, *args: Any) -> None:
            save(checkpoints, done, *args)
            self.reach(checkpoints.folder.name, checkpoints.folder.parent.name, done)

        def write_importance(*args: Any) -> None:
            self.reach("importance", "width", 0)
            importance(*args)

        importance = RunFolder.write_importance
        monkeypatch.setattr(StageLog, "step", log_step)
        monkeypatch.setattr(StageLog, "evaluation", log_evaluation)
        monkeypatch.setattr(Checkpoints, "save", save_checkpoint)
        monkeypatch.setattr(RunFolder, "write_importance", write_importance)

    def reach(self, *point: Any) -> None:
        if self.points and self.points[0] == point:
            del self.points[0]
            raise KeyboardInterrupt


@pytest.mark.usefixtures("kept_programs")
def test_a_run_that_is_stopped_again_and_again_ends_as_if_it_never_was(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: Points = [
        ("step", "fine_tune", 2),  # before there is any checkpoint
        ("step", "fine_tune", 5),  # logged, and behind the checkpoint of step 4
        ("last", "fine_tune", 6),  # kept, and not evaluated
        ("evaluation", "fine_tune", 6),  # evaluated when the run went on
        ("last", "fine_tune", 12),  # done, and not evaluated
        ("evaluation", "fine_tune", 12),
        ("importance", "width", 0),  # computed, and not kept
        ("best", "width", 1),  # the best is kept, and the log does not say so
        ("evaluation", "width", 12),
        ("step", "depth", 11),
        ("best", "final", 1),
    ]
    config = finished.config.replace(run_dir=str(tmp_path))
    interruptions = Interruptions(monkeypatch, points)
    while interruptions.points:
        with pytest.raises(KeyboardInterrupt):
            train_run(config)
    assert train_run(config).rows == finished.results.rows
    assert_same_runs(finished.config, config)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process the POSIX way")
def test_a_run_that_is_killed_ends_as_if_it_never_was(finished: Finished, tmp_path: Path) -> None:
    """By a signal that no process can answer, at a moment that its log tells; then the same command."""
    config = finished.config.replace(run_dir=str(tmp_path / "run"))
    command = [sys.executable, str(Path(train.__file__)), str(write_config(tmp_path / "config.py", config))]
    with start(command, finished.programs) as process:
        wait_for(lambda: ("width", 5) in steps_logged(config), process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "run" / "model").exists()
    with start(command, finished.programs) as process:
        output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert (finished.folder / "results.md").read_text() in output
    assert "loss=" in errors
    assert_same_runs(finished.config, config)


@pytest.mark.usefixtures("finished")
def test_no_secret_of_the_environment_is_written(
    materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_nobodyknows")
    train_run(materials.fine_tuning(tmp_path))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"nobodyknows" in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first_and_says_how_to_go_on(finished: Finished, tmp_path: Path, number: int) -> None:
    """Between two checkpoints: what was done since the last one is not lost."""
    config = finished.config.replace(run_dir=str(tmp_path / "run"), checkpoint_every=1000)
    command = [sys.executable, str(Path(train.__file__)), str(write_config(tmp_path / "config.py", config))]
    with start(command, finished.programs) as process:
        wait_for(lambda: ("depth", 5) in steps_logged(config), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    message = re.search(
        r"stopped: step (\d+) of 12 of stage depth is saved; the same command resumes from there", errors
    )
    assert message, errors
    saved = tmp_path / "run" / "depth" / "last"
    assert max(int(path.name) for path in saved.iterdir()) == int(message[1]) >= 5
    with start(command, finished.programs) as process:
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert_same_runs(finished.config, config)


@contextlib.contextmanager
def start(command: list[str], programs: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that computes as this one does."""
    environment = os.environ | {name: str(value) for name, value in tiny_run.cache_settings(programs).items()}
    process = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def steps_logged(config: CompleteRun) -> set[tuple[str, int]]:
    file = Path(config.run_dir) / "training.jsonl"
    whole = file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []
    return {(line["stage"], line["step"]) for line in map(json.loads, whole)}


def test_a_folder_of_another_configuration_is_refused(finished: Finished) -> None:
    """The message names every setting that differs, as it was and as it is."""
    optimizer = CompleteOptimizer(learning_rate=2e-2)
    changed = finished.config.replace(seed=7, width=finished.config.width.replace(optimizer=optimizer))
    with pytest.raises(RunFolderError) as error:
        train_run(changed)
    assert "seed was 42 and is 7" in str(error.value)
    assert "width.optimizer.learning_rate was 0.01 and is 0.02" in str(error.value)
    assert "depth" not in str(error.value)


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("column", ["text", "label"])
def test_other_data_under_the_same_name_is_refused(
    column: str, split: str, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a run on one set of examples and half on another would be the result of neither."""
    file, run = tmp_path / "data.csv", tmp_path / "run"
    before = Path(getattr(finished.config.data, f"{split}_file"))
    shutil.copyfile(before, file)
    shutil.copytree(finished.folder, run)
    data = finished.config.data.replace(**{f"{split}_file": str(file)})
    config = finished.config.replace(run_dir=str(run), data=data)
    (run / "config.json").write_text(config.to_json(), encoding="utf-8")
    monkeypatch.setattr("dynabert_jax.train.loop.train_step", lambda *_: pytest.fail("there is nothing to train"))
    assert train_run(config).rows == finished.results.rows
    with before.open(newline="") as rows:
        first, *rest = list(csv.reader(rows))[1:]
    other = {"text": ("film", first[1]), "label": (first[0], "bad" if first[1] == "good" else "good")}[column]
    tiny_run.write_csv(file, ("text", "label"), [other, *rest])
    with pytest.raises(
        RunFolderError,
        match=r"fine_tune/last/12 does not belong here: it was made with other train or dev data .+ new folder",
    ):
        train_run(config)


@pytest.mark.usefixtures("finished")
def test_other_pretrained_weights_under_the_same_name_are_refused(materials: Materials, tmp_path: Path) -> None:
    """As where a hub name has got new ones: a teacher would be another one halfway through."""
    model = tmp_path / "model"
    shutil.copytree(materials.model, model)
    config = materials.fine_tuning(tmp_path / "run", model=str(model))
    rows = list(train_run(config).rows)
    assert list(train_run(config).rows) == rows
    loaded = load_model(model)
    save_model(model, loaded.config, jax.tree.map(lambda a: 1.5 * a, loaded.params))
    with pytest.raises(
        RunFolderError,
        match=r"fine_tune/last/12 does not belong here: it was made with other pretrained weights\. .+ new folder",
    ):
        train_run(config)


@pytest.mark.usefixtures("finished")
def test_a_device_holds_nothing_of_a_stage_that_is_over(
    materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_stage, handed_on = loop.train_stage, []
    monkeypatch.setattr(
        "dynabert_jax.train.run.train_stage", lambda *a, **k: handed_on.append(train_stage(*a, **k)) or handed_on[-1]
    )
    train_run(materials.fine_tuning(tmp_path))
    assert len(handed_on) == 1
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(handed_on))


# What a stage keeps


@pytest.fixture
def params_by_step(monkeypatch: pytest.MonkeyPatch) -> dict[int, Params]:
    """The parameters after every training step, filled in as the steps are taken."""
    taken: dict[int, Params] = {}
    step = loop.train_step

    def train_step(*args: Any) -> Any:
        state, report = step(*args)
        taken[int(state.step)] = jax.device_get(state.params)
        return state, report

    monkeypatch.setattr("dynabert_jax.train.loop.train_step", train_step)
    return taken


@pytest.fixture
def scored_worse_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    score_dev, scores = loop.score_dev, iter((0.9, 0.8))

    def worse(*arguments: Any) -> list[Any]:
        score = next(scores)
        return [row.replace(scores={"accuracy": score}) for row in score_dev(*arguments)]

    monkeypatch.setattr("dynabert_jax.train.loop.score_dev", worse)


@pytest.mark.usefixtures("finished", "scored_worse_at_the_end")
@pytest.mark.parametrize(("keep", "kept"), [("best", 6), ("last", 12)])
def test_a_stage_hands_on_its_best_or_its_last_weights(
    keep: Any, kept: int, materials: Materials, tmp_path: Path, params_by_step: dict[int, Params]
) -> None:
    """The other ones stay beside them."""
    base = materials.config(tmp_path).fine_tune
    assert base is not None
    config = materials.fine_tuning(tmp_path, fine_tune=base.replace(keep=keep))
    train_run(config)
    assert_equal_trees(load_model(tmp_path / "model").params, params_by_step[kept])
    assert_equal_trees(last_state(config, "fine_tune").params, params_by_step[12])
    best = config.replace(fine_tune=base.replace(keep="best"))
    assert_equal_trees(kept_params(best, "fine_tune"), params_by_step[6])
    assert not np.array_equal(params_by_step[6]["classifier"]["kernel"], params_by_step[12]["classifier"]["kernel"])


# Other tasks

ONE_LAYER = tiny_run.MODEL.replace(heads=(4,), neurons=(24,))


PRICES = {"good": 78_000.0, "bad": 36_000.0}


@pytest.fixture(scope="module")
def prices(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> CompleteRun:
    """A run that learns prices of good and bad things: first the wide network, and from it the narrow one."""
    folder = tmp_path_factory.mktemp("prices")
    tiny_run.write_model(folder / "model", ONE_LAYER)
    write_numbers(folder, PRICES)
    base = materials.config(folder / "run", model=str(folder / "model"))
    assert base.width is not None
    task = Task(name="prices", text_columns=("text",), label_column="price", regression=True)
    files = {f"{split}_file": str(folder / f"{split}.csv") for split in ("train", "dev")}
    config = base.replace(
        data=materials.data(task=task, test_file=None, **files),
        width=base.width.replace(widths=(0.5,)),
        depth=None,
        final=None,
    )
    train_run(config)
    return config


def write_numbers(folder: Path, numbers: dict[str, float]) -> None:
    """Texts with the numbers of good and bad ones, each with its own noise of up to a tenth of their difference."""
    noise = 0.1 * (numbers["good"] - numbers["bad"])
    for seed, (split, count) in enumerate({"train": 44, "dev": 21}.items()):
        rng = np.random.default_rng(seed)
        rows = [(text, numbers[label] + noise * rng.uniform()) for text, label in tiny_run.sentences(count, seed)]
        tiny_run.write_csv(folder / f"{split}.csv", ("text", "price"), rows)


def numbers_of(config: CompleteRun, split: str) -> tuple[list[str], np.ndarray]:
    with Path(getattr(config.data, f"{split}_file")).open() as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], np.array([float(row["price"]) for row in rows])


def test_a_regression_is_distilled_and_scored(prices: CompleteRun) -> None:
    """In the user's unit, in which its model answers."""
    (row,) = read_finished(prices.run_dir).rows
    assert row.sub == "w0.5_d1"
    assert row.metric == "pearson"
    texts, wanted = numbers_of(prices, "dev")
    answers = [one.number for one in predict_texts(prices.run_dir, texts)]
    assert row.scores["pearson"] == pytest.approx(pearsonr(answers, wanted).statistic, abs=1e-6)
    assert row.scores["pearson"] > 0.5
    assert row.scores["spearman"] == pytest.approx(spearmanr(answers, wanted).statistic, abs=1e-6)
    assert row.scores["mean_absolute_error"] == pytest.approx(np.abs(answers - wanted).mean(), rel=1e-6)
    assert row.scores["mean_absolute_error"] < 0.9 * np.std(wanted)
    logged = [line for line in lines(Path(prices.run_dir) / "evaluations.jsonl") if line["stage"] == "width"]
    assert max(logged, key=lambda line: line["scores"]["pearson"])["scores"] == row.scores
    losses = [
        line["losses"]["w0.5_d1"] for line in lines(Path(prices.run_dir) / "training.jsonl") if line["stage"] == "width"
    ]
    assert all(parts["total"] == pytest.approx(parts["logit"] + 0.1 * parts["hidden"], rel=1e-5) for parts in losses)
    assert all(0 < parts["logit"] < 10 for parts in losses)


def test_a_regression_says_in_which_unit_it_was_learned(prices: CompleteRun) -> None:
    _, labels = numbers_of(prices, "train")
    values = json.loads((Path(prices.run_dir) / "model" / "config.json").read_text())
    assert values["label_mean"] == pytest.approx(labels.mean(), rel=1e-6)
    assert values["label_deviation"] == pytest.approx(labels.std(), rel=1e-6)


def test_a_regression_is_scored_again_with_its_teacher(prices: CompleteRun) -> None:
    before = read_finished(prices.run_dir)
    assert before.teacher is not None
    assert before.teacher.rows[0].scores["mean_absolute_error"] < 0.9 * np.std(numbers_of(prices, "dev")[1])
    again = evaluate_run(prices.run_dir)
    assert again.rows == before.rows
    assert again.teacher is not None
    assert again.teacher.rows == before.teacher.rows
    assert again.teacher.weights == before.teacher.weights
    assert again.teacher.time >= before.teacher.time


def test_the_unit_does_not_matter(prices: CompleteRun, tmp_path: Path) -> None:
    """The same in another currency, and far from 0, up to rounding."""
    write_numbers(tmp_path, {"good": 3.1, "bad": 2.9})
    files = {f"{split}_file": str(tmp_path / f"{split}.csv") for split in ("train", "dev")}
    changes = {"run_dir": str(tmp_path / "run"), "data": prices.data.replace(**files), "importance": None}
    train_run(prices.replace(**changes, width=None))
    logs = [lines(Path(folder) / "evaluations.jsonl") for folder in (prices.run_dir, tmp_path / "run")]
    ours, same = ([line["scores"] for line in log if line["stage"] == "fine_tune"] for log in logs)
    for one, other in zip(ours, same, strict=True):
        assert other["pearson"] == pytest.approx(one["pearson"], abs=1e-3)
        assert other["mean_absolute_error"] == pytest.approx(one["mean_absolute_error"] / 210_000, rel=1e-2)


def test_a_regression_that_was_stopped_ends_as_if_it_never_was(prices: CompleteRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(prices.run_dir, run)
    for name in ("width", "model", "importance.npz", "model.json", "results.json"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    train_run(prices.replace(run_dir=str(run)))
    model, other = (load_model(Path(folder) / "model") for folder in (prices.run_dir, run))
    assert_equal_trees(model.params, other.params)
    assert model.config == other.config


def test_a_regression_learns_from_a_model_that_answers_in_the_unit(prices: CompleteRun, tmp_path: Path) -> None:
    model = Path(prices.run_dir) / "model"
    config = prices.replace(model=str(model), run_dir=str(tmp_path / "run"), fine_tune=None)
    context = prepare(config)
    batch = make_batch(context.data.train, plan_batch(context.data.train, np.arange(8), (12,)), 8, 0)
    full = SubNetwork.full(ONE_LAYER)
    answers = np.asarray(run(context.model.config, context.first, batch, full).logits)
    unit = context.model.config.unit
    inside = np.asarray(run(context.model.config, load_model(model).params, batch, full).logits, np.float64)
    np.testing.assert_allclose(answers, (inside - unit.mean) / unit.deviation, atol=1e-4)
    assert np.abs(answers).max() < 5
    results = train_run(config)
    assert results.rows[0].scores["pearson"] > 0.5
    again = evaluate_run(config.run_dir)  # scores the pretrained model as it did
    assert again.teacher is not None
    assert results.teacher is not None
    assert again.teacher.weights == results.teacher.weights
    assert again.teacher.rows == results.teacher.rows


def test_a_regression_may_be_learned_as_its_numbers_are(prices: CompleteRun, tmp_path: Path) -> None:
    task = prices.data.task.replace(standardise=False)
    context = prepare(prices.replace(run_dir=str(tmp_path / "run"), data=prices.data.replace(task=task)))
    assert context.model.config.unit == Unit()
    assert context.learned(context.data.train) is context.data.train


def test_pairs_of_sentences_with_two_dev_splits(materials: Materials, tmp_path: Path) -> None:
    """As in MNLI: three classes, and both splits are scored, logged and tabled."""
    tiny_run.write_model(tmp_path / "model", ONE_LAYER)
    task = Task(
        name="agreement",
        text_columns=("premise", "hypothesis"),
        labels=("agrees", "disagrees", "unrelated"),
        dev=(DevSplit(name="dev_a", glue_file="dev_a.tsv"), DevSplit(name="dev_b", glue_file="dev_b.tsv")),
        glue=GlueLayout(text_columns=("premise", "hypothesis"), label_column="label"),
    )
    for seed, (file, count) in enumerate({"train": 44, "dev_a": 10, "dev_b": 7}.items()):
        tiny_run.write_csv(tmp_path / f"{file}.tsv", ("premise", "hypothesis", "label"), pairs(count, seed), "\t")
    data = materials.data(task=task, glue_folder=str(tmp_path), train_file=None, dev_file=None, test_file=None,
                          lengths=(24,))  # fmt: skip
    config = materials.fine_tuning(tmp_path / "run", model=str(tmp_path / "model"), data=data)
    rows = list(train_run(config).rows)
    assert [(row.split, row.examples) for row in rows] == [("dev_a", 10), ("dev_b", 7)]
    logged = [(line["step"], line["split"]) for line in lines(tmp_path / "run" / "evaluations.jsonl")]
    assert logged == [(step, split) for step in (*EVALUATED, None) for split in ("dev_a", "dev_b")]
    table = (tmp_path / "run" / "results.md").read_text()
    assert "dev_a: accuracy x 100, 10 examples" in table
    assert "dev_b: accuracy x 100, 7 examples" in table
    assert load_model(tmp_path / "run" / "model").config.labels == task.labels


def pairs(count: int, seed: int) -> list[tuple[str, str, str]]:
    both = zip(tiny_run.sentences(count, seed), tiny_run.sentences(count, seed + 100), strict=True)
    return [(a, b, "agrees" if first == second else "disagrees") for (a, first), (b, second) in both]
