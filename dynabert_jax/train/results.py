"""The end of a run: the weights that every sub-network is cut from, and what each of them scores."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.data.encode import TaskData, load_data, load_tokenizer
from dynabert_jax.evaluate.evaluate import evaluate
from dynabert_jax.evaluate.metrics import label_order_warning
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.evaluate.table import table
from dynabert_jax.model.params import Model, Params
from dynabert_jax.plan import Plan, plan_run, results_of
from dynabert_jax.runs.files import RunFolderError, write_whole
from dynabert_jax.runs.finished import finished_config
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.logs import evaluation_lines, provenance
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.context import Context
from dynabert_jax.train.preflight import check_data, check_settings
from dynabert_jax.weights.files import load_model, save_model

log = logging.getLogger(__name__)


def publish(context: Context, plan: Plan, params: Params, tokenizer_from: Path) -> list[Row]:
    """Writes the run's model, scores its sub-networks on every dev and test split, prints and writes the table.

    Behind a stage that is not the run's last, the scores are printed alone: the model is what the whole run ends with.
    """
    shape = context.model.config
    if len(plan.objectives) < len(context.config.stages):
        rows = _rows(context.config, shape, params, results_of(shape, plan), context.data)
        if devices.is_first():
            print(f"\n{table(rows)}")
        return rows
    if devices.is_first():
        save_model(context.folder.model, shape, params, tokenizer_from=tokenizer_from)
    return _score(context.folder, context.config, shape, params, results_of(shape, plan), context.data)


def evaluate_run(path: str | Path, *, as_json: bool = False) -> list[Row]:
    """Scores the sub-networks of a finished run again, on this device, and prints and writes the table.

    Args:
        path: the run's folder.
        as_json: print what `results.json` holds instead of the table.

    Raises:
        RunFolderError: the folder is no run's, or the run has not finished.
    """
    folder = RunFolder.existing(path)
    config = finished_config(folder)
    data = load_data(config.data, load_tokenizer(folder.model))
    trained = load_model(folder.model, labels=config.data.task.outputs(data.labels))
    if trained.new:
        raise RunFolderError(
            f"{path}: its model has other classes than the data has now, {data.labels}; bring the data it learnt"
        )
    check_settings(config, trained)
    check_data(config, trained, data)
    subs = results_of(trained.config, plan_run(trained.config, config))
    return _score(folder, config, trained.config, trained.params, subs, data, as_json=as_json)


def _score(
    folder: RunFolder, config: RunConfig, shape: ModelConfig, params: Params, subs: Sequence[SubNetwork],
    data: TaskData, *, as_json: bool = False,
) -> list[Row]:  # fmt: skip
    """The rows, which are written and printed."""
    rows = _rows(config, shape, params, subs, data)
    text = table(rows)
    if not devices.is_first():
        return rows
    values = {"provenance": provenance(config), "rows": [row.model_dump() for row in rows]}
    as_text = json.dumps(values, indent=2)
    folder.replace_evaluations("results", evaluation_lines(config, "results", None, rows))
    write_whole(folder.results_file, as_text + "\n")
    write_whole(folder.path / "results.md", text + "\n")
    print(as_text if as_json else f"\n{text}\n\nwritten to {folder.path / 'results.md'}")
    return rows


def _rows(
    config: RunConfig, shape: ModelConfig, params: Params, subs: Sequence[SubNetwork], data: TaskData
) -> list[Row]:
    """Every sub-network on every dev and test split."""
    splits = [*data.dev.values(), *data.test.values()]
    rows = evaluate(Model(shape, params), subs, splits, config.data, config.dtype)
    _warn_of_labels(data.labels, [row for row in rows if row.sub == SubNetwork.full(shape).name])
    return rows


def _warn_of_labels(labels: Sequence[str], full: Sequence[Row]) -> None:
    """Says where the full network, of which much can be expected, is far below chance."""
    for row in full:
        if "accuracy" in row.scores:
            warning = label_order_warning(labels, row.scores["accuracy"], row.examples)
            if warning:
                log.warning("%s: %s", row.split, warning)
