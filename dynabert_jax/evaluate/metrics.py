"""Scores of predictions, as fractions, computed with scikit-learn and scipy."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dynabert_jax.config.tasks import Kind, Metric, Task
from dynabert_jax.evaluate.rows import Majority

FEW_EXAMPLES = 100  # with fewer, an accuracy far below chance may itself be chance


def score(task: Task, predictions: np.ndarray, references: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Every metric of the task, the main one first.

    accuracy, f1 (of the task's positive class), macro_f1 and weighted_f1 (the mean over classes, unweighted or weighted
    by their examples), matthews, pearson, spearman and mean_absolute_error. In runs of older versions, f1 of more than
    two classes is macro_f1. A correlation with constant predictions is undefined and is returned as 0, like a
    Matthews correlation; scripts that leave this case to scipy report NaN.

    Args:
        predictions: finite logits `[n, C]`, the largest being the answer; `[n, 1]` for a regression.
        references: class ids `[n]`, or numbers `[n]`.
        labels: the classes' names in the order of their ids; empty for a regression.

    Raises:
        ValueError: the shapes do not fit, or there are no examples.
    """
    outputs = _OUTPUTS[task.kind]
    if not outputs.fit(predictions.shape[1:]) or references.shape != predictions.shape[:1] or not len(references):
        raise ValueError(
            f"task {task.name!r} scores predictions {outputs.wanted} against references [n] with n > 0; got "
            f"{list(predictions.shape)} and {list(references.shape)}"
        )
    # A network that nearly always gives the same answer shows in the scores; warnings would repeat it every time.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: float(_metric(task, name, labels)(references, predictions)) for name in task.metrics}


def majority(task: Task, labels: Sequence[str], split: str, references: np.ndarray) -> Majority | None:
    """The score of always answering the most frequent class, the first of several; None for a regression.

    Args:
        labels: the classes in the order of their ids.
        references: class ids `[n]`.
    """
    if task.kind == "regression":
        return None
    counts = np.bincount(references, minlength=len(labels))  # [C]
    most = int(counts.argmax())
    answers = np.tile(np.eye(len(labels), dtype=np.float32)[most], (len(references), 1))  # [n, C]
    return Majority(
        split=split,
        label=labels[most],
        share=float(counts[most] / len(references)),
        metric=task.main_metric,
        scores=score(task, answers, references, labels),
    )


def label_order_warning(labels: Sequence[str], accuracy: float, count: int) -> str | None:
    """A warning if the accuracy is less than half of what guessing would give, else None."""
    chance = 1 / len(labels)
    if count < FEW_EXAMPLES or accuracy >= chance / 2:
        return None
    return (
        f"accuracy x 100 is {100 * accuracy:.2f} over {count} examples, far below the {100 * chance:.2f} of guessing: "
        "the model's classes are probably in another order than the data's. Compare id2label in the model's "
        f"config.json with the data's order, which is {', '.join(f'{i} {name}' for i, name in enumerate(labels))}; to "
        "change it, set the task's labels"
    )


class _Outputs(NamedTuple):
    """The output of one kind of network for one text: whether a shape fits, and the shape in words."""

    fit: Callable[[tuple[int, ...]], bool]
    wanted: str


_OUTPUTS: Mapping[Kind, _Outputs] = {
    "classification": _Outputs(lambda shape: len(shape) == 1 and shape[0] > 1, "[n, classes]"),
    "regression": _Outputs(lambda shape: shape == (1,), "[n, 1]"),
}


def _classes(predictions: np.ndarray) -> np.ndarray:
    """Logits `[n, C]` to class ids `[n]`."""
    return predictions.argmax(axis=1)


def _numbers(predictions: np.ndarray) -> np.ndarray:
    """Outputs `[n, 1]` to numbers `[n]`."""
    return predictions[:, 0].astype(np.float64)


def _accuracy(references: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return accuracy_score(references, _classes(predictions))


def _f1_of(positive: int) -> Callable[[np.ndarray, np.ndarray], float]:
    def f1(references: np.ndarray, predictions: np.ndarray) -> float:
        from sklearn.metrics import f1_score

        return f1_score(references == positive, _classes(predictions) == positive, zero_division=0.0)

    return f1


def _macro_f1(references: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return f1_score(references, _classes(predictions), average="macro", zero_division=0.0)


def _weighted_f1(references: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    return f1_score(references, _classes(predictions), average="weighted", zero_division=0.0)


def _matthews(references: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(references, _classes(predictions))


def _pearson(references: np.ndarray, predictions: np.ndarray) -> float:
    from scipy.stats import pearsonr

    return 0.0 if _constant(references, predictions) else pearsonr(references, _numbers(predictions)).statistic


def _spearman(references: np.ndarray, predictions: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return 0.0 if _constant(references, predictions) else spearmanr(references, _numbers(predictions)).statistic


def _constant(*values: np.ndarray) -> bool:
    return any(np.ptp(value) == 0 for value in values)


def _mean_absolute_error(references: np.ndarray, predictions: np.ndarray) -> float:
    from sklearn.metrics import mean_absolute_error

    return mean_absolute_error(references, _numbers(predictions))


def _metric(task: Task, name: Metric, labels: Sequence[str]) -> Callable[[np.ndarray, np.ndarray], float]:
    if name == "f1" and len(labels) == 2:
        return _f1_of(labels.index(task.positive_class(labels)))
    return _METRICS[name]


_METRICS: dict[Metric, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": _accuracy,
    "f1": _macro_f1,  # of more than two classes, which only runs of older versions have
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
    "mean_absolute_error": _mean_absolute_error,
}
