"""The loop's parts: when it evaluates, which batches it goes on with, and what stops it."""

import copy
import dataclasses
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tiny_run
from dynabert_jax.config import Importance
from dynabert_jax.config.complete import CompleteFineTune, CompleteRun, CompleteWidthStage
from dynabert_jax.data.batches import Batch
from dynabert_jax.data.encode import Split, TaskData, load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.plan import fine_tune, plan_run, width
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.train import loop
from dynabert_jax.train.checkpoint import Checkpoints
from dynabert_jax.train.context import Context, TrainingError, check_same_run, evaluation_steps
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.importance import importance_batches, importance_plan
from dynabert_jax.train.log import StageLog
from dynabert_jax.train.objective import Objective, StepReport
from dynabert_jax.train.run import train_run
from dynabert_jax.train.step import init_state
from dynabert_jax.train.step_order import batch_of, examples_before, steps_from
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.names import init_params
from tiny_run import STEPS, Materials, lines


@pytest.mark.parametrize(
    ("settings", "per_epoch", "steps"),
    [
        (CompleteFineTune(epochs=2), 6, {6, 12}),
        (CompleteFineTune(epochs=2, evaluations=2), 6, {3, 6, 9, 12}),
        (CompleteFineTune(epochs=1, evaluations=3), 7, {3, 5, 7}),
        (CompleteFineTune(epochs=2, evaluations=9), 2, {1, 2, 3, 4}),  # not more often than there are steps
        (CompleteFineTune(epochs=6, evaluations=0.5), 2, {4, 8, 12}),
        (CompleteFineTune(epochs=7, evaluations=3 / 7), 2, {5, 10, 14}),
        (CompleteFineTune(epochs=2, evaluations=0.01), 6, {12}),  # always at the end
    ],
)
def test_evaluations_are_spread_over_the_epoch_and_one_is_at_its_end(
    settings: CompleteFineTune, per_epoch: int, steps: set[int]
) -> None:
    assert evaluation_steps(settings, per_epoch) == steps


@pytest.fixture(scope="module")
def context(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Context:
    config = materials.config(tmp_path_factory.mktemp("run"))
    data = load_data(config.data, load_tokenizer(materials.model, tiny_run.MODEL))
    pretrained = load_model(materials.model, labels=tiny_run.LABELS)
    plan = plan_run(pretrained.config, config)
    return Context(config, plan, pretrained, data, RunFolder(Path(config.run_dir)))


def rows_of(batch: Batch) -> list[tuple[int, ...]]:
    """The sentences of a batch as token ids, without padding and filler."""
    masked = zip(
        np.asarray(batch.inputs.input_ids), np.asarray(batch.inputs.attention_mask) == 1, batch.weights, strict=True
    )
    return [tuple(ids[mask].tolist()) for ids, mask, weight in masked if weight]


def batches_from(context: Context, objective: Objective, first: int) -> list[tuple[int, Batch]]:
    return [(step.number, batch_of(context, step)) for step in steps_from(context, objective, first)]


TWO_EPOCHS = Distillation(fine_tune(tiny_run.MODEL, CompleteFineTune(epochs=2)))
ANOTHER_STAGE = Distillation(width(tiny_run.MODEL, CompleteWidthStage(epochs=2)))


def test_an_epoch_has_every_example_once_and_the_next_one_in_another_order(context: Context) -> None:
    batches = [*batches_from(context, TWO_EPOCHS, 0), *batches_from(context, ANOTHER_STAGE, 0)]
    assert [step for step, _ in batches] == [*range(STEPS), *range(STEPS)]
    epochs = [[row for _, batch in batches[i : i + 6] for row in rows_of(batch)] for i in range(0, 2 * STEPS, 6)]
    everything = sorted(tuple(ids.tolist()) for ids in context.data.train.input_ids)
    assert [sorted(epoch) for epoch in epochs] == 4 * [everything]
    assert len(set(map(tuple, epochs))) == 4


@pytest.mark.parametrize("first", [1, 6, 11, 12])
def test_a_resumed_epoch_goes_on_with_the_batches_it_has_not_had(context: Context, first: int) -> None:
    everything = list(batches_from(context, TWO_EPOCHS, 0))
    rest = list(batches_from(context, TWO_EPOCHS, first))
    assert [step for step, _ in rest] == list(range(first, STEPS))
    for (_, ours), (_, theirs) in zip(rest, everything[first:], strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))


class Twice(Distillation):
    """Goes through more examples in its second epoch."""

    def examples(self, context: Context, epoch: int) -> Split:
        train = context.data.train
        if epoch == 0:
            return train
        labels = np.concatenate([train.labels, train.labels])
        return Split("twice", [*train.input_ids] * 2, [*train.token_type_ids] * 2, labels)


def test_what_was_done_before_a_resume_is_counted_exactly(context: Context) -> None:
    """Of 44 sentences in batches of 8, one batch has 4, and not at the end of its epoch."""
    objective = Distillation(context.plan.stages[0])
    sizes = [len(step.planned.rows) for step in steps_from(context, objective, 0)]
    assert 4 in sizes[:5]
    found = [examples_before(context, objective, step) for step in range(STEPS + 1)]
    assert found == [sum(sizes[:step]) for step in range(STEPS + 1)]


def test_an_objective_with_another_number_of_examples_is_refused(context: Context) -> None:
    with pytest.raises(ValueError, match="has 11 batches in epoch 1 instead of 6: an objective's examples must be"):
        list(steps_from(context, Twice(fine_tune(tiny_run.MODEL, CompleteFineTune(epochs=2))), 0))


def test_the_best_of_a_run_that_goes_on_from_before_it_is_kept(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest checkpoint may be lost, and what is trained again need not be the same to the last bit."""
    monkeypatch.setattr("dynabert_jax.train.loop.score_dev", lambda *_: [])
    params = init_params(tiny_run.MODEL, seed=0)
    state, origin = init_state(TWO_EPOCHS, params, STEPS), context.origin("fine_tune", "of the first weights")
    with Checkpoints(tmp_path / "best") as best, StageLog(context, TWO_EPOCHS) as log:
        monkeypatch.setattr(log, "evaluation", lambda *_: None)
        for step, score, kept in ((12, 0.8, 12), (6, 0.9, 6), (12, 0.9, 6)):
            monkeypatch.setattr("dynabert_jax.train.loop.mean_score", lambda _, score=score: score)
            loop.evaluate_and_keep_best(context, TWO_EPOCHS, state, best, log, step, origin)
            assert best.record() == origin.record() | {"score": max(score, 0.8), "step": kept}


def compared(context: Context, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What this process would compare with the others."""
    things: dict[str, str] = {}
    monkeypatch.setattr("dynabert_jax.system.devices.check_same_everywhere", things.update)
    check_same_run(context)
    return things


def test_processes_compare_all_that_a_run_depends_on(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    things = compared(context, monkeypatch)
    assert things["the configuration"] == context.config.to_json()
    assert things["the pretrained weights"] == context.pretrained.fingerprint
    assert things["the version of jax"] == jax.__version__
    assert things["the version of Python"] == platform.python_version()
    assert things["jax's setting jax_enable_x64"] == "False"
    for split in ("train split train", "dev split dev", "test split test"):
        assert f"the {split}" in things


def changed_split(split: Split) -> Split:
    return dataclasses.replace(split, labels=1 - split.labels)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda data: dataclasses.replace(data, train=changed_split(data.train)), {"the train split train"}),
        (lambda data: dataclasses.replace(data, dev={"dev": changed_split(data.dev["dev"])}), {"the dev split dev"}),
        (lambda data: dataclasses.replace(data, test={"test": data.dev["dev"]}), {"the test split test"}),
        (lambda data: dataclasses.replace(data, test={}), {"the test split test"}),
        (lambda data: dataclasses.replace(data, labels=("good", "bad")), {"the names of the classes"}),
    ],
)  # fmt: skip
def test_data_that_differs_is_named(
    change: Callable[[TaskData], TaskData], named: set[str], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = compared(context, monkeypatch)
    monkeypatch.setattr(context, "data", change(context.data))
    other = compared(context, monkeypatch)
    assert {name for name in own | other if own.get(name) != other.get(name)} == named


def test_a_tokenizer_that_differs_is_named(context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where it gives the same tokens for the run's texts: the run's model gets its files."""
    own = compared(context, monkeypatch)
    (tmp_path / "vocab.txt").write_text((context.pretrained.folder / "vocab.txt").read_text() + "another\n")
    monkeypatch.setattr(context, "pretrained", dataclasses.replace(context.pretrained, folder=tmp_path))
    other = compared(context, monkeypatch)
    assert {name for name in own | other if own.get(name) != other.get(name)} == {"the tokenizer"}


@pytest.mark.parametrize(
    ("hosts", "log_every", "asked"),
    [(1, 1000, range(1, 61)), (2, 1000, (20, 40, 60)), (2, 15, (15, 30, 45, 60))],
)
def test_several_hosts_agree_to_stop_every_few_steps(
    hosts: int, log_every: int, asked: Sequence[int], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynabert_jax.system.devices.num_hosts", lambda: hosts)
    config = context.config.replace(log_every=log_every)
    assert [step for step in range(1, 61) if loop.is_time_to_ask(config, step)] == list(asked)


@pytest.mark.parametrize(("limit", "sizes"), [(0, [16, 16, 12]), (100, [16, 16, 12])])
def test_importance_is_scored_on_all_examples_in_their_order(context: Context, limit: int, sizes: list[int]) -> None:
    scored = scored_for_importance(context, Importance(batch_size=16, max_examples=limit))
    assert [len(rows) for rows in scored] == sizes
    assert [row for rows in scored for row in rows] == [tuple(ids.tolist()) for ids in context.data.train.input_ids]


def test_importance_of_some_examples_draws_them_with_the_runs_seed(context: Context) -> None:
    """Files are often sorted, so the first ones would be of one kind; a run that is stopped draws the same again."""
    some = Importance(batch_size=16, max_examples=20)
    first = scored_for_importance(context, some)
    assert [len(rows) for rows in first] == [16, 4]
    assert first == scored_for_importance(context, some)
    rows = np.concatenate([planned.rows for planned in importance_plan(context, some)])
    assert len(set(rows.tolist())) == 20
    assert rows.tolist() != list(range(20))
    drawn = [tuple(context.data.train.input_ids[row].tolist()) for row in rows]
    assert [row for batch in first for row in batch] == drawn
    other = copy.copy(context)
    other.config = context.config.replace(seed=7)
    assert rows.tolist() != np.concatenate([planned.rows for planned in importance_plan(other, some)]).tolist()


def scored_for_importance(context: Context, settings: Importance) -> list[list[tuple[int, ...]]]:
    """The sentences of each batch."""
    return [rows_of(batch) for batch in importance_batches(context, settings, context.data.train)]


# What is not a number


@pytest.fixture
def broken_step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """From this step on, and for ever, training reports what is given: a loss or a gradient that is not finite."""
    at, what = request.param
    step = loop.train_step

    def train_step(*args: Any) -> Any:
        state, report = step(*args)
        return (state, broken(report)) if int(state.step) >= at else (state, report)

    def broken(report: StepReport) -> StepReport:
        report = report.replace(finite=jnp.array(False))
        if what == "gradient":
            return report.replace(grad_norm=jnp.array(np.inf))
        return report.replace(losses=jax.tree.map(lambda a: a * np.nan, report.losses))

    monkeypatch.setattr("dynabert_jax.train.loop.train_step", train_step)
    return int(at)


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("broken_step", "what", "kept"),
    [
        ((7, "loss"), "the loss of sub-network w1_d1", {4, 6}),  # noticed when a checkpoint is due
        ((5, "loss"), "the loss of sub-network w1_d1", {4}),  # when a line of the log is
        ((9, "gradient"), "the gradient", {6, 8}),
        ((11, "gradient"), "the gradient", {6, 8}),  # at the end, where the dev set would be scored
    ],
    indirect=["broken_step"],
)
def test_what_is_not_finite_stops_the_run_before_it_is_kept(
    broken_step: int, what: str, kept: set[int], context: Context, materials: Materials, tmp_path: Path
) -> None:
    """Whenever it is noticed, the message names the first such step, and its rows of the data."""
    config = materials.fine_tuning(tmp_path)
    planned = list(steps_from(context, TWO_EPOCHS, 0))[broken_step - 1].planned
    rows = ", ".join(map(str, sorted(planned.rows + 1)))
    with pytest.raises(
        TrainingError,
        match=rf"{what} is not finite in stage fine_tune, step {broken_step}\. .+ from 1: {rows}\. Try a smaller",
    ):
        train_run(config)
    assert {int(path.name) for path in (tmp_path / "fine_tune" / "last").iterdir()} == kept
    assert all(line["step"] < broken_step for line in logged(config))


def logged(config: CompleteRun) -> list[dict[str, Any]]:
    folder = Path(config.run_dir)
    return [line for name in ("training", "evaluations") for line in read(folder / f"{name}.jsonl")]


def read(path: Path) -> list[dict[str, Any]]:
    return lines(path) if path.exists() else []


def test_weights_that_are_handed_on_are_those_that_were_loaded_where_nothing_trains(
    materials: Materials, tmp_path: Path
) -> None:
    """A run without stages scores the model as it is: it needs a classifier, and brings it along."""
    folder = tmp_path / "model"
    tiny_run.write_model(folder, tiny_run.MODEL)
    config = materials.fine_tuning(tmp_path / "run", model=str(folder), fine_tune=None)
    rows = list(train_run(config).rows)
    assert [row.sub for row in rows] == ["w1_d1", "w1_d1"]
    tiny_run.assert_equal_trees(load_model(tmp_path / "run" / "model").params, load_model(folder).params)
