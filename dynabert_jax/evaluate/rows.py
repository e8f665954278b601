"""A row of scores: what one sub-network scores on one split. No jax."""

from collections.abc import Sequence

import numpy as np

from dynabert_jax.config.checked import Checked


class Row(Checked):
    """What one sub-network scores on one split.

    Attributes:
        sub: the sub-network's name.
        width, depth: its multipliers; None where it has none.
        split: the name of the split.
        examples: how many were scored.
        metric: the task's main metric.
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
    scores: dict[str, float]
    parameters: int
    flops: int
    length: int

    @property
    def score(self) -> float:
        return self.scores[self.metric]


def mean_score(rows: Sequence[Row]) -> float:
    """The mean of the main score over rows: what the best checkpoint is chosen by."""
    return float(np.mean([row.score for row in rows]))
