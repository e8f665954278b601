"""The facts of a run's folder, as plain values that become JSON. The page and the pictures draw only these."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.errors import UserError
from dynabert_jax.evaluate.rows import Row, points
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.latency_card import LatencyError, Measurement, read_card
from dynabert_jax.runs.logs import is_of, read_lines
from dynabert_jax.runs.origin import Origin, settings_of
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.json_file import read_object
from dynabert_jax.weights.rewire import Scores, by_importance

log = logging.getLogger(__name__)

Point = tuple[int, float]  # a step, and a value at that step
MOST_POINTS = 400  # per curve; a screen shows no more


class ReportError(UserError, RuntimeError):
    """A page or pictures that cannot be made; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Score:
    """A sub-network's score on one split.

    Attributes:
        value: the main metric x 100.
        error: one standard error, x 100; None unless the metric is accuracy.
    """

    value: float
    error: float | None


@dataclasses.dataclass(frozen=True)
class Size:
    """One sub-network.

    Attributes:
        width, depth: None if it has no uniform ones.
        layers: indices of the kept layers.
        heads: the kept heads of each kept layer, by their index before rewiring.
        neurons: the number of neurons of each kept layer.
        flops: for one sentence of `Facts.length` tokens.
        scores: by the name of the split.
    """

    name: str
    width: float | None
    depth: float | None
    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[int, ...]
    parameters: int
    flops: int
    scores: dict[str, Score]


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latencies of sub-networks in one setting.

    Attributes:
        setting: device, batch, length, data type and backend, in words.
        backend: its name in `choose/backends.py`.
        milliseconds: the median per batch, by the sub-network's name.
    """

    setting: str
    backend: str
    milliseconds: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Curve:
    """A stage's training.

    Attributes:
        loss: points of step and loss.
        dev: points of step and mean dev score x 100.
    """

    stage: str
    loss: tuple[Point, ...]
    dev: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Everything that is shown.

    Attributes:
        run: the folder, as given in commands.
        splits: the names of the scored splits with their numbers of examples, dev first.
        length: tokens of the sentence that FLOPs are counted for.
        sizes: largest first.
        teacher: the teacher's score, by the name of the split; empty if there is none.
        majority: what always answering the most frequent class would score, by the name of the split, with the class.
        warnings: what is probably wrong with the scores.
        latencies: one per setting; empty if none was measured.
        latency_note: a note to show about latencies, or empty.
        importance: of every head, `[layers][heads]`, before rewiring; empty if the run has none.
        origin: what the numbers depend on, by name.
    """

    run: str
    task: str
    model: str
    metric: str
    splits: dict[str, int]
    length: int
    sizes: tuple[Size, ...]
    teacher: dict[str, Score]
    majority: dict[str, tuple[str, float]]
    warnings: tuple[str, ...]
    latencies: tuple[Latency, ...]
    latency_note: str
    importance: tuple[tuple[float, ...], ...]
    curves: tuple[Curve, ...]
    origin: dict[str, str]


def facts(path: Path) -> Facts:
    """Reads a finished run.

    Raises:
        RunFolderError: the folder is not a run, or the run has not finished or is damaged.
    """
    run = read_finished(path)
    first = run.rows[0]
    latencies, note = _latencies(run)
    importance = _read_importance(run)
    return Facts(
        run=str(path),
        task=run.config.data.task.name,
        model=run.config.model,
        metric=first.measure,
        splits={row.split: row.examples for row in run.rows},
        length=first.length,
        sizes=_sizes(run, importance),
        teacher={row.split: _score(row) for row in (run.teacher.rows if run.teacher else ())},
        majority={one.split: (one.label, points(one.metric, one.score)) for one in run.majorities},
        warnings=run.warnings,
        latencies=latencies,
        latency_note=note,
        importance=_importance(importance),
        curves=_curves(run),
        origin=_origin(run.folder.results_file),
    )


# Sizes


def _sizes(run: Finished, importance: Scores | None) -> tuple[Size, ...]:
    orders = _orders(run, importance)
    subs = {sub.name: sub for sub in run.subs}
    named = {name: [row for row in run.rows if row.sub == name] for name in dict.fromkeys(r.sub for r in run.rows)}
    return tuple(_size(subs[name], rows, orders) for name, rows in named.items() if name in subs)


def _size(sub: SubNetwork, rows: Sequence[Row], orders: Sequence[Sequence[int]]) -> Size:
    kept = zip(sub.layers, sub.heads, strict=True)
    return Size(
        name=sub.name,
        width=sub.width,
        depth=sub.depth,
        layers=sub.layers,
        heads=tuple(tuple(sorted(orders[layer][:count])) for layer, count in kept),
        neurons=sub.neurons,
        parameters=rows[0].parameters,
        flops=rows[0].flops,
        scores={row.split: _score(row) for row in rows},
    )


def _score(row: Row) -> Score:
    share = row.score
    error = 100 * math.sqrt(share * (1 - share) / row.examples) if row.metric == "accuracy" else None
    return Score(row.points, error)


def _orders(run: Finished, importance: Scores | None) -> tuple[tuple[int, ...], ...]:
    """The heads of each layer, most important first, by their index before rewiring."""
    if importance is None:
        return tuple(tuple(range(heads)) for heads in run.shape.heads)
    return tuple(tuple(order.tolist()) for order in by_importance(importance).heads)


def _read_importance(run: Finished) -> Scores | None:
    """The scores that the run was rewired by; None if it was not.

    Raises:
        RunFolderError: it was, and they are lost, damaged or of another run: nobody knows which heads are kept.
    """
    if run.config.width is None:
        return None
    # Importance does not depend on unlabelled texts, and the record of the model has one fingerprint of all data.
    data = None if run.config.data.unlabelled_files else run.record.get("data")
    settings = settings_of(run.config, "importance")
    return run.folder.read_importance(Origin("importance", settings, data, run.record.get("weights"), None))


def _importance(importance: Scores | None) -> tuple[tuple[float, ...], ...]:
    heads = () if importance is None else importance.heads
    return tuple(tuple(np.asarray(scores, np.float64).tolist()) for scores in heads)


# Latencies


def _latencies(run: Finished) -> tuple[tuple[Latency, ...], str]:
    """The latencies by setting, those with the most sub-networks first, and a note if there are none."""
    file, command = run.card_file, f"dynabert bench {run.folder.path}"
    if not file.exists():
        return (), f"Latency has not been measured. Run `{command}` on the target device, then write the page again."
    try:
        card = read_card(file, run.fingerprint)
    except LatencyError as error:
        log.warning("the page has no latencies: %s", error)
        return (), f"Latencies are left out: {error}. `{command}` measures them."
    settings: dict[str, Latency] = {}
    for row in card.rows:
        setting = settings.setdefault(_setting(row), Latency(_setting(row), row.backend, {}))
        setting.milliseconds[row.sub] = row.median_ms
    return tuple(sorted(settings.values(), key=lambda setting: -len(setting.milliseconds))), ""


def _setting(row: Measurement) -> str:
    return f"{row.device}, batch {row.batch}, {row.length} tokens, {row.dtype}, {row.backend}"


# Training


def _curves(run: Finished) -> tuple[Curve, ...]:
    losses = _points(run, "training.jsonl", lambda line: line["loss"])
    scores = _points(run, "evaluations.jsonl", lambda line: points(line["metric"], line["scores"][line["metric"]]))
    return tuple(
        Curve(stage, _thinned(losses.get(stage, ())), _means(scores.get(stage, ()))) for stage in run.config.stages
    )


def _points(run: Finished, name: str, value: Callable[[Any], float]) -> dict[str, list[Point]]:
    """The points of a log, by stage. Lines of another run, and those without such a value, are left out."""
    try:
        lines = read_lines(run.folder.path / name)
    except RunFolderError as error:
        log.warning("the page leaves out the curves of a log: %s", error)
        return {}
    ours = [line for line in lines if is_of(line, run.origin.run)]
    if len(ours) < len(lines):
        log.warning("%s has lines of another run, which the page leaves out", run.folder.path / name)
    found: dict[str, list[Point]] = {}
    for line in ours:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            found.setdefault(line["stage"], []).append((line["step"], float(value(line))))
    return found


def _means(evaluated: Sequence[Point]) -> tuple[Point, ...]:
    """The mean over all sub-networks and splits of each evaluation, by step."""
    scores: dict[int, list[float]] = {}
    for step, score in evaluated:
        scores.setdefault(step, []).append(score)
    return _finite((step, np.mean(values)) for step, values in sorted(scores.items()))


def _thinned(curve: Sequence[Point]) -> tuple[Point, ...]:
    """As many points as a screen can show, each the mean of a group."""
    groups = np.array_split(np.array(curve, np.float64).reshape(-1, 2), min(len(curve), MOST_POINTS) or 1)
    means = [group.mean(axis=0) for group in groups if len(group)]
    return _finite(means)


def _finite(found: Iterable[Any]) -> tuple[Point, ...]:
    """The finite points; JSON, and so the page, cannot hold others."""
    return tuple((round(step), float(value)) for step, value in found if math.isfinite(value))


# Origin


def _origin(file: Path) -> dict[str, str]:
    """The provenance in `results.json`; empty for older runs without it."""
    values = read_object(file).get("provenance")
    if not isinstance(values, dict):
        return {}
    return {str(name): str(value) for name, value in values.items() if value is not None}
