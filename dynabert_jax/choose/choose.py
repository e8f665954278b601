"""Chooses a sub-network by a budget: candidates and limits -> the best that fits, and the front around it. No jax."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

import pydantic

from dynabert_jax.config.checked import Checked, Positive
from dynabert_jax.cost import SUFFIXES
from dynabert_jax.errors import UserError

Cost = Literal["latency_ms", "parameters", "flops"]
Thing = TypeVar("Thing")


class ChoiceError(UserError, ValueError):
    """A budget that cannot be read, or that nothing fits; the message says what there is and what to do."""


class Scored(Protocol):
    """What a table of scores tells of a sub-network; `evaluate.Row` is one."""

    @property
    def sub(self) -> str: ...

    @property
    def score(self) -> float: ...

    @property
    def parameters(self) -> int: ...

    @property
    def flops(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A sub-network's score, as a fraction, and its costs; the latency is None where none was asked for."""

    sub: str
    score: float
    parameters: int
    flops: int
    latency_ms: float | None = None

    def cost(self, cost: Cost) -> float:
        value: float | None = getattr(self, cost)
        if value is None:
            raise ChoiceError(f"{self.sub} has no {cost}; give every candidate one, or choose by another cost")
        return value


def _fraction(score: float) -> float:
    if score > 1:
        raise ValueError(f"scores are fractions; write {score / 100:g} for {score:g}")
    return score


class Limits(Checked):
    """What a sub-network must keep to; None: no limit. Scores are fractions: 0.8, not 80."""

    max_latency_ms: Positive | None = None
    max_parameters: Positive | None = None
    max_flops: Positive | None = None
    min_score: Annotated[float, pydantic.Field(allow_inf_nan=False), pydantic.AfterValidator(_fraction)] | None = None

    @property
    def ceilings(self) -> dict[Cost, float]:
        """The costs that are limited."""
        limits: dict[Cost, float | None] = {
            "latency_ms": self.max_latency_ms, "parameters": self.max_parameters, "flops": self.max_flops
        }  # fmt: skip
        return {cost: limit for cost, limit in limits.items() if limit is not None}


@dataclasses.dataclass(frozen=True)
class Miss:
    """A limit that a candidate breaks.

    Attributes:
        what: a cost, or `score`.
        value, limit: what it has and what was allowed.
        part: by which part of the limit it misses; 0.2 is 20 % too much, or too little.
    """

    what: Cost | Literal["score"]
    value: float
    limit: float

    @property
    def part(self) -> float:
        return abs(self.value - self.limit) / (abs(self.limit) or 1.0)


@dataclasses.dataclass(frozen=True)
class Judged:
    """A candidate and the limits that it breaks."""

    candidate: Candidate
    misses: tuple[Miss, ...]

    @property
    def distance(self) -> float:
        """From fitting: its worst miss."""
        return max((miss.part for miss in self.misses), default=0.0)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a budget leads to.

    Attributes:
        best: the best that fits all limits; None where nothing does.
        cost: what the front is drawn by.
        front: the Pareto front of all candidates, cheapest first: more score costs more.
        judged: all candidates, the nearest to fitting first.
    """

    best: Candidate | None
    cost: Cost
    front: tuple[Candidate, ...]
    judged: tuple[Judged, ...]


def candidates(rows: Iterable[Scored], latencies_ms: Mapping[str, float] | None = None) -> tuple[Candidate, ...]:
    """Scores and costs side by side; with latencies, by the sub-network's name, only those that have one."""
    return tuple(
        Candidate(
            row.sub, row.score, row.parameters, row.flops, None if latencies_ms is None else latencies_ms[row.sub]
        )
        for row in rows
        if latencies_ms is None or row.sub in latencies_ms
    )


def choose(candidates: Sequence[Candidate], limits: Limits, cost: Cost | None = None) -> Choice:
    """The best candidate that keeps to all limits.

    The best is the one of the highest score, and of equals the cheapest. Where the score alone is limited, it is the
    cheapest, and of equals the one of the highest score.

    Args:
        cost: what cheap means; by default the first cost that is limited, else FLOPs.
    """
    costs: list[Cost] = [*limits.ceilings, "flops"]
    by = cost or costs[0]
    judged = sorted((judge(one, limits) for one in candidates), key=lambda one: (one.distance, one.candidate.cost(by)))
    fitting = [one.candidate for one in judged if not one.misses]
    cheap_first = limits.min_score is not None and not limits.ceilings

    def order(one: Candidate) -> tuple[float, ...]:
        first, second = -one.score, one.cost(by)
        return (*((second, first) if cheap_first else (first, second)), one.flops, one.parameters)

    return Choice(min(fitting, key=order, default=None), by, pareto_front(candidates, by), tuple(judged))


def judge(candidate: Candidate, limits: Limits) -> Judged:
    """The limits that the candidate breaks."""
    misses = [
        Miss(cost, candidate.cost(cost), limit)
        for cost, limit in limits.ceilings.items()
        if candidate.cost(cost) > limit
    ]
    if limits.min_score is not None and candidate.score < limits.min_score:
        misses.append(Miss("score", candidate.score, limits.min_score))
    return Judged(candidate, tuple(misses))


def pareto_front(candidates: Iterable[Candidate], cost: Cost) -> tuple[Candidate, ...]:
    """Those that no other matches in score and cost and beats in one of them, cheapest first; of equals the first."""
    return front_of(candidates, cost=lambda one: one.cost(cost), score=lambda one: one.score)


def front_of(
    things: Iterable[Thing], cost: Callable[[Thing], float], score: Callable[[Thing], float]
) -> tuple[Thing, ...]:
    """The Pareto front: walked from the cheapest to the dearest, each has to score more than all before it."""
    front: list[Thing] = []
    for one in sorted(things, key=lambda one: (cost(one), -score(one))):
        if not front or score(one) > score(front[-1]):
            front.append(one)
    return tuple(front)


def parse_size(text: str) -> float:
    """A count as people write it: `30M`, `5G`, `1.5B`; K, M, G or B (both 10^9) and T stand for powers of 1000.

    Raises:
        ChoiceError: it is no such number, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGBT]?)", text.strip().upper(), re.ASCII)
    value = float(match[1]) * SUFFIXES[match[2]] if match else 0.0
    if not value:
        raise ChoiceError(
            f"{text!r} is no size: write a number above 0, with K, M, G, B or T behind it for thousands, millions, "
            f"billions (G and B) or trillions, such as 30M or 1.5B"
        )
    return value
