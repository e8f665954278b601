"""The table of results: every score in its cell, as people and Markdown read it."""

import pytest

from dynabert_jax.evaluate.rows import Majority, Teacher, points, shown
from dynabert_jax.evaluate.table import escaped, markdown, table
from tiny_rows import row

GRID = [row(1.0, 1.0, 0.81234), row(0.25, 1.0, 0.79), row(1.0, 0.5, 0.8), row(0.25, 0.5, 0.75512)]

EXPECTED = """\
dev: accuracy x 100, 1,004 examples

|           | width 1 | width 0.25 |
| --------- | ------- | ---------- |
| depth 1   | 81.23   | 79.00      |
| depth 0.5 | 80.00   | 75.51      |

mean: 78.94

| sub-network | parameters | FLOPs at 64 tokens |
| ----------- | ---------- | ------------------ |
| w1_d1       | 22.71M     | 1.449G             |
| w0.25_d1    | 22.71M     | 1.449G             |
| w1_d0.5     | 22.71M     | 1.449G             |
| w0.25_d0.5  | 22.71M     | 1.449G             |"""


def test_widths_stand_beside_and_depths_below_each_other() -> None:
    assert table(GRID) == EXPECTED


def test_below_a_grid_are_the_teacher_and_the_most_frequent_class_of_its_split() -> None:
    """A split that the teacher was not scored on has no line of it; warnings end the table, one line each."""
    teacher = Teacher(rows=(row(1.0, 1.0, 0.8795, sub="teacher"),), weights="", data={}, time="")
    most = Majority(split="dev", label="very\ngood", share=0.25, metric="accuracy", scores={"accuracy": 0.25})
    text = table([*GRID, row(1.0, 1.0, 0.5, split="test")], teacher, [most], ["all is\nlost", "or not"])
    below = "mean: 78.94\n\nteacher: 87.95\n\nalways the most frequent class (very good): 25.00\n\ntest: accuracy x 100"
    assert below in text
    assert text.count("teacher:") == text.count("always") == 1
    assert text.endswith("| 1.449G             |\n\nWarning: all is lost\n\nWarning: or not")


def test_an_error_in_the_unit_of_the_labels_is_not_multiplied() -> None:
    assert shown("mean_absolute_error", 12.3456) == "12.35"
    assert shown("mean_absolute_error", 0.03) == "0.03"
    assert shown("pearson", 0.87654) == "87.65"
    assert points("mean_absolute_error", 12.3) == 12.3
    assert points("matthews", -0.5) == -50.0


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 3, 0, 2)])
def test_scores_stand_in_their_cells_whatever_their_order(order: tuple[int, ...]) -> None:
    grid = table([GRID[i] for i in order]).partition("mean")[0]
    assert grid == EXPECTED.partition("mean")[0]


def test_a_size_that_was_not_scored_leaves_its_cell_empty() -> None:
    assert "| depth 0.5 | 80.00   |            |" in table(GRID[:3])


def test_every_split_has_a_grid_and_costs_are_reported_once() -> None:
    text = table([*GRID, row(1.0, 1.0, 0.5, split="test", examples=9)])
    assert text.startswith(EXPECTED.partition("\n\n| sub-network")[0])
    assert "test: accuracy x 100, 9 examples\n\n|         | width 1 |\n" in text
    assert "| depth 1 | 50.00   |\n\nmean: 50.00\n" in text
    assert text.count("FLOPs") == 1
    assert text.count("w1_d1 ") == 1


def test_sub_networks_without_width_and_depth_are_listed_by_name() -> None:
    text = table([row(None, None, 0.5), row(None, None, 0.25, sub="other")])
    assert "| sub-network   | score |" in text
    assert "| l0h2n5_l2h1n7 | 50.00 |" in text
    assert "| other         | 25.00 |" in text


def test_nothing_scored_is_no_table() -> None:
    assert table([]) == ""


def test_what_ends_a_cell_or_a_line_stays_within_its_cell() -> None:
    lines = markdown(["a|b", "c"], [["one\ntwo", "x"], ["1|2", "y  z"]]).splitlines()
    assert lines == [
        r"| a\|b    | c    |",
        r"| ------- | ---- |",
        r"| one two | x    |",
        r"| 1\|2    | y  z |",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name-1.5", "plain name-1.5"),
        ("<script>alert(1)</script>", r"\<script\>alert(1)\</script\>"),
        ("![x](http://y)", r"!\[x\](http\://y)"),
        ("a\n\n# b", r"a \# b"),
        ("not_entailment", r"not\_entailment"),
        ("`code` *bold* &lt; \\", r"\`code\` \*bold\* \&lt; \\"),
    ],
)
def test_text_of_a_users_is_no_mark_up(text: str, shown: str) -> None:
    assert escaped(text) == shown
