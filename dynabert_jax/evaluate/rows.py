"""A row of scores: the result of one sub-network on one split, and scores as people read them. Needs no jax."""

from collections.abc import Sequence

import numpy as np

from dynabert_jax.config.checked import Checked
from dynabert_jax.config.tasks import Against

IN_UNITS = ("mean_absolute_error",)  # metrics in the unit of the labels; all others are shown x 100


class Row(Checked):
    """The scores of one sub-network on one split.

    Attributes:
        sub: the sub-network's name.
        width, depth: its multipliers; None if it has none.
        split: the name of the split.
        examples: the number that were scored.
        metric: the task's main metric.
        positive: the class that `f1` is of; empty without that metric, and in results of older versions.
        scores: every metric of the task, as scikit-learn computes it: an accuracy is at most 1.
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
    positive: str = ""
    scores: dict[str, float]
    parameters: int
    flops: int
    length: int
    against: Against = "labels"

    @property
    def measure(self) -> str:
        """What the score is, in words."""
        return measure(self.metric, self.against, self.positive)

    @property
    def score(self) -> float:
        """The main metric, as a fraction."""
        return self.scores[self.metric]

    @property
    def points(self) -> float:
        """The main metric x 100, as people read it."""
        return points(self.metric, self.score)


TEACHER = "teacher"  # in a row, instead of a sub-network's name


class Teacher(Checked):
    """The scores of the network that all sizes learn from: the fine-tuned one or, without fine-tuning, the pretrained.

    Attributes:
        rows: one for each split; `sub` is "teacher".
        weights: the fingerprint of its weights.
        data: of every split, by its name, the fingerprint.
        time: when it was scored, in UTC.
    """

    rows: tuple[Row, ...]
    weights: str
    data: dict[str, str]
    time: str

    def on(self, split: str) -> Row | None:
        """Its row on the split of that name; None if it was not scored there."""
        return next((row for row in self.rows if row.split == split), None)


class Majority(Checked):
    """What a network would score that always answers the most frequent class of a split.

    Attributes:
        label: the class.
        share: its share of the examples.
        scores: as in a `Row`.
    """

    split: str
    label: str
    share: float
    metric: str
    scores: dict[str, float]

    @property
    def score(self) -> float:
        """The main metric, as a fraction."""
        return self.scores[self.metric]


def points(metric: str, value: float) -> float:
    """A score as people read it: x 100, unless the metric is in the unit of the labels."""
    return value if metric in IN_UNITS else 100 * value


def shown(metric: str, value: float) -> str:
    """The same as text, such as 87.95."""
    return f"{value:.4g}" if metric in IN_UNITS else f"{100 * value:.2f}"


def measure(metric: str, against: Against | None, positive: str) -> str:
    """A metric in words, which say so if it compares answers with those of the teacher and not with labels."""
    name = named(metric, positive)
    return f"agreement with the teacher ({name})" if against == "teacher" else name


def named(metric: str, positive: str) -> str:
    """A metric's name in words, on one line: `mean absolute error`, or `f1 of fraud` for the positive class fraud."""
    return " ".join([metric.replace("_", " "), *(["of", *positive.split()] if metric == "f1" and positive else [])])


def mean_score(rows: Sequence[Row]) -> float:
    """The mean of the main score over rows, which decides on the best checkpoint."""
    return float(np.mean([row.score for row in rows]))
