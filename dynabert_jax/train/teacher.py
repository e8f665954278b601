"""The scores of the teacher, the network that all sizes learn from: at the end of a run, and again later."""

import time
from pathlib import Path

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.data.encode import Split, TaskData
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate.evaluate import evaluate
from dynabert_jax.evaluate.rows import TEACHER, Teacher
from dynabert_jax.model.params import Model, Params
from dynabert_jax.model.unit import in_unit, out_of_unit
from dynabert_jax.plan import StagePlan, plan_run
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.finished import read_scores
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.origin import Origin, Record, settings_of
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.checkpoint import Checkpoints, newest_step
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.loop import check_origin
from dynabert_jax.train.step import init_state
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.hub import find_model


def splits_of(data: TaskData) -> list[Split]:
    """What a finished run is scored on: every dev and test split."""
    return [*data.dev.values(), *data.test.values()]


def score_teacher(config: CompleteRun, model: Model, data: TaskData) -> Teacher:
    """Scores the teacher on every dev and test split.

    Raises:
        EvaluationError: it answers with NaN or infinity.
    """
    splits = splits_of(data)
    rows = evaluate(model, [SubNetwork.full(model.config)], splits, config.data, config.dtype)
    return Teacher(
        rows=tuple(row.replace(sub=TEACHER) for row in rows),
        weights=model.fingerprint,
        data=fingerprints(data),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def score_again(
    folder: RunFolder, here: CompleteRun, config: CompleteRun, record: Record, trained: Model, data: TaskData
) -> tuple[Teacher | None, str | None]:
    """Scores the teacher of a finished run again, if its weights are still there.

    If they are not, the earlier scores are kept, but only of the same data.

    Args:
        here: the configuration for the devices that are here; `config` is the run's own.
        record: what the run's model was made from.
        trained: the run's model.

    Returns:
        The scores, or None; and a sentence that says why they are missing or were kept, or None.
    """
    if not plan_run(trained.config, config).distils:
        return None, None
    before = _before(folder, record)
    try:
        model, problem = Model(trained.config, _weights(folder, config, record, trained, data)), ""
        if before is not None and before.weights != model.fingerprint:
            problem = "the weights that are there are not those that it was scored with"
    except UserError as error:
        problem = str(error)
    if not devices.any_host(bool(problem)):
        return score_teacher(here, model, data), None
    problem = problem or "another process cannot read its weights"
    if before is None:
        return None, f"The teacher was not scored: {problem}"
    if before.data != fingerprints(data):
        return None, f"The teacher was not scored: {problem}. Its earlier scores are of other data and are dropped"
    return (
        before,
        f"The teacher was not scored again: {problem}. Its scores are those of {before.time}, of the same data",
    )


def fingerprints(data: TaskData) -> dict[str, str]:
    """The fingerprints of the splits that are scored, by name."""
    return {split.name: split.fingerprint for split in splits_of(data)}


def _before(folder: RunFolder, record: Record) -> Teacher | None:
    """The scores in results.json; None if it has none, or is missing or damaged: it is about to be replaced."""
    try:
        return read_scores(folder, record).teacher
    except RunFolderError:
        return None


def _weights(folder: RunFolder, config: CompleteRun, record: Record, trained: Model, data: TaskData) -> Params:
    """The teacher's weights, which answer a regression in the user's unit, rounded as when the run scored them.

    Raises:
        UserError: they are no longer there, or are not those that the run learned from.
    """
    stage, unit = plan_run(trained.config, config).fine_tune, trained.config.unit
    if stage is not None:
        return in_unit(_fine_tuned(folder.path / stage.name, stage, config, record, trained, data), unit)
    task = config.data.task
    found = load_model(find_model(config.model), labels=task.outputs(data.labels), seed=config.seed, head=task.kind)
    if record.get("weights") not in (None, found.fingerprint):
        raise RunFolderError(f"{config.model} has other weights than the run was trained from")
    return in_unit(out_of_unit(found.params, unit), unit)


def _fine_tuned(
    folder: Path, stage: StagePlan, config: CompleteRun, record: Record, trained: Model, data: TaskData
) -> Params:
    """The weights that the fine-tuning stage passed on, from its checkpoints in `folder`: of standardised numbers."""
    kept = folder / stage.settings.keep
    if not newest_step(kept):
        raise RunFolderError(f"{kept} has no checkpoint")
    total = stage.settings.epochs * -(-len(data.train) // config.data.batch_size)
    state = init_state(Distillation(stage), trained.params, total)
    # Fine-tuning does not depend on unlabelled texts, and the record of the model has one fingerprint of all data.
    made_from = None if config.data.unlabelled_files else record.get("data")
    origin = Origin(stage.name, settings_of(config, stage.name), made_from, record.get("weights"), None)
    with Checkpoints(kept, keep=2) as checkpoints:
        check_origin(checkpoints, origin)
        saved = checkpoints.restore({"params": state.params} if stage.settings.keep == "best" else state)
    if saved is None:
        raise RunFolderError(f"{kept} has no checkpoint")
    if stage.settings.keep == "best":
        return saved.tree["params"]
    if saved.step != total:
        raise RunFolderError(f"{kept} has done {saved.step} of {total} steps")
    return saved.tree.params
