"""The end of a run: the weights that every sub-network is cut from, and the scores of all of them."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.data.encode import TaskData, load_data
from dynabert_jax.data.summary import Understood
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate.evaluate import evaluate
from dynabert_jax.evaluate.metrics import label_order_warning, majority
from dynabert_jax.evaluate.rows import Majority, Row, Teacher
from dynabert_jax.evaluate.table import table
from dynabert_jax.model.params import Model, Params
from dynabert_jax.plan import plan_run, results_of
from dynabert_jax.runs.answers import with_answers
from dynabert_jax.runs.files import RunFolderError, sealed, write_whole
from dynabert_jax.runs.finished import (
    TABLE,
    Finished,
    check_files,
    finished_config,
    read_finished,
    read_model_record,
    read_shape,
)
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.logs import RESULTS, Line, evaluation_lines, provenance
from dynabert_jax.runs.origin import Origin, Record
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.context import Context
from dynabert_jax.train.preflight import check_data, check_settings, tell, tell_understood, understood, warn_of_data
from dynabert_jax.train.teacher import fingerprints, score_again, score_teacher, splits_of
from dynabert_jax.weights.files import load_model, save_model

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Results:
    """The scores of every sub-network.

    Attributes:
        rows: one for each split and sub-network.
        teacher: the scores of the network that all sizes learn from; None if nothing does, or if an evaluation later
            could not score it.
        majorities: what always answering the most frequent class would score, on every split; empty for a regression.
        warnings: what is probably wrong with the scores, a sentence or two each.
        model: the fingerprint of the weights that were scored.
        provenance: of the numbers: seed, versions, device, time.
        understood: what was understood of the data and taken for granted of the model.
        scored: fingerprints of the splits that were scored, by name.
        file: the table that was written, next to results.json; None if the run has more stages to train.
    """

    rows: tuple[Row, ...]
    model: str
    provenance: Line
    understood: Understood
    file: Path | None = None
    teacher: Teacher | None = None
    majorities: tuple[Majority, ...] = ()
    warnings: tuple[str, ...] = ()
    scored: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def table(self) -> str:
        """The content of results.md."""
        return table(self.rows, self.teacher, self.majorities, self.warnings)

    def __str__(self) -> str:
        return self.table + ("" if self.file is None else f"\n\nwritten to {self.file}")

    def to_json(self) -> str:
        """The content of results.json."""
        return sealed(
            {
                "provenance": self.provenance,
                "model": self.model,
                "understood": self.understood.to_json(),
                "teacher": None if self.teacher is None else self.teacher.to_values(),
                "majorities": [one.to_values() for one in self.majorities],
                "warnings": list(self.warnings),
                "scored": dict(self.scored),
                "rows": [row.to_values() for row in self.rows],
            }
        )


def publish(context: Context, params: Params, teacher: Params) -> Results:
    """Writes the run's model, scores its sub-networks on every dev and test split, and writes the results.

    After a stage that is not the run's last, nothing is written: the model folder is for the end of the whole run.

    Args:
        teacher: the weights that the first distilling stage learns from, if there is one.
    """
    model, subs = context.answering(params), results_of(context.model.config, context.plan)
    is_last = len(context.plan.stages) == len(context.config.stages)
    if is_last and devices.is_first():
        save_model(context.folder.model, model.config, model.params, tokenizer_from=context.pretrained.folder)
        context.folder.write_model_record(context.origin("model", model.fingerprint))
    rows = evaluate(model, subs, splits_of(context.data), context.config.data, context.config.dtype)
    scores = score_teacher(context.config, context.answering(teacher), context.data) if context.plan.distils else None
    said = understood(context.pretrained, context.data)
    results = _results(context.config, model, rows, scores, context.data, said)
    return _written(context.folder, context.config, results) if is_last else results


def finished_before(context: Context) -> Finished | None:
    """The run, if it was finished before and nothing that its results depend on has changed; else None.

    None also where a file is missing or damaged: going through the run again then repairs it, or says why not.
    """
    found = _intact(context)
    if devices.any_host(found is None):
        return None
    tell([
        f"the run in {context.folder.path} is finished, and nothing has changed since: nothing is trained or scored "
        "again"
    ])  # fmt: skip
    return found


def _intact(context: Context) -> Finished | None:
    try:
        found = read_finished(context.folder.path)
        check_files(context.folder, found.record)
    except UserError:
        return None
    is_same = found.scored == fingerprints(context.data) and (found.path / TABLE).exists()
    return None if not is_same or any(context.origin("model", None).differences(found.record)) else found


def evaluate_run(path: str | Path) -> Results:
    """Scores the sub-networks of a finished run again, on this device, and writes the results to its folder.

    Args:
        path: the run's folder.

    Raises:
        RunFolderError: the folder is not a run's, the run has not finished, its classes are not the data's, or other
            rows are held out than when it was trained.
    """
    folder = RunFolder.existing(path)
    with folder.locked() if devices.is_first() else contextlib.nullcontext():
        return _evaluate(folder)


def _evaluate(folder: RunFolder) -> Results:
    config, path = finished_config(folder), folder.path
    record = read_model_record(folder, config)
    check_files(folder, record)
    tokenizer = load_tokenizer(folder.model, read_shape(folder))
    shape, task = read_shape(folder), config.data.task
    data = load_data(config.data, tokenizer, () if shape.is_regression else shape.labels)
    trained = load_model(folder.model, labels=task.outputs(data.labels), head=task.kind)
    if trained.new or trained.labels_by_position:
        raise RunFolderError(
            f"{path}: its model has other classes than the data now, {data.labels}; restore the data of the run"
        )
    _check_same_data(path, record, data)
    data = with_answers(data, folder, config, record.get("weights"))
    subs = results_of(trained.config, plan_run(trained.config, config))
    here = _for_these_devices(config)
    check_settings(here, trained)
    warn_of_data(data)
    check_data(here, trained, data)
    if not record:
        origin = Origin("model", config, None, None, trained.fingerprint)
        record = origin.record()
        if devices.is_first():
            folder.write_model_record(origin)
    said = tell_understood(trained, data)
    rows = evaluate(trained, subs, splits_of(data), here.data, here.dtype)
    teacher, problem = score_again(folder, here, config, record, trained, data)
    results = _results(here, trained, rows, teacher, data, said, [problem] if problem else [])
    return _written(folder, here, dataclasses.replace(results, model=record["start"]))


def _check_same_data(path: Path, record: Record, data: TaskData) -> None:
    """Where dev was held out of train, other rows than those would be scored as new that were trained on."""
    if record.get("data") == data.fingerprint:
        return
    if data.held_out:
        raise RunFolderError(
            f"{path}: dev is held out of train, and other rows are held out now than when the run was trained: "
            "the data has changed, or an older version has trained it. Dev scores would be of texts that it has "
            "learned; restore the data and the version, or train again in a new run_dir"
        )
    if record.get("data") is not None:
        log.warning(
            "%s: the train or dev data are not those that the run was trained on; the scores are of new data", path
        )


def _for_these_devices(config: CompleteRun) -> CompleteRun:
    """The configuration with batches that divide over the devices that are here; scores do not depend on them."""
    data = config.data
    sizes = {name: devices.round_up(getattr(data, name)) for name in ("batch_size", "eval_batch_size")}
    return config.replace(data=data.replace(**sizes), gradient_accumulation=1)


def _results(
    config: CompleteRun, model: Model, rows: Sequence[Row], teacher: Teacher | None, data: TaskData, said: Understood,
    problems: Sequence[str] = (),
) -> Results:  # fmt: skip
    """The results with everything that is said of the scores; `problems` are known already. Warnings are logged."""
    found = [majority(config.data.task, data.labels, split.name, split.labels) for split in splits_of(data)]
    full = [row for row in rows if row.sub == SubNetwork.full(model.config).name]
    warnings = [*problems, *_label_warnings(data.labels, full)]
    for warning in warnings if devices.is_first() else ():
        log.warning("%s", warning)
    majorities = tuple(one for one in found if one is not None)
    return Results(
        tuple(rows), model.fingerprint, provenance(config), said, None, teacher, majorities, tuple(warnings),
        fingerprints(data),
    )  # fmt: skip


def _written(folder: RunFolder, config: CompleteRun, results: Results) -> Results:
    """Writes results.json, results.md and the last lines of the evaluation log."""
    results = dataclasses.replace(results, file=folder.path / TABLE)
    if devices.is_first():
        folder.replace_evaluations(RESULTS, evaluation_lines(config, RESULTS, None, results.rows))
        write_whole(folder.results_file, results.to_json() + "\n")
        write_whole(folder.path / TABLE, results.table + "\n")
    return results


def _label_warnings(labels: Sequence[str], full: Sequence[Row]) -> Iterator[str]:
    """A warning for every split on which the accuracy of the full network is far below chance."""
    for row in full:
        if "accuracy" in row.scores:
            warning = label_order_warning(labels, row.scores["accuracy"], row.examples)
            if warning:
                yield f"{row.split}: {warning}"
