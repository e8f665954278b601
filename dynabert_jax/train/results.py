"""The end of a run: the weights that every sub-network is cut from, and the scores of all of them."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from dynabert_jax.config.run import RunConfig
from dynabert_jax.data.encode import TaskData, load_data, load_tokenizer
from dynabert_jax.evaluate.evaluate import evaluate
from dynabert_jax.evaluate.metrics import label_order_warning
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.evaluate.table import table
from dynabert_jax.model.params import Model, Params
from dynabert_jax.plan import plan_run, results_of
from dynabert_jax.runs.files import RunFolderError, write_whole
from dynabert_jax.runs.finished import finished_config
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.logs import Line, evaluation_lines, provenance
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.context import Context
from dynabert_jax.train.preflight import check_data, check_settings
from dynabert_jax.weights.files import load_model, save_model

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Results:
    """The scores of every sub-network.

    Attributes:
        rows: one for each split and sub-network.
        provenance: of the numbers: seed, versions, device, time.
        file: the table that was written, next to results.json; None if the run has more stages to train.
    """

    rows: tuple[Row, ...]
    provenance: Line
    file: Path | None = None

    def __str__(self) -> str:
        return table(self.rows) + ("" if self.file is None else f"\n\nwritten to {self.file}")

    def to_json(self) -> str:
        """The content of results.json."""
        return json.dumps({"provenance": self.provenance, "rows": [row.model_dump() for row in self.rows]}, indent=2)


def publish(context: Context, params: Params) -> Results:
    """Writes the run's model, scores its sub-networks on every dev and test split, and writes the results.

    After a stage that is not the run's last, nothing is written: the model folder is for the end of the whole run.
    """
    model, subs = Model(context.model.config, params), results_of(context.model.config, context.plan)
    if len(context.plan.stages) < len(context.config.stages):
        return Results(tuple(_rows(context.config, model, subs, context.data)), provenance(context.config))
    if devices.is_first():
        save_model(context.folder.model, model.config, params, tokenizer_from=context.pretrained.folder)
    return _write(context.folder, context.config, _rows(context.config, model, subs, context.data))


def evaluate_run(path: str | Path) -> Results:
    """Scores the sub-networks of a finished run again, on this device, and writes the results to its folder.

    Args:
        path: the run's folder.

    Raises:
        RunFolderError: the folder is not a run's, the run has not finished, or its classes are not the data's.
    """
    folder = RunFolder.existing(path)
    config = finished_config(folder)
    task, data = config.data.task, load_data(config.data, load_tokenizer(folder.model))
    trained = load_model(folder.model, labels=task.outputs(data.labels), head=task.kind)
    if trained.new or trained.labels_by_position:
        raise RunFolderError(
            f"{path}: its model has other classes than the data now, {data.labels}; restore the data of the run"
        )
    subs = results_of(trained.config, plan_run(trained.config, config))
    check_settings(config, trained)
    check_data(config, trained, data)
    return _write(folder, config, _rows(config, trained, subs, data))


def _rows(config: RunConfig, model: Model, subs: Sequence[SubNetwork], data: TaskData) -> list[Row]:
    """Scores every sub-network on every dev and test split."""
    rows = evaluate(model, subs, [*data.dev.values(), *data.test.values()], config.data, config.dtype)
    _warn_of_labels(data.labels, [row for row in rows if row.sub == SubNetwork.full(model.config).name])
    return rows


def _write(folder: RunFolder, config: RunConfig, rows: Sequence[Row]) -> Results:
    """Writes results.json, results.md and the last lines of the evaluation log."""
    results = Results(tuple(rows), provenance(config), folder.path / "results.md")
    if devices.is_first():
        folder.replace_evaluations("results", evaluation_lines(config, "results", None, rows))
        write_whole(folder.results_file, results.to_json() + "\n")
        write_whole(folder.path / "results.md", table(rows) + "\n")
    return results


def _warn_of_labels(labels: Sequence[str], full: Sequence[Row]) -> None:
    """Warns if the accuracy of the full network is far below chance."""
    for row in full:
        if "accuracy" in row.scores:
            warning = label_order_warning(labels, row.scores["accuracy"], row.examples)
            if warning:
                log.warning("%s: %s", row.split, warning)
