"""Facts to PNG files, for papers and slides. Matplotlib is imported only here, and only to draw a picture."""

import contextlib
import functools
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.choose.choose import front_of
from dynabert_jax.report.facts import Curve, Facts, ReportError, Size
from dynabert_jax.system.packages import require

# From Okabe and Ito's palette, which is distinct for every kind of colour vision.
BLUE, GREY = "#0072b2", "#8a929b"
STYLE = {
    "figure.dpi": 160,
    "savefig.bbox": "tight",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8ea",
    "axes.axisbelow": True,
    "font.size": 9,
}


def write_pictures(facts: Facts, folder: Path) -> list[Path]:
    """Draws every chart that the run has data for, and returns the files.

    Raises:
        ReportError: matplotlib is not installed, or the folder cannot be written.
    """
    require(("matplotlib",), "--pictures", "report")
    costs: dict[str, Callable[[Size], float | None]] = {
        "parameters": lambda size: size.parameters / 1e6,
        "flops": lambda size: size.flops / 1e9,
    }
    labels = {"parameters": "parameters, millions", "flops": f"GFLOPs of {facts.length} tokens"}
    if facts.latencies:
        fastest = facts.latencies[0]
        costs["latency"] = lambda size: fastest.milliseconds.get(size.name)
        labels["latency"] = f"ms, {fastest.setting}"
    drawings: dict[str, Callable[[Any], None]] = {
        f"score_{cost}": functools.partial(_front, facts=facts, of=of, label=labels[cost]) for cost, of in costs.items()
    }
    if all(size.width is not None for size in facts.sizes):
        drawings["widths_and_depths"] = functools.partial(_grid, facts=facts)
    if facts.importance:
        drawings["heads"] = functools.partial(_heads, facts=facts)
    for curve in facts.curves:
        drawings[f"loss_{curve.stage}"] = functools.partial(_loss, curve=curve)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{name}.png", drawing) for name, drawing in drawings.items()]


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(f"cannot write pictures to {folder}: {error}; name another folder with --pictures") from error


def _write(file: Path, drawing: Callable[[Any], None]) -> Path:
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would keep figures and a window system alive for the whole process

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.4))
        drawing(figure.subplots())
        figure.savefig(file)
    return file


def _front(axes: Any, facts: Facts, of: Callable[[Size], float | None], label: str) -> None:
    split = next(iter(facts.splits))
    points = [(cost, size.scores[split].value) for size in facts.sizes if (cost := of(size)) is not None]
    front = pareto(points)
    behind = [point for point in points if point not in front]
    axes.plot(*zip(*front, strict=True), "o-", color=BLUE, label="Pareto front")
    if behind:
        axes.plot(*zip(*behind, strict=True), "o", color=GREY, markerfacecolor="white", label="not on it")
    if split in facts.teacher:
        axes.axhline(facts.teacher[split].value, color=GREY, linestyle="--", linewidth=1, label="teacher")
    axes.set(xlabel=label, ylabel=f"{facts.metric} x 100 on {split}")
    axes.legend(frameon=False, loc="lower right")


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of (cost, score) points, cheapest first."""
    return list(front_of(points, cost=operator.itemgetter(0), score=operator.itemgetter(1)))


def _grid(axes: Any, facts: Facts) -> None:
    split = next(iter(facts.splits))
    widths = sorted({size.width or 0.0 for size in facts.sizes}, reverse=True)
    depths = sorted({size.depth or 0.0 for size in facts.sizes}, reverse=True)
    scores = np.full((len(depths), len(widths)), np.nan)
    for size in facts.sizes:
        scores[depths.index(size.depth or 0.0), widths.index(size.width or 0.0)] = size.scores[split].value
    _cells(axes, scores, "cividis")
    middle = (np.nanmin(scores) + np.nanmax(scores)) / 2
    for (row, column), score in np.ndenumerate(scores):
        ink = "black" if score > middle else "white"
        axes.text(column, row, "" if np.isnan(score) else f"{score:.2f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(len(widths)), [f"width {width:g}" for width in widths])
    axes.set_yticks(range(len(depths)), [f"depth {depth:g}" for depth in depths])
    axes.set_title(f"{facts.metric} x 100 on {split}", fontsize=9)


def _heads(axes: Any, facts: Facts) -> None:
    most = max(map(len, facts.importance))
    shares = [np.array(heads) / (max(heads) or 1.0) for heads in facts.importance]
    _cells(axes, np.stack([np.pad(heads, (0, most - len(heads)), constant_values=np.nan) for heads in shares]), "Blues")
    axes.set_xticks(range(most), [str(head + 1) for head in range(most)])
    axes.set_yticks(range(len(shares)), [f"layer {layer + 1}" for layer in range(len(shares))])
    axes.set_xlabel("head; the darkest is the most important in its layer")


def _cells(axes: Any, values: np.ndarray, colours: str) -> None:
    axes.imshow(values, cmap=colours, aspect="auto")
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _loss(axes: Any, curve: Curve) -> None:
    axes.plot(*zip(*curve.loss, strict=True) if curve.loss else ([], []), color=BLUE)
    axes.set(xlabel=f"step of the stage {curve.stage}", ylabel="loss")
