"""What a stage reports while it trains: the progress bar, training.jsonl and TensorBoard."""

import contextlib
import dataclasses
import logging
import time

import jax
import numpy as np

from dynabert_jax.evaluate.rows import Row, mean_score, shown
from dynabert_jax.plan import StagePlan
from dynabert_jax.runs.logs import evaluation_lines
from dynabert_jax.system import devices
from dynabert_jax.system.memory import peak_memory
from dynabert_jax.system.progress import progress
from dynabert_jax.train.context import Context, TrainingError
from dynabert_jax.train.objective import Objective, StepReport
from dynabert_jax.train.step import training_flops
from dynabert_jax.train.step_order import PlannedStep, examples_before

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """A step that was taken and whose numbers were not checked yet."""

    step: PlannedStep
    report: StepReport


def check_finite(stage: StagePlan, taken: Taken) -> None:
    """Raises TrainingError if a loss or the gradient of a step is NaN or infinite. Waits for the device."""
    if taken.report.finite:
        return
    pairs = zip(stage.students, taken.report.losses, strict=True)
    bad = [student.name for student, losses in pairs if not np.isfinite(losses.total)]
    what = f"the loss of sub-network {bad[0]}" if bad else "the gradient"
    examples, rows = taken.step.examples, taken.step.planned.rows
    raise TrainingError(
        f"{what} is not finite in stage {stage.name}, step {taken.step.number + 1}. Its batch has these rows of the "
        f"training data, counted from 1: {examples.described(rows)}. Try a smaller learning rate, in a "
        f"new run_dir; the checkpoints in this one are from before that step"
    )


class StageLog(contextlib.ExitStack):
    """The progress bar, log lines and TensorBoard scalars of one stage; only the first host writes them."""

    def __init__(self, context: Context, objective: Objective):
        super().__init__()
        self.context, self.objective, self.stage = context, objective, objective.stage
        self.unchecked: list[Taken] = []

    def start(self, step: int, total: int) -> None:
        self.total = total
        examples = self.objective.examples(self.context, 0)
        self.has_labels = examples.against is not None  # else the losses on the labels mean nothing
        self.bar = self.enter_context(
            progress(self.stage.name, self.stage.settings.epochs * len(examples), "examples",
                     done=examples_before(self.context, self.objective, step), is_shown=devices.is_first())
        )  # fmt: skip
        if devices.is_first():
            self.scalars = self.enter_context(self.context.folder.scalars(self.stage.name, step))
        if step < total:
            self.bar.set_postfix_str("compiling")
        self.first = step + 1
        self.count_from_here()

    def count_from_here(self) -> None:
        self.since, self.examples, self.flops = time.perf_counter(), 0, 0

    def step(self, taken: PlannedStep, report: StepReport) -> None:
        """Counts a step. Reads its numbers only every few steps, because reading waits for the device."""
        self.unchecked.append(Taken(taken, report))
        step, planned = taken.number + 1, taken.planned
        look = step % self.context.config.log_every == 0 or step == self.total
        if look:
            self.check_finite()
        if not devices.is_first():
            return
        if step == self.first:
            self.first_step(step, report)
        self.bar.update(len(planned.rows))
        self.examples += len(planned.rows)
        self.flops += training_flops(self.context.model.config, self.stage, planned)
        if look:
            self.log_step(step, report)
        elif step == self.first:
            self.count_from_here()  # leaves out compilation
        if step == self.total:
            log.info(f"{self.stage.name}: {peak_memory() / 2**30:.1f} GiB peak memory")

    def check_finite(self) -> None:
        """Raises TrainingError if a step since the last check is not finite."""
        for taken in self.unchecked:
            check_finite(self.stage, taken)
        self.unchecked.clear()

    def log_step(self, step: int, report: StepReport) -> None:
        losses = {
            student.name: {
                name: float(value) for name, value in vars(parts).items() if name != "label" or self.has_labels
            }
            for student, parts in zip(self.stage.students, report.losses, strict=True)
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
            **self.objective.logged(report),
        }
        self.bar.set_postfix_str(f"loss={mean:.4f}")
        line = {"stage": self.stage.name, "step": step, **curves, "losses": losses, "run": self.context.run}
        self.context.folder.append_training(line)
        self.scalars.add(step, curves | {f"loss/{name}": total for name, total in totals.items()})
        self.count_from_here()

    def first_step(self, step: int, report: StepReport) -> None:
        """Reports the time from the start of the stage (or the resume) to its first step: users wait for this."""
        jax.block_until_ready(report)
        self.bar.set_postfix_str("", refresh=False)
        seconds = time.perf_counter() - self.since
        self.scalars.add(step, {"seconds_to_first_step": seconds})
        log.info(f"{self.stage.name}: first step after {seconds:.1f} s, including compilation")

    def evaluation(self, step: int, rows: list[Row]) -> None:
        """Logs and writes the rows of an evaluation."""
        if not devices.is_first():
            return
        lines = evaluation_lines(self.context.config, self.stage.name, step, rows)
        lines = [{**line, "run": self.context.run} for line in lines]
        self.scalars.add(step, {f"{row.split}/{row.metric}/{row.sub}": row.score for row in rows})
        self.context.folder.append_evaluations(lines)
        metric = f"{rows[0].measure} x 100 {shown(rows[0].metric, mean_score(rows))}"
        log.info(f"{self.stage.name} step {step}: mean dev {metric} over {len(self.stage.students)} sub-networks")
        self.count_from_here()
