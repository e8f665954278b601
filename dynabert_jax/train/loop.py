"""The training loop of every stage, from the start or the last checkpoint to its end."""

import contextlib
import signal
from collections.abc import Iterator, Sequence

import jax

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.evaluate.evaluate import evaluate
from dynabert_jax.evaluate.rows import Row, mean_score
from dynabert_jax.model.params import Model, Params
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.origin import Origin
from dynabert_jax.system import devices
from dynabert_jax.system.signals import Signals, Stopped
from dynabert_jax.train.checkpoint import Checkpoints, Record, newest_step
from dynabert_jax.train.context import Context, TrainingError, evaluation_steps
from dynabert_jax.train.log import StageLog
from dynabert_jax.train.objective import Objective
from dynabert_jax.train.step import TrainState, init_state, make_update, place_teacher, programs_for, train_step
from dynabert_jax.train.step_order import batch_of, steps_from
from dynabert_jax.train.take_over import take_over

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
        RunFolderError: a checkpoint is of another stage, configuration, model or data, or one is lost.
        TrainingError: a loss is not finite.
        Stopped: by SIGTERM or Ctrl-C; the message says which step is saved.
    """
    config, stage = context.config, objective.stage
    settings, name = stage.settings, stage.name
    per_epoch = objective.steps_per_epoch(context)
    total, evaluations = settings.epochs * per_epoch, evaluation_steps(settings, per_epoch)
    update = make_update(objective, total)
    teacher = place_teacher(teacher, config.dtype) if teacher is not None and stage.has_teacher else None
    key = jax.random.fold_in(jax.random.key(config.seed, impl="threefry2x32"), stage.number)
    origin = context.origin(name, Model(context.model.config, params).fingerprint)

    take_over(context, objective, origin)
    folder = context.folder.path / name
    with (
        Checkpoints(folder / "last", keep=2) as last,  # two, in case one is damaged
        Checkpoints(folder / "best") as best,
        StageLog(context, objective) as log,
        Signals() as signals,
    ):
        if devices.num_hosts() > 1:
            signals.hold()  # if one process stopped alone, the others would wait for it
        state = resume(context, objective, init_state(objective, params, total), last, origin)
        first = int(state.step)
        newest = evaluated_score(context, objective, first) if first in evaluations else None
        evaluated = bool(devices.of_the_first(newest is not None))
        check_best(best, last, origin, newest, settings.keep == "best")
        log.start(first, total)
        if first in evaluations and not evaluated:
            if devices.is_first():
                context.folder.forget_evaluation(name, first)  # a kill may have left part of it
            evaluate_and_keep_best(context, objective, state, best, log, first, origin)
        for step in steps_from(context, objective, first):
            state, report = train_step(
                programs_for(context.model), update, objective, state, teacher, batch_of(context, step),
                jax.random.fold_in(key, step.number), config.gradient_accumulation,
            )  # fmt: skip
            signals.hold()  # everything is compiled now: from here on there is work to lose
            done = step.number + 1
            log.step(step, report)
            due = done in evaluations or done % config.checkpoint_every == 0
            saved = f"step {done} of {total} of stage {name} is saved"
            stop = (due or is_time_to_ask(config, done)) and devices.any_host(bool(signals.came))
            if stop or due:
                log.check_finite()  # before anything is saved
                last.save(done, state, origin.record() | {"best": score_of(best.record())})
            if stop:
                raise stopped(signals, last, saved)
            if done in evaluations:
                with interruptible(signals, last, saved):  # if interrupted, it is evaluated again
                    evaluate_and_keep_best(context, objective, state, best, log, done, origin)
        if devices.any_host(bool(signals.came)):  # arrived during the last evaluation, which several processes finish
            raise stopped(signals, last, f"stage {name} is finished and saved")
        last.wait()
        kept = best.restore({"params": state.params}) if settings.keep == "best" else None
        return jax.device_get(state.params if kept is None else kept.tree["params"])


def is_time_to_ask(config: CompleteRun, step: int) -> bool:
    """Whether hosts check after this step if any has to stop. Not after every step: checking waits for devices."""
    return devices.num_hosts() == 1 or step % min(config.log_every, ASK_EVERY) == 0


def stopped(signals: Signals, last: Checkpoints, kept: str) -> Stopped:
    """The exception that ends the stage after a signal to any host. Waits until everything is on disk."""
    last.wait()
    return Stopped(signals.came or signal.SIGTERM, kept)


@contextlib.contextmanager
def interruptible(signals: Signals, last: Checkpoints, saved: str) -> Iterator[None]:
    """A block that signals end at once if there is one process. Several processes stop only where they agreed to."""
    if devices.num_hosts() > 1:
        yield
        return
    try:
        with signals.released(saved):
            yield
    except Stopped:
        last.wait()  # it was saved in the background
        raise


def evaluate_and_keep_best(
    context: Context, objective: Objective, state: TrainState, best: Checkpoints, log: "StageLog", step: int,
    origin: Origin,
) -> None:  # fmt: skip
    """Scores the students on the dev data, saves the weights if they are the best so far, then logs the scores.

    In this order, so that for a step in the log the weights are already saved if they are the best.
    """
    rows = score_dev(context, objective, state.params)
    score, record = mean_score(rows), best.record()
    if record is None or score > record["score"]:
        # Numbered by count, not step: a run that resumes before the best step may find a better one at an earlier step.
        best.save(best.newest + 1, {"params": state.params}, origin.record() | {"score": score, "step": step})
        best.wait()
    log.evaluation(step, rows)


def evaluated_score(context: Context, objective: Objective, step: int) -> float | None:
    """The mean score at a step; None unless the log, which is written last, has every student on every dev split."""
    rows = context.folder.evaluation(objective.stage.name, step)
    return mean_score(rows) if len(rows) == len(objective.stage.students) * len(context.data.dev) else None


def check_finished(context: Context, objectives: Sequence[Objective]) -> None:
    """Raises TrainingError unless these stages are finished: training only a later stage needs them. Writes nothing."""
    for objective in objectives:
        stage = objective.stage
        done = newest_step(context.folder.path / stage.name / "last")
        total = stage.settings.epochs * objective.steps_per_epoch(context)
        if done != total:
            raise TrainingError(
                f"only one stage was requested, but stage {stage.name} before it has done {done} of {total} "
                f"steps; run it first, or leave out --stage to run all stages"
            )


def resume(context: Context, objective: Objective, state: TrainState, last: Checkpoints, origin: Origin) -> TrainState:
    """The state to resume from. Drops the log lines of lost steps.

    Raises:
        RunFolderError: the checkpoint is of another origin, or of another step than its folder's name says.
    """
    check_origin(last, origin)
    saved = last.restore(state)
    if saved is not None and saved.step != int(saved.tree.step):
        raise RunFolderError(f"{last.folder / str(saved.step)} is of step {int(saved.tree.step)}. {again(last)}")
    if devices.is_first():
        context.folder.forget_after(objective.stage.name, 0 if saved is None else saved.step, context.run)
    return state if saved is None else saved.tree


def check_origin(checkpoints: Checkpoints, origin: Origin) -> None:
    """Raises RunFolderError if the newest checkpoint is of another origin."""
    record = checkpoints.record()
    if record is not None:
        origin.check(record, checkpoints.folder / str(checkpoints.newest), again(checkpoints))


def check_best(best: Checkpoints, last: Checkpoints, origin: Origin, newest: float | None, needed: bool) -> None:
    """Checks the best weights before anything is trained.

    Args:
        newest: the score at the newest step, from which on there must be weights that are as good; None: no score yet.
        needed: whether the stage passes them on.

    Raises:
        RunFolderError: they are of another origin; or they are needed and were chosen, and are lost or older.
    """
    check_origin(best, origin)
    score, before = score_of(best.record()), (last.record() or {}).get("best")
    chosen = max((one for one in (before, newest) if one is not None), default=None)
    if needed and score is None and chosen is not None:
        raise RunFolderError(
            f"{best.folder} is missing, and stage {origin.part} had chosen its weights there. {again(best)}"
        )
    if needed and score is not None and chosen is not None and score < chosen:
        raise RunFolderError(
            f"{best.folder} has weights with a score x 100 of {100 * score:.2f}, and stage {origin.part} had chosen "
            f"others with {100 * chosen:.2f}. {again(best)}"
        )


def score_of(record: Record | None) -> float | None:
    """The score of the best weights so far."""
    return None if record is None else record["score"]


def again(checkpoints: Checkpoints) -> str:
    """What to do about a checkpoint that cannot be used."""
    stage = checkpoints.folder.parent
    return (
        f"Restore what was there, or set run_dir to a new folder, or remove {stage} and the folders of later stages: "
        f"the same command then trains them again"
    )


def score_dev(context: Context, objective: Objective, params: Params) -> list[Row]:
    """Scores every student of the stage on every dev split, in the user's unit."""
    model, splits = context.answering(params), list(context.data.dev.values())
    return evaluate(model, objective.stage.students, splits, context.config.data, context.config.dtype)
