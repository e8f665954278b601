"""The loop that every stage runs through, from its first or last checkpoint to its end."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from dynabert_jax import importance, parallel
from dynabert_jax.batches import Batch, make_batch, plan_batch, plan_epoch
from dynabert_jax.bert import Bert
from dynabert_jax.checkpoint import Checkpoints, newest_step
from dynabert_jax.config import Importance, RunConfig, Stage
from dynabert_jax.data import Split, TaskData
from dynabert_jax.evaluate import Row, evaluate, mean_score
from dynabert_jax.run_folder import RunFolder, evaluation_lines
from dynabert_jax.stages import Objective, Programs, StepReport, TrainState, init_state, make_update, train_step

Params = Any


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says where it stopped and what to do."""


class Context:
    """What all stages of one run work with."""

    def __init__(self, config: RunConfig, model: Bert, data: TaskData, folder: RunFolder):
        self.config, self.model, self.data, self.folder = config, model, data, folder
        self.programs = Programs(model)


def train_stage(context: Context, objective: Objective, params: Params, teacher: Params | None) -> Params:
    """Trains one stage, or what is left of it, and returns the weights that it hands on.

    Args:
        context: the run.
        objective: what the stage trains.
        params: the students' first weights.
        teacher: what the teachers run with; None where there are none.

    Raises:
        TrainingError: a loss is not finite, or the stage has begun with other data.
    """
    config, settings = context.config, objective.settings
    total = settings.epochs * steps_per_epoch(context)
    evaluations = evaluation_steps(settings, steps_per_epoch(context))
    update = make_update(objective, total)
    state = init_state(objective, params, total)
    teacher = None if teacher is None else parallel.replicate(teacher)
    key = jax.random.fold_in(jax.random.key(config.seed), objective.number)

    folder = context.folder.path / objective.name
    with (
        Checkpoints(folder / "last") as last,
        Checkpoints(folder / "best") as best,
        StageLog(context, objective) as log,
    ):
        state, best_score = resume(context, objective, state, last)
        log.start(int(state.step), total)
        for step, batch in batches_from(context, objective, int(state.step)):
            state, report = train_step(
                context.programs, update, objective, state, teacher, batch, jax.random.fold_in(key, step)
            )
            done = step + 1
            keep = done in evaluations or done % config.checkpoint_every == 0
            log.step(done, batch, report)
            if keep:
                check_finite(objective.name, done, report)  # before anything is kept
            if done in evaluations:
                score = log.evaluation(done, score_dev(context, objective, state.params))
                if score > best_score:
                    best_score = score
                    best.save(done, {"params": state.params}, {"score": score})
                    best.wait()  # the record of the best one must not be ahead of it
            if keep:
                last.save(done, state, {"best_score": best_score, "data": context.data.fingerprint})
        last.wait()
        kept = best.restore({"params": state.params}) if settings.keep == "best" else None
        return state.params if kept is None else kept.tree["params"]


def check_finished(context: Context, objectives: Sequence[Objective]) -> None:
    """Raises TrainingError unless these stages are finished, which a stage alone needs. Writes nothing."""
    for objective in objectives:
        done = newest_step(context.folder.path / objective.name / "last")
        total = objective.settings.epochs * steps_per_epoch(context)
        if done != total:
            raise TrainingError(
                f"one stage alone was asked for, but stage {objective.name} before it has done {done} of {total} "
                f"steps; run it first, or run all stages by leaving --stage out"
            )


def score_importance(context: Context, settings: Importance, params: Params) -> importance.Scores:
    """The importance of heads and neurons, computed once a run and kept in its folder."""
    if not context.folder.importance_file.exists():
        split = context.data.train if settings.split == "train" else next(iter(context.data.dev.values()))
        scores = importance.importance(
            context.model, params, importance_batches(context, settings, split), settings.gradients
        )
        context.folder.write_importance(scores)
    return context.folder.read_importance()


def importance_batches(context: Context, settings: Importance, split: Split) -> Iterator[Batch]:
    """Batches of the rows that importance is scored on, with a progress bar."""
    rows = importance_rows(context, settings, split)
    with tqdm(desc="importance", total=len(rows), unit=" examples") as bar:
        for start in range(0, len(rows), settings.batch_size):
            planned = plan_batch(split, rows[start : start + settings.batch_size], context.config.data.lengths)
            yield make_batch(split, planned, settings.batch_size, context.model.config.pad_token_id)
            bar.update(len(planned.rows))


def importance_rows(context: Context, settings: Importance, split: Split) -> np.ndarray:
    """All rows of a split in its own order, `[n]`, or so many of them, drawn with the run's seed."""
    shuffled = np.random.default_rng(context.config.seed).permutation(len(split))
    return np.sort(shuffled[: settings.max_examples or len(split)])


def resume(context: Context, objective: Objective, state: TrainState, last: Checkpoints) -> tuple[TrainState, float]:
    """The state to go on from, and the best mean dev score so far; log lines of lost steps are dropped.

    Raises:
        TrainingError: the checkpoint has learnt from other data.
    """
    saved = last.restore(state)
    if saved is not None and saved.record.get("data") != context.data.fingerprint:
        raise TrainingError(
            f"the train or dev data is not that of stage {objective.name} in {context.folder.path}, which has done "
            f"{saved.step} steps: texts, labels or tokens have changed. Bring the old data back, or set run_dir to a "
            f"new folder"
        )
    step = 0 if saved is None else saved.step
    context.folder.forget_after(objective.name, step)
    if saved is None:
        return state, -np.inf
    return saved.tree, saved.record["best_score"]


def steps_per_epoch(context: Context) -> int:
    return -(-len(context.data.train.labels) // context.config.data.batch_size)


def evaluation_steps(settings: Stage, per_epoch: int) -> set[int]:
    """After how many steps the dev set is scored: evenly through every epoch, and at its end."""
    parts = min(settings.evaluations, per_epoch)
    return {
        epoch * per_epoch + -(-per_epoch * part // parts)
        for epoch in range(settings.epochs)
        for part in range(1, parts + 1)
    }


def batches_from(context: Context, objective: Objective, first: int) -> Iterator[tuple[int, Batch]]:
    """Step numbers and batches from step `first` on: a function of seed, stage and step, so a resumed run goes on."""
    data, config = context.data.train, context.config
    per_epoch = steps_per_epoch(context)
    for epoch in range(first // per_epoch, objective.settings.epochs):
        seed = [config.seed, objective.number, epoch]
        plan = plan_epoch(data, config.data.batch_size, config.data.lengths, seed)
        for i, planned in enumerate(plan):
            step = epoch * per_epoch + i
            if step >= first:
                yield step, make_batch(data, planned, config.data.batch_size, context.model.config.pad_token_id)


def score_dev(context: Context, objective: Objective, params: Params) -> list[Row]:
    """Every student of the stage on every dev split."""
    return [
        row
        for split in context.data.dev.values()
        for row in evaluate(
            context.model.config, params, objective.students, split, context.config.data, context.config.dtype
        )
    ]


def check_finite(stage: str, step: int, report: StepReport) -> None:
    """Raises TrainingError where a loss or the gradient of a step is NaN or infinite. Looking waits for the device."""
    bad = [student.name for student, parts in report.losses.items() if not np.isfinite(parts.total).all()]
    if bad or not np.isfinite(report.update.grad_norm):
        what = f"the loss of sub-network {bad[0]}" if bad else "the gradient"
        raise TrainingError(
            f"{what} is not finite in stage {stage}, step {step}; try a smaller learning rate, in a new run_dir. The "
            f"checkpoints in this one are of before"
        )


class StageLog(contextlib.ExitStack):
    """The progress bar, the lines of the run folder and TensorBoard's scalars of one stage."""

    def __init__(self, context: Context, objective: Objective):
        super().__init__()
        self.context, self.objective = context, objective

    def start(self, step: int, total: int) -> None:
        self.total = total
        size = self.context.config.data.batch_size
        self.bar = self.enter_context(
            tqdm(desc=self.objective.name, total=total * size, initial=step * size, unit=" examples", leave=True)
        )
        self.scalars = self.enter_context(self.context.folder.scalars(self.objective.name, step))
        if step < total:
            self.bar.set_postfix_str("compiling")
        self.first = step + 1
        self.since, self.examples = time.perf_counter(), 0

    def step(self, step: int, batch: Batch, report: StepReport) -> None:
        """Counts a step, and looks at its numbers every few steps only: looking waits for the device."""
        if step == self.first:
            self.first_step(step, report)
        self.bar.update(self.context.config.data.batch_size)
        self.examples += int(batch.weights.sum())
        if step % self.context.config.log_every and step != self.total:
            return
        check_finite(self.objective.name, step, report)
        losses = {
            student.name: {name: float(np.sum(value)) for name, value in vars(parts).items()}
            for student, parts in report.losses.items()
        }
        mean = float(np.mean([loss["total"] for loss in losses.values()]))
        seconds = time.perf_counter() - self.since
        curves = {
            "loss": mean,
            "learning_rate": float(report.update.learning_rate),
            "grad_norm": float(report.update.grad_norm),
            "examples_per_second": self.examples / seconds,
        }
        self.bar.set_postfix(loss=f"{mean:.4f}")
        self.context.folder.append_training({"stage": self.objective.name, "step": step, **curves, "losses": losses})
        self.scalars.add(step, curves)
        self.since, self.examples = time.perf_counter(), 0

    def first_step(self, step: int, report: StepReport) -> None:
        """Tells how long it took from the start of the stage, or of what is left of it: users wait for this."""
        jax.block_until_ready(report.update)
        self.bar.set_postfix_str("", refresh=False)
        seconds = time.perf_counter() - self.since
        self.scalars.add(step, {"seconds_to_first_step": seconds})
        tqdm.write(f"{self.objective.name}: first step after {seconds:.1f} s, compilation included")

    def evaluation(self, step: int, rows: list[Row]) -> float:
        """Writes the rows of an evaluation and returns their mean score."""
        lines = evaluation_lines(self.context.config, self.objective.name, step, rows)
        self.context.folder.append_evaluations(lines)
        self.scalars.add(step, {f"{row.split}/{row.metric}/{row.sub}": row.score for row in rows})
        metric = f"{rows[0].metric} {100 * mean_score(rows):.2f}"
        tqdm.write(
            f"{self.objective.name} step {step}: mean dev {metric} over {len(self.objective.students)} sub-networks"
        )
        self.since, self.examples = time.perf_counter(), 0
        return mean_score(rows)
