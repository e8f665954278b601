"""A row of scores: the result of one sub-network on one split. Needs no jax."""

from collections.abc import Sequence

import numpy as np

from dynabert_jax.config.checked import Checked
from dynabert_jax.config.tasks import Against


class Row(Checked):
    """The scores of one sub-network on one split.

    Attributes:
        sub: the sub-network's name.
        width, depth: its multipliers; None if it has none.
        split: the name of the split.
        examples: the number that were scored.
        metric: the task's main metric.
        scores: every metric of the task, as fractions.
        against: what the answers were compared with: the data's labels, or the answers of the run's teacher.
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
    against: Against = "labels"

    @property
    def measure(self) -> str:
        """What the score is, in words."""
        return measure(self.metric, self.against)

    @property
    def score(self) -> float:
        return self.scores[self.metric]


def measure(metric: str, against: Against | None) -> str:
    """A metric in words, which say so if it compares answers with those of the teacher and not with labels."""
    return f"agreement with the teacher ({metric})" if against == "teacher" else metric


def mean_score(rows: Sequence[Row]) -> float:
    """The mean of the main score over rows, which decides on the best checkpoint."""
    return float(np.mean([row.score for row in rows]))
