import pytest

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.tasks import TASKS, Task, task

GLUE = {"cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"}


def test_all_nine_glue_tasks_are_there() -> None:
    assert {name for name, entry in TASKS.items() if entry.glue is not None} == GLUE
    assert all(TASKS[name].hub == f"nyu-mll/glue:{name}" for name in GLUE)


# What the hub's dataset card of nyu-mll/glue gives, ids in order.
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("cola", ("unacceptable", "acceptable")),
        ("mnli", ("entailment", "neutral", "contradiction")),
        ("mrpc", ("not_equivalent", "equivalent")),
        ("qnli", ("entailment", "not_entailment")),
        ("qqp", ("not_duplicate", "duplicate")),
        ("rte", ("entailment", "not_entailment")),
        ("sst2", ("negative", "positive")),
        ("stsb", ()),
        ("wnli", ("not_entailment", "entailment")),
    ],
)
def test_labels_stand_in_the_hubs_order(name: str, labels: tuple[str, ...]) -> None:
    assert task(name).labels == labels


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no task is called 'weather'; allowed: "):
        task("weather")
    with pytest.raises(ConfigError, match="no task is called 'sst-2'; did you mean 'sst2'"):
        task("sst-2")


def test_a_task_is_hashable() -> None:
    assert len({task("mnli"), task("mnli"), task("rte")}) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text_columns": ()}, "one column, or two"),
        ({"text_columns": ("a", "b", "c")}, "one column, or two"),
        ({"text_columns": ("",)}, "empty name"),
        ({"label_column": ""}, "empty name"),
        ({"text_columns": ("a", "a")}, "different columns; got a, a, label"),
        ({"label_column": "text"}, "different columns; got text, text"),
        ({"labels": ("a", "b"), "regression": True, "metrics": ("pearson",)}, "has no classes"),
        ({"labels": ("a",)}, "two or more different"),
        ({"labels": ("a", "a")}, "two or more different"),
        ({"metrics": ()}, "one or more of accuracy"),
        ({"metrics": ("pearson",)}, "classification task are one or more of accuracy"),
        ({"metrics": ("accuracy",), "regression": True}, "regression task are one or more of pearson"),
        ({"metrics": ("mean_absolute_error",), "regression": True}, "larger must be better"),
        ({"metrics": ("acc",)}, "'accuracy', 'f1'"),
        ({"positive_label": "yes", "kind": "regression"}, "has no classes; leave positive_label out"),
        ({"positive_label": "good", "labels": ("bad", "god")}, "did you mean 'god'"),
        ({"dev": ()}, "at least one split"),
        ({"label": "x"}, "did you mean 'labels'"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Task(**{"name": "mine", "text_columns": ("text",), **wrong})


def test_the_first_metric_is_the_main_one() -> None:
    assert task("mrpc").main_metric == "accuracy"
    assert task("stsb").main_metric == "pearson"


def test_a_regression_may_be_named_in_two_ways() -> None:
    one = Task(name="t", text_columns=("text",), regression=True, metrics=("pearson",))
    assert one == Task(name="t", text_columns=("text",), kind="regression", metrics=("pearson",))
    assert one.regression
    assert not task("sst2").regression
    assert task("sst2").replace(regression=True, labels=(), metrics=("pearson",)).kind == "regression"
    assert one.replace(regression=False, metrics=("accuracy",)).kind == "classification"
    assert Task.from_json(one.to_json()) == one


def test_metrics_are_those_of_the_kind_unless_they_are_named() -> None:
    numbers = ("pearson", "spearman", "mean_absolute_error")
    assert Task(name="t", text_columns=("text",)).metrics == ("accuracy",)
    assert Task(name="t", text_columns=("text",), kind="regression").metrics == numbers
    assert Task(name="t", text_columns=("text",), regression=True).metrics == numbers
    assert task("sst2").replace(kind="regression", labels=()).metrics == numbers
    assert task("stsb").replace(kind="classification").metrics == ("accuracy",)
    assert task("stsb").replace(name="other").metrics == ("pearson", "spearman")


def test_the_positive_class_is_the_second_one_that_is_named() -> None:
    """As in GLUE, whose older configurations do not name it."""
    assert task("mrpc").positive_label == "equivalent"
    assert task("qqp").positive_label == "duplicate"
    values = {"name": "t", "text_columns": ("text",), "labels": ("ok", "fraud"), "metrics": ("f1",)}
    assert Task(**values).positive_label == "fraud"
    assert Task(**values, positive_label="ok").positive_label == "ok"
    assert Task(**values | {"labels": ()}).positive_label is None
    assert Task(**values | {"metrics": ("accuracy",)}).positive_label is None


def test_the_paper_learns_scores_as_they_are() -> None:
    assert not task("stsb").standardise
    assert task("movie_ratings").standardise
