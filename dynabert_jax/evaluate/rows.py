"""A row of scores: the result of one sub-network on one split. Needs no jax."""

from collections.abc import Sequence

import numpy as np

from dynabert_jax.config.checked import Checked


class Row(Checked):
    """The scores of one sub-network on one split.

    Attributes:
        sub: the sub-network's name.
        width, depth: its multipliers; None if it has none.
        split: the name of the split.
        examples: the number that were scored.
        metric: the task's main metric.
        positive: the class that `f1` is of; empty without that metric, and in results of older versions.
        scores: every metric of the task, as fractions.
        parameters: of the cut model.
        flops: of a forward pass over one sentence of `length` tokens.
    """

    sub: str
    width: float | None
    depth: float | None
    split: str
    examples: int
    metric: str
    positive: str = ""
    scores: dict[str, float]
    parameters: int
    flops: int
    length: int

    @property
    def title(self) -> str:
        """The main metric's name in sentences and tables."""
        return self.name_of(self.metric)

    def name_of(self, metric: str) -> str:
        """A metric's name in sentences and tables: `mean absolute error`, or `f1 of fraud`."""
        of = f" of {self.positive}" if metric == "f1" and self.positive else ""
        return metric.replace("_", " ") + of

    @property
    def score(self) -> float:
        return self.scores[self.metric]


def mean_score(rows: Sequence[Row]) -> float:
    """The mean of the main score over rows, which decides on the best checkpoint."""
    return float(np.mean([row.score for row in rows]))
