"""Values computed by hand from the published formulas; what is tested is which one is taken, of which class."""

import math

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from dynabert_jax.config.tasks import Metric, Task
from dynabert_jax.evaluate.metrics import label_order_warning, majority, score


def classes(*metrics: Metric) -> Task:
    return Task(name="classes", text_columns=("text",), metrics=metrics)


def numbers(*metrics: Metric) -> Task:
    return Task(name="numbers", text_columns=("text",), kind="regression", metrics=metrics)


def logits(answers: list[int], num_labels: int) -> np.ndarray:
    """`[n, C]` whose largest entries stand at the answers and are still negative."""
    return np.eye(num_labels, dtype=np.float32)[answers] - 3.0


def column(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


REFERENCES = np.array([1, 1, 1, 1, 0, 0], np.int32)
ANSWERS = [1, 1, 1, 0, 1, 0]  # 3 true positives, 1 false negative, 1 false positive, 1 true negative


def test_binary_classification() -> None:
    task = classes("accuracy", "f1", "matthews").replace(positive_label="yes")
    scores = score(task, logits(ANSWERS, 2), REFERENCES, ("no", "yes"))
    assert list(scores) == ["accuracy", "f1", "matthews"]
    assert scores["accuracy"] == pytest.approx(4 / 6)
    assert scores["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert scores["matthews"] == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))


@pytest.mark.parametrize(("positive", "number"), [("fraud", 0), ("ok", 1), (" ok", 1), (None, 1)])
def test_f1_is_of_the_class_that_the_task_names(positive: str | None, number: int) -> None:
    """In runs of older versions, which name none, of the second one."""
    task = classes("f1").replace(positive_label=positive)
    theirs = f1_score(REFERENCES, ANSWERS, pos_label=number)
    assert score(task, logits(ANSWERS, 2), REFERENCES, ("fraud", "ok")) == {"f1": pytest.approx(theirs)}
    assert task.positive_class(("fraud", "ok")) == ("fraud", "ok")[number]


@pytest.mark.parametrize("average", ["macro", "weighted"])
@pytest.mark.parametrize("count", [2, 3])
def test_f1_over_classes(average: str, count: int) -> None:
    rng = np.random.default_rng(0)
    answers, references = rng.integers(0, count, 30), rng.permutation([0] * 20 + [count - 1] * 6 + [1] * 4)
    name = f"{average}_f1"
    scores = score(classes(name), logits(answers.tolist(), count), references, "abc"[:count])
    assert scores == {name: pytest.approx(f1_score(references, answers, average=average))}


def test_f1_of_three_classes_in_older_runs_is_the_mean_over_classes() -> None:
    references = np.array([0, 1, 1, 2], np.int32)
    scores = score(classes("f1", "macro_f1"), logits([0, 0, 1, 2], 3), references, ("a", "b", "c"))
    assert scores["f1"] == scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_macro_f1_does_not_depend_on_classes_that_do_not_occur() -> None:
    scores = score(classes("macro_f1"), logits([1, 1, 0, 0], 3), np.array([1, 1, 1, 0], np.int32), ("a", "b", "c"))
    assert scores["macro_f1"] == pytest.approx((2 * 2 / (2 * 2 + 1) + 2 * 1 / (2 * 1 + 1)) / 2)


def test_regression() -> None:
    # Deviations from the means: (-2, 0, 1, 1) and (-1.5, -0.5, 0.5, 1.5).
    predictions, references = column([1.0, 3.0, 4.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    scores = score(numbers("pearson", "spearman", "mean_absolute_error"), predictions, references, ("value",))
    assert scores["pearson"] == pytest.approx(5.0 / math.sqrt(6.0 * 5.0))
    # Ranks 1, 2, 3.5, 3.5 against 1, 2, 3, 4: deviations (-1.5, -0.5, 1, 1).
    assert scores["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5.0))
    assert scores["mean_absolute_error"] == pytest.approx((0 + 1 + 1 + 0) / 4)


def test_a_model_that_answers_all_the_same_scores_nothing() -> None:
    predictions = column([2.1, 2.1, 2.1])
    scores = score(numbers("pearson", "spearman"), predictions, np.array([1.0, 2.0, 3.0], np.float32), ("value",))
    assert scores == {"pearson": 0.0, "spearman": 0.0}


def test_one_class_for_all_scores_nothing() -> None:
    assert score(classes("matthews"), logits([1] * 6, 2), REFERENCES, ("a", "b")) == {"matthews": 0.0}
    assert score(classes("f1"), logits([0] * 6, 2), REFERENCES, ("a", "b")) == {"f1": 0.0}


def test_nearly_constant_predictions_raise_no_warning() -> None:
    predictions = np.array([[1.0], [1.0], [np.nextafter(1.0, 2.0)]])
    scores = score(numbers("pearson"), predictions, np.array([1.0, 2.0, 3.0], np.float32), ("value",))
    assert -1.0 <= scores["pearson"] <= 1.0


@pytest.mark.parametrize(
    ("task", "shape", "count"),
    [
        (classes("accuracy"), (4, 1), 4),
        (classes("accuracy"), (4,), 4),
        (classes("accuracy"), (4, 2), 3),
        (classes("accuracy"), (0, 2), 0),
        (numbers("pearson"), (4, 2), 4),
    ],
)
def test_shapes_that_do_not_fit_are_refused(task: Task, shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(ValueError, match="got \\["):
        score(task, np.zeros(shape, np.float32), np.zeros(count, np.int32), ("a", "b"))


@pytest.mark.parametrize("names", [("no", "yes"), ("yes", "no"), ("a", "b", "c"), ("a", "b", "c", "d")])
def test_the_most_frequent_class_scores_as_in_scikit_learn(names: tuple[str, ...]) -> None:
    """Its DummyClassifier, under every metric; ties go to the first class."""
    rng = np.random.default_rng(len(names))
    binary = {"average": "binary" if len(names) == 2 else "macro", "zero_division": 0.0}
    for trial in range(20):
        references = rng.integers(0, len(names), 30 + trial).astype(np.int32)
        references[: len(names)] = range(len(names))  # DummyClassifier knows only classes that occur
        dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(references), 1)), references)
        answers = dummy.predict(np.zeros((len(references), 1)))
        found = majority(classes("accuracy", "f1", "matthews"), names, "dev", references)
        assert found is not None
        assert found.label == names[answers[0]]
        assert found.share == pytest.approx(np.mean(references == answers[0]))
        assert found.scores == pytest.approx(
            {
                "accuracy": accuracy_score(references, answers),
                "f1": f1_score(references, answers, **binary),
                "matthews": matthews_corrcoef(references, answers),
            }
        )


def test_a_regression_has_no_most_frequent_class() -> None:
    assert majority(numbers("pearson"), (), "dev", np.array([1.0, 2.0], np.float32)) is None


def test_an_accuracy_far_below_chance_names_the_likely_cause() -> None:
    message = label_order_warning(("entailment", "neutral", "contradiction"), 0.05, 9815)
    assert message is not None
    assert "0 entailment, 1 neutral, 2 contradiction" in message
    assert "id2label" in message


@pytest.mark.parametrize(("accuracy", "count"), [(0.17, 9815), (0.9, 9815), (0.05, 99)])
def test_no_warning_without_good_cause(accuracy: float, count: int) -> None:
    assert label_order_warning(("entailment", "neutral", "contradiction"), accuracy, count) is None
