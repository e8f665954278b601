"""Stages that another run has finished are taken over if they were made with the same settings, data and weights."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dynabert_jax.runs.files import RunFolderError, writing
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.origin import Origin
from dynabert_jax.system import devices
from dynabert_jax.system.files import remove, temporary_beside
from dynabert_jax.train.checkpoint import CheckpointError, damage_of, newest_step, record_of
from dynabert_jax.train.context import Context, TrainingError
from dynabert_jax.train.objective import Objective

log = logging.getLogger(__name__)


def open_source(folder: RunFolder, from_run: str | Path | None) -> RunFolder | None:
    """The run that stages of the run in `folder` are taken from, if there is one.

    Raises:
        RunFolderError: it is not the folder of a run, or it is the folder of this run.
    """
    if from_run is None:
        return None
    source = RunFolder.existing(from_run)
    if source.path.resolve() == folder.path.resolve():
        raise RunFolderError(
            f"--from {from_run} is the run's own folder; leave it out to resume the run, or set run_dir to a new folder"
        )
    return source


def check_source(context: Context, objectives: Sequence[Objective]) -> None:
    """Checks, before anything is written, that these stages are finished here or can be taken over.

    Raises:
        TrainingError: one is neither; the message says what differs.
    """
    for objective in objectives:
        name = objective.stage.name
        if newest_step(context.folder.path / name / "last") == _total(context, objective):
            continue
        reason = why_not(context, objective, context.origin(name, None))
        if reason:
            raise _not_taken(context, name, reason)


def _not_taken(context: Context, name: str, reason: str) -> TrainingError:
    return TrainingError(
        f"only one stage was requested, and stage {name} before it cannot be taken over from "
        f"{_source(context).path}: {reason}. Leave out --stage to train it, too"
    )


def take_over(context: Context, objective: Objective, origin: Origin) -> None:
    """Puts the finished stage of the other run into this one's folder, unless this run has begun the stage itself.

    The first process copies, and the others wait. A stage that appears is whole: its logs come first, then its
    checkpoints, all at once. If it cannot be taken over, the reason is logged, and the stage trains.

    Args:
        origin: what the stage is made from in this run.

    Raises:
        TrainingError: only a later stage is to be trained, and this one cannot be taken over.
        CheckpointError: the other run's checkpoint is damaged.
    """
    if context.source is None:
        return
    if devices.is_first() and not _has_begun(context, objective.stage.name):
        name, reason = objective.stage.name, why_not(context, objective, origin)
        if reason and context.only not in (None, name):
            raise _not_taken(context, name, reason)
        if reason:
            log.info("stage %s trains; it is not taken over from %s: %s", name, context.source.path, reason)
        else:
            _copy(context, name)
            log.info("stage %s is taken over from %s", name, context.source.path)
    devices.wait_for_all(f"stage {objective.stage.name} is taken over")


def take_importance(context: Context, origin: Origin) -> None:
    """Does the same with the scores of heads and neurons."""
    here = context.folder.importance_file
    if context.source is None or here.exists():
        return
    try:
        scores = context.source.read_importance(origin)
    except RunFolderError as error:
        log.info("importance is computed; it is not taken over: %s", error)
        return
    context.folder.write_importance(scores, origin)
    log.info("importance is taken over from %s", context.source.path)


def why_not(context: Context, objective: Objective, origin: Origin) -> str:
    """Why a stage of the other run cannot be taken over, in words; empty if it can."""
    source, total = _source(context).path / objective.stage.name, _total(context, objective)
    done = newest_step(source / "last")
    if not done:
        return "that run has not trained it"
    try:
        record = record_of(source / "last" / str(done))
    except CheckpointError as error:
        return str(error)
    differences = list(origin.differences(record)) if "config" in record else [OLDER]
    if differences:
        return "; ".join(differences)
    if done != total or not newest_step(source / "best"):
        return f"that run has not finished it (step {done} of {total})"
    return ""


OLDER = "an older version trained it, which did not record what it is made from"


def _copy(context: Context, name: str) -> None:
    """Logs, TensorBoard's files and, last, the checkpoints of a stage: a kill in between leaves nothing to mislead."""
    source, folder = _source(context), context.folder
    with writing(folder.path / name), temporary_beside(folder.path / name) as temporary:
        shutil.copytree(source.path / name, temporary, copy_function=_link)
        damages = [damage for one in _checkpoints(temporary) if (damage := damage_of(one))]
        if damages:
            raise CheckpointError(f"{source.path / name} cannot be taken over: {damages[0]}")
        folder.take_logs(source, name, context.run)
        remove(folder.path / name)  # which holds nothing, if it is there
        temporary.rename(folder.path / name)


def _has_begun(context: Context, name: str) -> bool:
    """Whether this run has a checkpoint of the stage, to which it keeps."""
    return any(newest_step(context.folder.path / name / kind) for kind in ("last", "best"))


def _checkpoints(stage: Path) -> Iterator[Path]:
    """The newest checkpoint of each kind."""
    for kind in ("last", "best"):
        newest = newest_step(stage / kind)
        if newest:
            yield stage / kind / str(newest)


def _link(one: str, other: str) -> None:
    """A second name for a file, which is never changed in place; a copy where the file system has no such links."""
    with contextlib.suppress(OSError):
        os.link(one, other)
        return
    shutil.copy2(one, other)


def _source(context: Context) -> RunFolder:
    assert context.source is not None
    return context.source


def _total(context: Context, objective: Objective) -> int:
    return objective.stage.settings.epochs * objective.steps_per_epoch(context)
