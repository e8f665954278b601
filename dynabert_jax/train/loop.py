"""The loop that every stage runs through, from its first or last checkpoint to its end."""

import contextlib
import signal
from collections.abc import Sequence

import jax

from dynabert_jax.config.run import RunConfig
from dynabert_jax.evaluate.evaluate import evaluate
from dynabert_jax.evaluate.rows import Row, mean_score
from dynabert_jax.model.params import Model, Params
from dynabert_jax.plan import StagePlan
from dynabert_jax.system import devices
from dynabert_jax.system.signals import Signals, Stopped
from dynabert_jax.train.checkpoint import Checkpoints, Saved, newest_step
from dynabert_jax.train.context import ORIGINS, Context, TrainingError, evaluation_steps, steps_per_epoch
from dynabert_jax.train.log import StageLog
from dynabert_jax.train.objective import Objective
from dynabert_jax.train.step import TrainState, init_state, make_update, place_teacher, programs_for, train_step
from dynabert_jax.train.steps import batch_of, steps_from

ASK_EVERY = 20  # steps at most between two moments at which several hosts agree to stop


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
    config, stage = context.config, objective.stage
    settings, name = stage.settings, stage.name
    total = settings.epochs * steps_per_epoch(context)
    evaluations = evaluation_steps(settings, steps_per_epoch(context))
    update = make_update(objective, total)
    teacher = place_teacher(teacher, config.dtype) if teacher is not None and stage.has_teacher else None
    key = jax.random.fold_in(jax.random.key(config.seed), stage.number)

    folder = context.folder.path / name
    with (
        Checkpoints(folder / "last", keep=2) as last,  # should one be damaged, the other is there
        Checkpoints(folder / "best") as best,
        StageLog(context, objective) as log,
        Signals() as signals,
    ):
        if devices.num_hosts() > 1:
            signals.hold()  # one process must not stop alone, while the others wait for it
        state = resume(context, objective, init_state(objective, params, total), last)
        first = int(state.step)
        best.record()  # a damaged one is told before anything is trained
        log.start(first, total)
        if first in evaluations and not is_evaluated(context, objective, first):
            if devices.is_first():
                context.folder.forget_evaluation(name, first)  # of which a kill may have left a part
            evaluate_and_keep_best(context, objective, state, best, log, first)
        for step in steps_from(context, objective, first):
            state, report = train_step(
                programs_for(context.model), update, objective, state, teacher, batch_of(context, step),
                jax.random.fold_in(key, step.number), config.gradient_accumulation,
            )  # fmt: skip
            signals.hold()  # the first step has compiled everything: from here on there is work to lose
            done = step.number + 1
            log.step(step, report)
            due = done in evaluations or done % config.checkpoint_every == 0
            stop = (due or is_time_to_ask(config, done)) and devices.any_host(bool(signals.came))
            if stop or due:
                log.check_finite()  # before anything is kept
                last.save(done, state, context.origins)
            if stop:
                raise stopped(signals, last, f"step {done} of {total} of stage {name} is saved")
            if done in evaluations:
                with interruptible(signals):  # the step is being saved, and evaluated again where this is interrupted
                    evaluate_and_keep_best(context, objective, state, best, log, done)
        if devices.any_host(bool(signals.came)):  # while the last evaluation ran, which several processes end first
            raise stopped(signals, last, f"stage {name} is finished and saved")
        last.wait()
        kept = best.restore({"params": state.params}) if settings.keep == "best" else None
        return jax.device_get(state.params if kept is None else kept.tree["params"])


def is_time_to_ask(config: RunConfig, step: int) -> bool:
    """Whether all hosts look behind this step if one of them was told to stop: asking waits for the devices."""
    return devices.num_hosts() == 1 or step % min(config.log_every, ASK_EVERY) == 0


def stopped(signals: Signals, last: Checkpoints, kept: str) -> Stopped:
    """What a signal to this host or another one ends the stage with, when all is on disk."""
    last.wait()
    return Stopped(signals.came or signal.SIGTERM, kept)


def interruptible(signals: Signals) -> contextlib.AbstractContextManager[None]:
    """A block that signals end at once, where there is one process; several only stop where they have agreed to."""
    return signals.released() if devices.num_hosts() == 1 else contextlib.nullcontext()


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
    wanted = len(objective.stage.students) * len(context.data.dev)
    return bool(devices.of_the_first(context.folder.count_evaluations(objective.stage.name, step) == wanted))


def check_finished(context: Context, stages: Sequence[StagePlan]) -> None:
    """Raises TrainingError unless these stages are finished, which a stage alone needs. Writes nothing."""
    for stage in stages:
        done = newest_step(context.folder.path / stage.name / "last")
        total = stage.settings.epochs * steps_per_epoch(context)
        if done != total:
            raise TrainingError(
                f"one stage alone was asked for, but stage {stage.name} before it has done {done} of {total} "
                f"steps; run it first, or run all stages by leaving --stage out"
            )


def resume(context: Context, objective: Objective, state: TrainState, last: Checkpoints) -> TrainState:
    """The state to go on from; log lines of lost steps are dropped.

    Raises:
        TrainingError: the checkpoint has learnt from other data, or from another model.
    """
    saved = last.restore(state)
    if saved is not None:
        check_origins(context, objective, saved)
    if devices.is_first():
        context.folder.forget_after(objective.stage.name, 0 if saved is None else saved.step)
    return state if saved is None else saved.tree


def check_origins(context: Context, objective: Objective, saved: Saved) -> None:
    """Raises TrainingError where a checkpoint has learnt from something else than this run has."""
    for origin, fingerprint in context.origins.items():
        if saved.record.get(origin) != fingerprint:
            raise TrainingError(
                f"stage {objective.stage.name} in {context.folder.path} has done {saved.step} steps with other "
                f"{ORIGINS[origin]} than there are now. Bring the old ones back, or set run_dir to a new folder"
            )


def score_dev(context: Context, objective: Objective, params: Params) -> list[Row]:
    """Every student of the stage on every dev split."""
    model, splits = Model(context.model.config, params), list(context.data.dev.values())
    return evaluate(model, objective.stage.students, splits, context.config.data, context.config.dtype)
