"""The loop that every stage runs through, from its first or last checkpoint to its end."""

import contextlib
import dataclasses
import functools
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from dynabert_jax import importance, parallel
from dynabert_jax.batches import Batch, PlannedBatch, make_batch, plan_batch, plan_epoch
from dynabert_jax.bert import Bert
from dynabert_jax.checkpoint import Checkpoints, Saved, newest_step
from dynabert_jax.config import Importance, RunConfig, Stage
from dynabert_jax.data import Split, TaskData
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate import Row, evaluate, mean_score
from dynabert_jax.memory import peak_memory
from dynabert_jax.packages import PACKAGES, version
from dynabert_jax.preflight import rows_of_a_device
from dynabert_jax.products import product_rate
from dynabert_jax.run_folder import RunFolder, evaluation_lines
from dynabert_jax.stages import (
    Objective,
    Programs,
    StepReport,
    TrainState,
    init_state,
    make_update,
    place_teacher,
    train_step,
    training_flops,
)
from dynabert_jax.stopping import Signals, Stopped
from dynabert_jax.weights import Pretrained

Params = Any

# What a checkpoint has learnt from, as users know it.
ORIGINS = {"data": "train or dev data (texts, labels or tokens)", "weights": "pretrained weights"}
ASK_EVERY = 20  # steps at most between two moments at which several hosts agree to stop


class TrainingError(UserError, RuntimeError):
    """Training that cannot go on; the message says where it stopped and what to do."""


class Context:
    """What all stages of one run work with.

    Attributes:
        origins: what every checkpoint has learnt from, by name: checksums of the data and of the pretrained weights.
    """

    def __init__(self, config: RunConfig, pretrained: Pretrained, data: TaskData, folder: RunFolder):
        self.config, self.data, self.folder = config, data, folder
        self.model = Bert(pretrained.config, config.dtype, config.rematerialize)
        self.programs = Programs(self.model)
        self.origins = {"data": data.fingerprint, "weights": pretrained.fingerprint}

    @functools.cached_property
    def peak_flops(self) -> float:
        """What all devices together could do in a second, going by large products on one of them."""
        alone = 1 if jax.default_backend() == "cpu" else jax.local_device_count()  # a CPU's devices share its cores
        return product_rate(self.config.dtype) * alone * parallel.num_hosts()


def check_same_run(context: Context) -> None:
    """Raises ParallelError where the processes of a run are not of one mind: they would train a mixture."""
    parallel.check_same_everywhere(context.config.to_json(), "the configuration is")
    for origin, fingerprint in context.origins.items():
        parallel.check_same_everywhere(fingerprint, f"the {ORIGINS[origin]} are")
    parallel.check_same_everywhere(str([(package, version(package)) for package in PACKAGES]), "the versions are")


def train_stage(context: Context, objective: Objective, params: Params, teacher: Params | None) -> Params:
    """Trains one stage, or what is left of it, and returns the weights that it hands on.

    Args:
        context: the run.
        objective: what the stage trains.
        params: the students' first weights.
        teacher: what the teachers run with; None where there are none.

    Returns:
        Arrays on the host: a device holds nothing of a stage that is over.

    Raises:
        TrainingError: a loss is not finite, or the stage has begun with other data or another model.
        Stopped: by SIGTERM or Ctrl-C; the message says which step is saved.
    """
    config, settings, name = context.config, objective.settings, objective.name
    total = settings.epochs * steps_per_epoch(context)
    evaluations = evaluation_steps(settings, steps_per_epoch(context))
    update = make_update(objective, total)
    teacher = place_teacher(teacher, config.dtype) if objective.has_teacher else None
    key = jax.random.fold_in(jax.random.key(config.seed), objective.number)

    folder = context.folder.path / name
    with (
        Checkpoints(folder / "last", keep=2) as last,  # should one be damaged, the other is there
        Checkpoints(folder / "best") as best,
        StageLog(context, objective) as log,
        Signals() as signals,
    ):
        if parallel.num_hosts() > 1:
            signals.hold()  # one process must not stop alone, while the others wait for it
        state = resume(context, objective, init_state(objective, params, total), last)
        first = int(state.step)
        best.record()  # a damaged one is told before anything is trained
        log.start(first, total)
        if first in evaluations and not is_evaluated(context, objective, first):
            if parallel.is_first():
                context.folder.forget_evaluation(name, first)  # of which a kill may have left a part
            evaluate_and_keep_best(context, objective, state, best, log, first)
        for step, planned in steps_from(context, objective, first):
            batch = batch_of(context, planned)
            state, report = train_step(
                context.programs, update, objective, state, teacher, batch, jax.random.fold_in(key, step),
                config.gradient_accumulation,
            )  # fmt: skip
            signals.hold()  # the first step has compiled everything: from here on there is work to lose
            done = step + 1
            log.step(done, planned, report)
            due = done in evaluations or done % config.checkpoint_every == 0
            stop = (due or is_time_to_ask(config, done)) and parallel.any_host(bool(signals.came))
            if stop or due:
                log.check_finite()  # before anything is kept
                last.save(done, state, context.origins)
            if stop:
                raise stopped(signals, last, f"step {done} of {total} of stage {name} is saved")
            if done in evaluations:
                with interruptible(signals):  # the step is being saved, and evaluated again where this is interrupted
                    evaluate_and_keep_best(context, objective, state, best, log, done)
        if parallel.any_host(bool(signals.came)):  # while the last evaluation ran, which several processes end first
            raise stopped(signals, last, f"stage {name} is finished and saved")
        last.wait()
        kept = best.restore({"params": state.params}) if settings.keep == "best" else None
        return jax.device_get(state.params if kept is None else kept.tree["params"])


def is_time_to_ask(config: RunConfig, step: int) -> bool:
    """Whether all hosts look behind this step if one of them was told to stop: asking waits for the devices."""
    return parallel.num_hosts() == 1 or step % min(config.log_every, ASK_EVERY) == 0


def stopped(signals: Signals, last: Checkpoints, kept: str) -> Stopped:
    """What a signal to this host or another one ends the stage with, when all is on disk."""
    last.wait()
    return Stopped(signals.came or signal.SIGTERM, kept)


def interruptible(signals: Signals) -> contextlib.AbstractContextManager[None]:
    """A block that signals end at once, where there is one process; several only stop where they have agreed to."""
    return signals.released() if parallel.num_hosts() == 1 else contextlib.nullcontext()


def evaluate_and_keep_best(
    context: Context, objective: Objective, state: TrainState, best: Checkpoints, log: "StageLog", step: int
) -> None:
    """Scores the students on the dev data, keeps the weights where they are the best so far, and logs the scores.

    In this order: a step whose scores are in the log is one whose weights are kept, if they had to be.
    """
    rows = score_dev(context, objective, state.params)
    score, record = mean_score(rows), best.record()
    if record is None or score > record["score"]:
        # Counted, as a run that goes on from a checkpoint before the best one may find a better one in an earlier step.
        best.save(best.newest + 1, {"params": state.params}, {"score": score, "step": step})
        best.wait()
    log.evaluation(step, rows)


def is_evaluated(context: Context, objective: Objective, step: int) -> bool:
    """Whether the log holds the scores of every student on every dev split, which is written last."""
    wanted = len(objective.students) * len(context.data.dev)
    return bool(parallel.of_the_first(context.folder.count_evaluations(objective.name, step) == wanted))


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
    if parallel.any_host(not context.folder.importance_file.exists()):
        batches = importance_batches(context, settings)
        scores = importance.importance(context.model, params, batches, settings.gradients, rows_at_once(context.config))
        if parallel.is_first():
            context.folder.write_importance(scores)
        parallel.wait_for_all("importance is written")
    return context.folder.read_importance()


def importance_split(context: Context, settings: Importance) -> Split:
    """The examples that importance is scored on."""
    return context.data.train if settings.split == "train" else next(iter(context.data.dev.values()))


def importance_plan(context: Context, settings: Importance) -> list[PlannedBatch]:
    """The batches of a split in its own order, or of so many of its rows, drawn with the run's seed."""
    split = importance_split(context, settings)
    shuffled = np.random.default_rng(context.config.seed).permutation(len(split))
    rows = np.sort(shuffled[: settings.max_examples or len(split)])
    starts = range(0, len(rows), settings.batch_size)
    return [
        plan_batch(split, rows[start : start + settings.batch_size], context.config.data.lengths) for start in starts
    ]


def importance_batches(context: Context, settings: Importance) -> Iterator[Batch]:
    """Batches of the rows that importance is scored on, with a progress bar."""
    split, plan = importance_split(context, settings), importance_plan(context, settings)
    total = sum(len(planned.rows) for planned in plan)
    with tqdm(desc="importance", total=total, unit=" examples", disable=not parallel.is_first()) as bar:
        for planned in plan:
            yield make_batch(split, planned, settings.batch_size, context.model.config.pad_token_id)
            bar.update(len(planned.rows))


def rows_at_once(config: RunConfig) -> int:
    """Examples that a device computes gradients of at once in training, at most; importance takes no more."""
    return rows_of_a_device(config) // config.gradient_accumulation


def resume(context: Context, objective: Objective, state: TrainState, last: Checkpoints) -> TrainState:
    """The state to go on from; log lines of lost steps are dropped.

    Raises:
        TrainingError: the checkpoint has learnt from other data, or from another model.
    """
    saved = last.restore(state)
    if saved is not None:
        check_origins(context, objective, saved)
    if parallel.is_first():
        context.folder.forget_after(objective.name, 0 if saved is None else saved.step)
    return state if saved is None else saved.tree


def check_origins(context: Context, objective: Objective, saved: Saved) -> None:
    """Raises TrainingError where a checkpoint has learnt from something else than this run has."""
    for origin, fingerprint in context.origins.items():
        if saved.record.get(origin) != fingerprint:
            raise TrainingError(
                f"stage {objective.name} in {context.folder.path} has done {saved.step} steps with other "
                f"{ORIGINS[origin]} than there are now. Bring the old ones back, or set run_dir to a new folder"
            )


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


def steps_from(context: Context, objective: Objective, first: int) -> Iterator[tuple[int, PlannedBatch]]:
    """Step numbers and batches from step `first` on: a function of seed, stage and step, so a resumed run goes on."""
    config, per_epoch = context.config, steps_per_epoch(context)
    for epoch in range(first // per_epoch, objective.settings.epochs):
        seed = [config.seed, objective.number, epoch]
        plan = plan_epoch(context.data.train, config.data.batch_size, config.data.lengths, seed)
        for step, planned in enumerate(plan, epoch * per_epoch):
            if step >= first:
                yield step, planned


def batch_of(context: Context, planned: PlannedBatch) -> Batch:
    """The rows of the global batch; `parallel.split` gives this host its own."""
    config = context.config.data
    return make_batch(context.data.train, planned, config.batch_size, context.model.config.pad_token_id)


def score_dev(context: Context, objective: Objective, params: Params) -> list[Row]:
    """Every student of the stage on every dev split."""
    return [
        row
        for split in context.data.dev.values()
        for row in evaluate(
            context.model.config, params, objective.students, split, context.config.data, context.config.dtype
        )
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """A step that was taken and not yet looked at."""

    step: int
    planned: PlannedBatch
    report: StepReport


def check_finite(objective: Objective, train: Split, taken: Taken) -> None:
    """Raises TrainingError where a loss or the gradient of a step is NaN or infinite. Looking waits for the device."""
    if taken.report.finite:
        return
    pairs = zip(objective.students, taken.report.losses, strict=True)
    bad = [student.name for student, losses in pairs if not np.isfinite(losses.total)]
    what = f"the loss of sub-network {bad[0]}" if bad else "the gradient"
    rows = taken.planned.rows if train.origins is None else train.origins[taken.planned.rows]
    raise TrainingError(
        f"{what} is not finite in stage {objective.name}, step {taken.step}. Its batch is of these rows of the "
        f"training data, the first being 1: {', '.join(map(str, np.sort(rows) + 1))}. Try a smaller learning rate, "
        f"in a new run_dir; the checkpoints in this one are of before"
    )


class StageLog(contextlib.ExitStack):
    """The progress bar, the lines of the run folder and TensorBoard's scalars of one stage; the first host's alone."""

    def __init__(self, context: Context, objective: Objective):
        super().__init__()
        self.context, self.objective = context, objective
        self.unchecked: list[Taken] = []

    def start(self, step: int, total: int) -> None:
        self.total = total
        epochs, rest = divmod(step, steps_per_epoch(self.context))
        examples, size = len(self.context.data.train), self.context.config.data.batch_size
        self.bar = self.enter_context(
            tqdm(desc=self.objective.name, total=self.objective.settings.epochs * examples,
                 initial=epochs * examples + min(rest * size, examples), unit=" examples",
                 disable=not parallel.is_first())
        )  # fmt: skip
        if parallel.is_first():
            self.scalars = self.enter_context(self.context.folder.scalars(self.objective.name, step))
        if step < total:
            self.bar.set_postfix_str("compiling")
        self.first = step + 1
        self.count_from_here()

    def count_from_here(self) -> None:
        self.since, self.examples, self.flops = time.perf_counter(), 0, 0

    def step(self, step: int, planned: PlannedBatch, report: StepReport) -> None:
        """Counts a step, and looks at its numbers every few steps only: looking waits for the device."""
        self.unchecked.append(Taken(step, planned, report))
        look = step % self.context.config.log_every == 0 or step == self.total
        if look:
            self.check_finite()
        if not parallel.is_first():
            return
        if step == self.first:
            self.first_step(step, report)
        self.bar.update(len(planned.rows))
        self.examples += len(planned.rows)
        self.flops += training_flops(self.context.model.config, self.objective, planned)
        if look:
            self.log_step(step, report)
        elif step == self.first:
            self.count_from_here()  # without compiling
        if step == self.total:
            tqdm.write(f"{self.objective.name}: {peak_memory() / 2**30:.1f} GiB of memory at most")

    def check_finite(self) -> None:
        """Raises TrainingError where a step that was taken since the last look is not finite."""
        for taken in self.unchecked:
            check_finite(self.objective, self.context.data.train, taken)
        self.unchecked.clear()

    def log_step(self, step: int, report: StepReport) -> None:
        losses = {
            student.name: {name: float(value) for name, value in vars(parts).items()}
            for student, parts in zip(self.objective.students, report.losses, strict=True)
        }
        totals = {name: parts["total"] for name, parts in losses.items()}
        mean = float(np.mean(list(totals.values())))
        seconds = time.perf_counter() - self.since
        curves = {
            "loss": mean,
            "learning_rate": float(report.learning_rate),
            "grad_norm": float(report.grad_norm),
            "examples_per_second": self.examples / seconds,
            "flops_utilization": self.flops / seconds / self.context.peak_flops,
        }
        self.bar.set_postfix(loss=f"{mean:.4f}")
        self.context.folder.append_training({"stage": self.objective.name, "step": step, **curves, "losses": losses})
        self.scalars.add(step, curves | {f"loss/{name}": total for name, total in totals.items()})
        self.count_from_here()

    def first_step(self, step: int, report: StepReport) -> None:
        """Tells how long it took from the start of the stage, or of what is left of it: users wait for this."""
        jax.block_until_ready(report)
        self.bar.set_postfix_str("", refresh=False)
        seconds = time.perf_counter() - self.since
        self.scalars.add(step, {"seconds_to_first_step": seconds})
        tqdm.write(f"{self.objective.name}: first step after {seconds:.1f} s, compilation included")

    def evaluation(self, step: int, rows: list[Row]) -> None:
        """Tells and writes the rows of an evaluation."""
        if not parallel.is_first():
            return
        lines = evaluation_lines(self.context.config, self.objective.name, step, rows)
        self.scalars.add(step, {f"{row.split}/{row.metric}/{row.sub}": row.score for row in rows})
        self.context.folder.append_evaluations(lines)
        metric = f"{rows[0].metric} {100 * mean_score(rows):.2f}"
        tqdm.write(
            f"{self.objective.name} step {step}: mean dev {metric} over {len(self.objective.students)} sub-networks"
        )
        self.count_from_here()
