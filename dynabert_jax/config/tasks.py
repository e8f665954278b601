"""The tasks: what the columns contain, the classes' names, and the metrics."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import pydantic

from dynabert_jax.config.checked import Checked, ConfigError
from dynabert_jax.errors import nearest

Metric = Literal[
    "accuracy", "f1", "macro_f1", "weighted_f1", "matthews", "pearson", "spearman", "mean_absolute_error"
]  # fmt: skip
Kind = Literal["classification", "regression"]  # of a task, and of the head of its model
Against = Literal["labels", "teacher"]  # what answers are scored against: the data's labels, or the teacher's answers
Sample = Literal["movie_reviews", "movie_reviews_reference", "movie_ratings"]


class DevSplit(Checked):
    """One split on which a task is evaluated during training.

    Attributes:
        name: its name in logs and tables.
        hub: its name in the hub data set.
        glue_file: its file in a folder in GLUE's TSV format.
    """

    name: str = "dev"
    hub: str = "validation"
    glue_file: str = "dev.tsv"


class GlueLayout(Checked):
    """The column names of a task's TSV files in the GLUE benchmark.

    Attributes:
        columns: the names of all columns, for files without a header; empty if the files have one.
    """

    text_columns: tuple[str, ...]
    label_column: str
    columns: tuple[str, ...] = ()


class Task(Checked):
    """What the columns of a data set mean and how predictions are scored.

    Attributes:
        name: the task's name.
        text_columns: the column of the sentence, or the two columns of a pair of sentences.
        label_column: the column of the label.
        labels: the classes' names in the order of their ids, without white space at their ends. Empty: the names that a
            hub data set declares or, for files, the distinct values in train, sorted.
        kind: what is predicted: a class, or a number (`regression`). `regression=True` is the same as
            `kind="regression"`.
        standardise: learn the numbers of a regression as multiples of their standard deviation in train, from their
            mean there, so that their unit does not matter; answers are in the user's unit. Classes do not change.
        positive_label: the class that `f1` is of, one of two. By default the second one that `labels` names.
        metrics: what is computed; the first one is the main score. By default accuracy or, for a regression, Pearson's
            and Spearman's correlation and the mean absolute error.
        hub: the hub data set used if the user names no data, as `path` or `path:configuration`.
        sample: the sample data used if the user names no data.
        dev: the splits that are evaluated during training.
        glue: the layout of GLUE's own TSV files; None for a task outside GLUE.
    """

    name: str
    text_columns: tuple[str, ...]
    label_column: str = "label"
    labels: tuple[str, ...] = ()
    kind: Kind = "classification"
    standardise: bool = True
    positive_label: str | None = None
    metrics: tuple[Metric, ...] = ("accuracy",)
    hub: str | None = None
    sample: Sample | None = None
    dev: tuple[DevSplit, ...] = (DevSplit(),)
    glue: GlueLayout | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _by_kind(cls, values: Any) -> Any:
        """What follows from other settings, unless it is given; `regression` is converted to a kind."""
        if not isinstance(values, dict):
            return values
        kinded = cls._with_kind(values)
        filled = {"metrics": _default_metrics(kinded.get("kind"))} | kinded
        labels, metrics = filled.get("labels"), filled["metrics"]
        if isinstance(labels, tuple) and isinstance(metrics, tuple) and len(labels) == 2 and "f1" in metrics:
            filled["positive_label"] = labels[1] if filled.get("positive_label") is None else filled["positive_label"]
        return filled

    @staticmethod
    def _with_kind(values: dict[str, Any]) -> dict[str, Any]:
        if "regression" not in values:
            return values
        regression, others = values["regression"], {name: v for name, v in values.items() if name != "regression"}
        if not isinstance(regression, bool):
            raise ValueError(f"regression must be True or False; got {regression!r}")
        kind = others.setdefault("kind", "regression" if regression else "classification")
        if regression != (kind == "regression"):
            raise ValueError(f"kind {kind!r} and regression {regression} contradict each other; set only kind")
        return others

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; `regression` changes the kind, and another kind has other metrics."""
        if isinstance(changes.get("regression"), bool):
            changes.setdefault("kind", "regression" if changes["regression"] else "classification")
        if changes.get("kind", self.kind) != self.kind:
            changes.setdefault("metrics", _default_metrics(changes["kind"]))
        return super().replace(**changes)

    @pydantic.computed_field  # type: ignore[prop-decorator] # mypy does not support decorated properties
    @property
    def regression(self) -> bool:
        """The label is a number and there are no classes."""
        return self.kind == "regression"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.text_columns) not in (1, 2):
            raise ValueError(
                f"text_columns must name one column, or two for pairs of sentences; got {self.text_columns}"
            )
        columns = (*self.text_columns, self.label_column)
        if not all(columns):
            raise ValueError("text_columns and label_column must not contain an empty name; give the columns' names")
        if len(set(columns)) != len(columns):
            raise ValueError(f"text_columns and label_column must name different columns; got {', '.join(columns)}")
        if self.regression and self.labels:
            raise ValueError(
                f"a regression task has no classes; remove labels {self.labels}, or set kind='classification'"
            )
        if len(self.labels) == 1 or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels must name two or more different classes, or none; got {self.labels}")
        if self.positive_label is not None:
            self._check_positive_label(self.positive_label)
        if not self.dev or len({split.name for split in self.dev}) != len(self.dev):
            raise ValueError("dev must contain at least one split, and their names must differ")
        self._check_metrics()
        return self

    def _check_positive_label(self, label: str) -> None:
        if self.regression:
            raise ValueError("a regression task has no classes; leave positive_label out")
        if self.labels and label not in self.labels:
            raise ValueError(
                f"positive_label must be one of the labels; {nearest(label, self.labels)}got {label!r}; allowed: "
                f"{', '.join(self.labels)}"
            )

    def _check_metrics(self) -> None:
        allowed = METRICS[self.kind]
        if not self.metrics or not set(self.metrics) <= set(allowed):
            raise ValueError(
                f"metrics of a {self.kind} task are one or more of {', '.join(allowed)}; got {self.metrics}"
            )
        if self.metrics[0] == "mean_absolute_error":
            raise ValueError(
                "the first metric chooses the best model, so larger must be better; put another metric first"
            )

    def outputs(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The names of a model's outputs: the classes, or the one number of a regression."""
        return (self.label_column,) if self.kind == "regression" else labels

    def positive_class(self, labels: Sequence[str]) -> str:
        """The class that `f1` is of, among all classes; empty without that metric. Older versions took the second."""
        if "f1" not in self.metrics or len(labels) != 2:
            return ""
        return labels[1] if self.positive_label is None else self.positive_label.strip()

    @property
    def main_metric(self) -> str:
        """The metric that models are compared by; larger is better."""
        return self.metrics[0]


METRICS: Mapping[Kind, tuple[Metric, ...]] = {
    "classification": ("accuracy", "f1", "macro_f1", "weighted_f1", "matthews"),
    "regression": ("pearson", "spearman", "mean_absolute_error"),
}


def _default_metrics(kind: object) -> tuple[Metric, ...]:
    """Those of a task that names none."""
    return METRICS["regression"] if kind == "regression" else ("accuracy",)


_ENTAILMENT = ("entailment", "not_entailment")
_MNLI_DEV = (
    DevSplit(name="dev_matched", hub="validation_matched", glue_file="dev_matched.tsv"),
    DevSplit(name="dev_mismatched", hub="validation_mismatched", glue_file="dev_mismatched.tsv"),
)

# Columns and labels: the hub's nyu-mll/glue and the headers of the TSV files from gluebenchmark.com.
# Metrics: the GLUE paper (Wang et al., 2019), table 1.
_ALL = (
    Task(
        name="cola",
        text_columns=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews",),
        hub="nyu-mll/glue:cola",
        glue=GlueLayout(
            text_columns=("sentence",), label_column="label", columns=("source", "label", "star", "sentence")
        ),
    ),
    Task(
        name="mnli",
        text_columns=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        hub="nyu-mll/glue:mnli",
        dev=_MNLI_DEV,
        glue=GlueLayout(text_columns=("sentence1", "sentence2"), label_column="gold_label"),
    ),
    Task(
        name="mrpc",
        text_columns=("sentence1", "sentence2"),
        labels=("not_equivalent", "equivalent"),
        positive_label="equivalent",
        metrics=("accuracy", "f1"),
        hub="nyu-mll/glue:mrpc",
        glue=GlueLayout(text_columns=("#1 String", "#2 String"), label_column="Quality"),
    ),
    Task(
        name="qnli",
        text_columns=("question", "sentence"),
        labels=_ENTAILMENT,
        hub="nyu-mll/glue:qnli",
        glue=GlueLayout(text_columns=("question", "sentence"), label_column="label"),
    ),
    Task(
        name="qqp",
        text_columns=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        positive_label="duplicate",
        metrics=("accuracy", "f1"),
        hub="nyu-mll/glue:qqp",
        glue=GlueLayout(text_columns=("question1", "question2"), label_column="is_duplicate"),
    ),
    Task(
        name="rte",
        text_columns=("sentence1", "sentence2"),
        labels=_ENTAILMENT,
        hub="nyu-mll/glue:rte",
        glue=GlueLayout(text_columns=("sentence1", "sentence2"), label_column="label"),
    ),
    Task(
        name="sst2",
        text_columns=("sentence",),
        labels=("negative", "positive"),
        hub="nyu-mll/glue:sst2",
        glue=GlueLayout(text_columns=("sentence",), label_column="label"),
    ),
    Task(
        name="stsb",
        text_columns=("sentence1", "sentence2"),
        kind="regression",
        standardise=False,  # the paper learns the scores, from 0 to 5, as they are
        metrics=("pearson", "spearman"),
        hub="nyu-mll/glue:stsb",
        glue=GlueLayout(text_columns=("sentence1", "sentence2"), label_column="score"),
    ),
    Task(
        name="wnli",
        text_columns=("sentence1", "sentence2"),
        labels=("not_entailment", "entailment"),
        hub="nyu-mll/glue:wnli",
        glue=GlueLayout(text_columns=("sentence1", "sentence2"), label_column="label"),
    ),
    Task(
        name="movie_reviews",
        text_columns=("text",),
        labels=("negative", "positive"),
        sample="movie_reviews",
    ),
    # The same sentences, split as in the run of the authors' code with which our results are compared.
    Task(
        name="movie_reviews_reference",
        text_columns=("text",),
        labels=("negative", "positive"),
        sample="movie_reviews_reference",
    ),
    Task(
        name="movie_ratings",
        text_columns=("text",),
        label_column="rating",
        kind="regression",
        metrics=("pearson", "spearman", "mean_absolute_error"),
        sample="movie_ratings",
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: there is no such task; the message lists all tasks.
    """
    if name not in TASKS:
        raise ConfigError(f"no task is called {name!r}; {nearest(name, TASKS)}allowed: {', '.join(TASKS)}")
    return TASKS[name]
