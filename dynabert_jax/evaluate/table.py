"""Rows to tables."""

import re
from collections.abc import Sequence

from dynabert_jax.cost import size
from dynabert_jax.evaluate.rows import Row, mean_score


def table(rows: Sequence[Row]) -> str:
    """A Markdown table per split: scores by width and depth, with parameters and FLOPs.

    Scores are the task's main metric in percent. FLOPs are for one sentence of the row's length.
    """
    parts = []
    for split in dict.fromkeys(row.split for row in rows):
        own = [row for row in rows if row.split == split]
        parts.append(
            f"{on_one_line(split)}: {on_one_line(own[0].title)} x 100, {own[0].examples:,} examples\n\n{_grid(own)}"
        )
    return "\n\n".join([*parts, _costs([row for row in rows if row.split == rows[0].split])]) if rows else ""


def _grid(rows: Sequence[Row]) -> str:
    """Width by depth, and the mean over all."""
    widths = sorted({row.width for row in rows if row.width is not None}, reverse=True)
    depths = sorted({row.depth for row in rows if row.depth is not None}, reverse=True)
    if not widths or not depths:
        return markdown(["sub-network", "score"], [[row.sub, f"{100 * row.score:.2f}"] for row in rows])
    cells = {(row.width, row.depth): f"{100 * row.score:.2f}" for row in rows}
    lines = [[f"depth {depth:g}", *(cells.get((width, depth), "") for width in widths)] for depth in depths]
    return f"{markdown(['', *(f'width {width:g}' for width in widths)], lines)}\n\nmean: {100 * mean_score(rows):.2f}"


def _costs(rows: Sequence[Row]) -> str:
    lines = [[row.sub, size(row.parameters), size(row.flops)] for row in rows]
    return markdown(["sub-network", "parameters", f"FLOPs at {rows[0].length} tokens"], lines)


def on_one_line(text: str) -> str:
    """Text whose line ends are spaces."""
    return " ".join(text.split())


def cell(text: str) -> str:
    """Text as a cell of a Markdown table: on one line, and without an end of the cell."""
    return " ".join(text.splitlines()).replace("|", "\\|")


def escaped(text: str) -> str:
    """A user's text as Markdown that shows it as it is, on one line: no mark-up, no HTML, no link."""
    return re.sub(r"([\\`*_{}\[\]<>&#|~@$]|:(?=//))", r"\\\1", on_one_line(text))


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned as plain text."""
    header, lines = [cell(name) for name in header], [[cell(one) for one in line] for line in lines]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    padded = [[one.ljust(width) for one, width in zip(line, widths, strict=True)] for line in [header, rule, *lines]]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
