"""Choosing by a budget, against what comes out of trying everything."""

import itertools

import numpy as np
import pytest

from dynabert_jax.choose.choose import (
    Candidate,
    ChoiceError,
    Cost,
    Limits,
    Miss,
    candidates,
    choose,
    judge,
    pareto_front,
    parse_size,
)
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.cost import size
from tiny_rows import row

COSTS: tuple[Cost, ...] = ("latency_ms", "parameters", "flops")


def some(count: int, seed: int, values: int) -> list[Candidate]:
    """Of few different values, so that many of them are equal in one thing or another."""
    rng = np.random.default_rng(seed)
    return [
        Candidate(f"s{i}", *(float(score) / values, int(parameters), int(flops), float(latency)))
        for i, (score, parameters, flops, latency) in enumerate(rng.integers(1, values + 1, (count, 4)))
    ]


def dominates(one: Candidate, other: Candidate, cost: Cost) -> bool:
    as_good = one.score >= other.score and one.cost(cost) <= other.cost(cost)
    return as_good and (one.score > other.score or one.cost(cost) < other.cost(cost))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("values", [3, 1000])
@pytest.mark.parametrize("cost", COSTS)
def test_the_front_is_what_nothing_dominates(seed: int, values: int, cost: Cost) -> None:
    everything = some(40, seed, values)
    front = pareto_front(everything, cost)
    best = [one for one in everything if not any(dominates(other, one, cost) for other in everything)]
    points = [(one.cost(cost), one.score) for one in front]
    assert set(front) <= set(best)
    assert points == sorted({(one.cost(cost), one.score) for one in best})  # of equals one


def test_the_front_of_nothing_is_empty() -> None:
    assert pareto_front([], "flops") == ()


@pytest.mark.parametrize("seed", range(30))
def test_the_best_that_fits_is_what_trying_all_of_them_gives(seed: int) -> None:
    everything, rng = some(40, seed, 12), np.random.default_rng(seed)
    ceilings = {f"max_{cost}": float(rng.integers(1, 12)) for cost in COSTS if rng.random() < 0.6}
    limits = Limits(**ceilings, min_score=50.0 if rng.random() < 0.5 else None)
    choice = choose(everything, limits)
    fitting = [
        one for one in everything
        if all(getattr(one, name.removeprefix("max_")) <= limit for name, limit in ceilings.items())
        and (limits.min_score is None or 100 * one.score >= limits.min_score)
    ]  # fmt: skip
    if not fitting:
        assert choice.best is None
        return
    assert choice.best in fitting
    if limits.min_score is not None and not ceilings:
        assert choice.best.flops == min(one.flops for one in fitting)
        peers = [one for one in fitting if one.flops == choice.best.flops]
        assert choice.best.score == max(one.score for one in peers)
    else:
        assert choice.best.score == max(one.score for one in fitting)
        peers = [one for one in fitting if one.score == choice.best.score]
        assert choice.best.cost(choice.cost) == min(one.cost(choice.cost) for one in peers)
    if len(ceilings) == 1:
        assert any(one.score == choice.best.score for one in choice.front)


LARGE = Candidate("large", 0.9, 400, 4000, 8.0)
SMALL = Candidate("small", 0.8, 200, 1000, 3.0)
SHALLOW = Candidate("shallow", 0.8, 100, 2000, 2.0)
ALL = (LARGE, SMALL, SHALLOW)


@pytest.mark.parametrize(
    ("limits", "cost", "best"),
    [
        (Limits(), None, LARGE),
        (Limits(max_latency_ms=8.0), None, LARGE),
        (Limits(max_latency_ms=7.9), None, SHALLOW),
        (Limits(max_flops=3999.0), None, SMALL),
        (Limits(max_parameters=399.0), None, SHALLOW),
        (Limits(max_parameters=399.0), "flops", SMALL),
        (Limits(min_score=80.0), None, SMALL),
        (Limits(min_score=80.0), "latency_ms", SHALLOW),
        (Limits(min_score=85.0), None, LARGE),
        (Limits(min_score=80.0, max_latency_ms=100.0), None, LARGE),
    ],
)
def test_of_equals_the_cheaper_and_for_a_score_the_cheapest(limits: Limits, cost: Cost | None, best: Candidate) -> None:
    for order in itertools.permutations(ALL):
        assert choose(order, limits, cost).best == best


def test_the_front_is_drawn_by_the_first_cost_that_is_limited() -> None:
    assert choose(ALL, Limits(max_parameters=1e9, max_flops=1e9)).cost == "parameters"
    assert choose(ALL, Limits(min_score=10.0)).cost == "flops"
    assert choose(ALL, Limits(max_flops=1e9), "latency_ms").front == (SHALLOW, LARGE)


def test_where_nothing_fits_the_nearest_comes_first_with_its_misses() -> None:
    choice = choose(ALL, Limits(max_latency_ms=1.0, max_flops=1000.0))
    assert choice.best is None
    assert [one.candidate for one in choice.judged] == [SHALLOW, SMALL, LARGE]
    shallow = choice.judged[0]
    assert shallow.misses == (Miss("latency_ms", 2.0, 1.0), Miss("flops", 2000, 1000.0))
    assert [miss.part for miss in shallow.misses] == [1.0, 1.0]
    assert shallow.distance == 1.0
    assert choice.judged[1].misses == (Miss("latency_ms", 3.0, 1.0),)


def test_a_score_is_missed_by_the_part_that_it_lacks() -> None:
    (miss,) = judge(SMALL, Limits(min_score=100.0)).misses
    assert miss.part == pytest.approx(0.2)
    (miss,) = judge(Candidate("worse than chance", -0.1, 1, 1), Limits(min_score=0.0)).misses
    assert miss.part == pytest.approx(0.1)
    assert judge(SMALL, Limits(min_score=80.0)).distance == 0.0


def test_scores_and_latencies_stand_side_by_side() -> None:
    rows = [row(1.0, 1.0, 0.9), row(0.5, 1.0, 0.8)]
    assert candidates(rows) == (
        Candidate("w1_d1", 0.9, 22_713_986, 1_449_000_000),
        Candidate("w0.5_d1", 0.8, 22_713_986, 1_449_000_000),
    )
    assert candidates(rows, {"w0.5_d1": 2.0, "other": 1.0}) == (
        Candidate("w0.5_d1", 0.8, 22_713_986, 1_449_000_000, 2.0),
    )
    assert candidates(rows, {}) == ()


def test_a_cost_that_is_not_known_is_no_cost() -> None:
    with pytest.raises(ChoiceError, match="w1_d1 has no latency_ms"):
        choose(candidates([row(1.0, 1.0, 0.9)]), Limits(max_latency_ms=1.0))


@pytest.mark.parametrize("value", [0.0, -5.0, 1.01, 80.0, 100.0])
def test_scores_are_times_100(value: float) -> None:
    assert Limits(min_score=value).least_score() == value / 100


@pytest.mark.parametrize(("value", "meant"), [(0.8, "80"), (1.0, "100"), (0.005, "0.5")])
def test_a_score_that_looks_like_a_fraction_is_refused(value: float, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"min_score = {value}: scores are x 100; did you mean {meant}\\?"):
        Limits(min_score=value)


def test_a_loss_that_looks_like_a_fraction_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_loss = 0\.01: losses are of scores x 100; did you mean 1\?"):
        Limits(max_loss=0.01)
    for value in (0.0, 0.1, 0.5, 1.0, 20.0):
        assert Limits(max_loss=value).max_loss == value


def grid_of(examples: int) -> list[Candidate]:
    """One candidate for every number of right answers, the cheaper the worse."""
    return [Candidate(f"right{right}", right / examples, right + 1, right + 1) for right in range(examples + 1)]


@pytest.mark.parametrize("examples", [7, 100, 1004])
def test_a_loss_counts_from_the_teachers_score(examples: int) -> None:
    """In whole numbers of right answers, where there is no rounding; the cheapest is the worst that is allowed."""
    sizes = grid_of(examples)
    for right in range(0, examples + 1, max(1, examples // 50)):
        for lost in (0, 1, 3):
            if lost <= right:
                limits = Limits(max_loss=100 * lost / examples) if lost * 1000 >= examples or not lost else Limits()
                if limits.max_loss is None:
                    continue
                choice = choose(sizes, limits, teacher=right / examples)
                assert choice.best is not None
                assert choice.best.sub == f"right{right - lost}"


def test_a_loss_and_a_score_both_hold() -> None:
    both = Limits(max_loss=5.0, min_score=82.0)
    assert both.least_score(0.9) == pytest.approx(0.85)
    assert both.least_score(0.86) == pytest.approx(0.82)
    assert Limits(max_loss=5.0).least_score(-0.02) == pytest.approx(-0.07)
    assert Limits().least_score(0.9) is None


def test_a_loss_without_a_teachers_score_is_refused() -> None:
    with pytest.raises(ChoiceError, match="max_loss needs the teacher's score"):
        choose(ALL, Limits(max_loss=1.0))


def test_a_score_as_high_as_the_limit_is_enough_however_it_was_rounded() -> None:
    for right in range(1005):
        shown = 100 * right / 1004
        if shown > 1:
            assert judge(Candidate("a", right / 1004, 1, 1), Limits(min_score=shown)).misses == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("30M", 30e6), ("5G", 5e9), ("1.5B", 1.5e9), ("1.5b", 1.5e9), (" 7k ", 7000.0), ("2T", 2e12), ("30000000", 3e7),
     ("0.5K", 500.0)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, value: float) -> None:
    assert parse_size(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "M", "30X", "30MB", "-3M", "0", "0M", "1e6", "3,000", "1.5.2", "nan", "٣M"])
def test_what_is_no_size_is_reported(text: str) -> None:
    with pytest.raises(ChoiceError, match="is not a size; write a number above 0, optionally followed by K"):
        parse_size(text)


@pytest.mark.parametrize("value", [1, 999, 1000, 123_400, 22_710_000, 5e9, 1.5e12])
def test_a_size_is_written_as_it_is_read(value: float) -> None:
    assert parse_size(size(value)) == pytest.approx(value)
