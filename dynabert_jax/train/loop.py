"""The training loop of every stage, from the start or the last checkpoint to its end."""

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
from dynabert_jax.train.step_order import batch_of, steps_from

ASK_EVERY = 20  # at most this many steps until several hosts check whether to stop


def train_stage(context: Context, objective: Objective, params: Params, teacher: Params | None) -> Params:
    """Trains one stage, or the rest of it, and returns the weights for the next stage.

    Args:
        context: the run.
        objective: what the stage trains.
        params: the students' first weights.
        teacher: the teachers' weights; None if there are no teachers.

    Returns:
        Arrays on the host: a finished stage leaves nothing on the devices.

    Raises:
        TrainingError: a loss is not finite, or the stage began with other data or another model.
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
        Checkpoints(folder / "last", keep=2) as last,  # two, in case one is damaged
        Checkpoints(folder / "best") as best,
        StageLog(context, objective) as log,
        Signals() as signals,
    ):
        if devices.num_hosts() > 1:
            signals.hold()  # if one process stopped alone, the others would wait for it
        state = resume(context, objective, init_state(objective, params, total), last)
        first = int(state.step)
        best.record()  # reports a damaged one before anything is trained
        log.start(first, total)
        if first in evaluations and not is_evaluated(context, objective, first):
            if devices.is_first():
                context.folder.forget_evaluation(name, first)  # a kill may have left part of it
            evaluate_and_keep_best(context, objective, state, best, log, first)
        for step in steps_from(context, objective, first):
            state, report = train_step(
                programs_for(context.model), update, objective, state, teacher, batch_of(context, step),
                jax.random.fold_in(key, step.number), config.gradient_accumulation,
            )  # fmt: skip
            signals.hold()  # everything is compiled now: from here on there is work to lose
            done = step.number + 1
            log.step(step, report)
            due = done in evaluations or done % config.checkpoint_every == 0
            stop = (due or is_time_to_ask(config, done)) and devices.any_host(bool(signals.came))
            if stop or due:
                log.check_finite()  # before anything is saved
                last.save(done, state, context.origins)
            if stop:
                raise stopped(signals, last, f"step {done} of {total} of stage {name} is saved")
            if done in evaluations:
                with interruptible(signals):  # the step is saved; if interrupted, it is evaluated again
                    evaluate_and_keep_best(context, objective, state, best, log, done)
        if devices.any_host(bool(signals.came)):  # arrived during the last evaluation, which several processes finish
            raise stopped(signals, last, f"stage {name} is finished and saved")
        last.wait()
        kept = best.restore({"params": state.params}) if settings.keep == "best" else None
        return jax.device_get(state.params if kept is None else kept.tree["params"])


def is_time_to_ask(config: RunConfig, step: int) -> bool:
    """Whether hosts check after this step if any has to stop. Not after every step: checking waits for devices."""
    return devices.num_hosts() == 1 or step % min(config.log_every, ASK_EVERY) == 0


def stopped(signals: Signals, last: Checkpoints, kept: str) -> Stopped:
    """The exception that ends the stage after a signal to any host. Waits until everything is on disk."""
    last.wait()
    return Stopped(signals.came or signal.SIGTERM, kept)


def interruptible(signals: Signals) -> contextlib.AbstractContextManager[None]:
    """A block that signals end at once if there is one process. Several processes stop only where they agreed to."""
    return signals.released() if devices.num_hosts() == 1 else contextlib.nullcontext()


def evaluate_and_keep_best(
    context: Context, objective: Objective, state: TrainState, best: Checkpoints, log: "StageLog", step: int
) -> None:
    """Scores the students on the dev data, saves the weights if they are the best so far, then logs the scores.

    In this order, so that for a step in the log the weights are already saved if they are the best.
    """
    rows = score_dev(context, objective, state.params)
    score, record = mean_score(rows), best.record()
    if record is None or score > record["score"]:
        # Numbered by count, not step: a run that resumes before the best step may find a better one at an earlier step.
        best.save(best.newest + 1, {"params": state.params}, {"score": score, "step": step})
        best.wait()
    log.evaluation(step, rows)


def is_evaluated(context: Context, objective: Objective, step: int) -> bool:
    """Whether the log has the scores of every student on every dev split. The log is written last."""
    wanted = len(objective.stage.students) * len(context.data.dev)
    return bool(devices.of_the_first(context.folder.count_evaluations(objective.stage.name, step) == wanted))


def check_finished(context: Context, stages: Sequence[StagePlan]) -> None:
    """Raises TrainingError unless these stages are finished: training only a later stage needs them. Writes nothing."""
    for stage in stages:
        done = newest_step(context.folder.path / stage.name / "last")
        total = stage.settings.epochs * steps_per_epoch(context)
        if done != total:
            raise TrainingError(
                f"only one stage was requested, but stage {stage.name} before it has done {done} of {total} "
                f"steps; run it first, or leave out --stage to run all stages"
            )


def resume(context: Context, objective: Objective, state: TrainState, last: Checkpoints) -> TrainState:
    """The state to resume from. Drops the log lines of lost steps.

    Raises:
        TrainingError: the checkpoint was trained with other data or another model.
    """
    saved = last.restore(state)
    if saved is not None:
        check_origins(context, objective, saved)
    if devices.is_first():
        context.folder.forget_after(objective.stage.name, 0 if saved is None else saved.step)
    return state if saved is None else saved.tree


def check_origins(context: Context, objective: Objective, saved: Saved) -> None:
    """Raises TrainingError if a checkpoint was trained with other data or weights than this run has."""
    for origin, fingerprint in context.origins.items():
        if saved.record.get(origin) != fingerprint:
            raise TrainingError(
                f"stage {objective.stage.name} in {context.folder.path} has done {saved.step} steps with other "
                f"{ORIGINS[origin]} than the current ones. Restore the old ones, or set run_dir to a new folder"
            )


def score_dev(context: Context, objective: Objective, params: Params) -> list[Row]:
    """Scores every student of the stage on every dev split."""
    model, splits = Model(context.model.config, params), list(context.data.dev.values())
    return evaluate(model, objective.stage.students, splits, context.config.data, context.config.dtype)
