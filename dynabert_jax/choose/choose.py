"""Chooses a sub-network by a budget: candidates and limits -> the best that fits, and the Pareto front. No jax."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

import pydantic

from dynabert_jax.config.checked import Checked, NonNegative, Positive
from dynabert_jax.cost import SUFFIXES
from dynabert_jax.errors import UserError

Cost = Literal["latency_ms", "parameters", "flops"]
Thing = TypeVar("Thing")

SMALLEST_LOSS = 0.1  # points; a smaller one is probably a fraction: 0.01 for 1
ROUNDING = 1e-9  # of the difference of two scores; an example more or less changes a score by far more


class ChoiceError(UserError, ValueError):
    """A budget that cannot be read, or that no candidate fits; the message says what is available and what to do."""


class Scored(Protocol):
    """A sub-network's entry in a table of scores, such as `evaluate.Row`."""

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
    """A sub-network's score, as a fraction, and its costs. The latency is None if it was not requested."""

    sub: str
    score: float
    parameters: int
    flops: int
    latency_ms: float | None = None

    def cost(self, cost: Cost) -> float:
        value: float | None = getattr(self, cost)
        if value is None:
            raise ChoiceError(f"{self.sub} has no {cost}; set it for every candidate, or choose by another cost")
        return value


def _score(points: float) -> float:
    if 0 < points <= 1:
        raise ValueError(f"scores are x 100; did you mean {100 * points:g}?")
    return points


def _loss(points: float) -> float:
    if 0 < points < SMALLEST_LOSS:
        raise ValueError(f"losses are of scores x 100; did you mean {100 * points:g}?")
    return points


class Limits(Checked):
    """Limits on a sub-network; None: no limit. Scores are x 100: 80, not 0.8.

    Attributes:
        min_score: the least score. A value above 0 and up to 1 is refused, because it is probably a fraction.
        max_loss: the most that the score may be below the teacher's. A value above 0 and below 0.1 is refused likewise.
    """

    max_latency_ms: Positive | None = None
    max_parameters: Positive | None = None
    max_flops: Positive | None = None
    min_score: Annotated[float, pydantic.Field(allow_inf_nan=False), pydantic.AfterValidator(_score)] | None = None
    max_loss: Annotated[NonNegative, pydantic.AfterValidator(_loss)] | None = None

    @property
    def ceilings(self) -> dict[Cost, float]:
        """The costs that are limited."""
        limits: dict[Cost, float | None] = {
            "latency_ms": self.max_latency_ms, "parameters": self.max_parameters, "flops": self.max_flops
        }  # fmt: skip
        return {cost: limit for cost, limit in limits.items() if limit is not None}

    def least_score(self, teacher: float | None = None) -> float | None:
        """The score, as a fraction, that both limits on scores allow; None: there is no such limit.

        Args:
            teacher: the teacher's score, as a fraction.

        Raises:
            ChoiceError: `max_loss` is set, and there is no teacher's score.
        """
        if self.max_loss is not None and teacher is None:
            raise ChoiceError("max_loss needs the teacher's score; give it, or set min_score instead")
        given = [] if self.min_score is None else [self.min_score / 100]
        given += [] if self.max_loss is None or teacher is None else [teacher - self.max_loss / 100]
        return max(given, default=None)


@dataclasses.dataclass(frozen=True)
class Miss:
    """A limit that a candidate breaks.

    Attributes:
        what: a cost, or `score`.
        value, limit: the candidate's value and the limit; scores are fractions.
        part: by what fraction of the limit it misses; 0.2 is 20 % too much, or too little.
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
        """How far it is from fitting: its worst miss."""
        return max((miss.part for miss in self.misses), default=0.0)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The result of a budget.

    Attributes:
        best: the best candidate within all limits; None if there is none.
        cost: the cost of the Pareto front.
        front: the Pareto front of all candidates, cheapest first.
        judged: all candidates, nearest to fitting first.
    """

    best: Candidate | None
    cost: Cost
    front: tuple[Candidate, ...]
    judged: tuple[Judged, ...]


def candidates(rows: Iterable[Scored], latencies_ms: Mapping[str, float] | None = None) -> tuple[Candidate, ...]:
    """Candidates from rows of scores. With latencies, given by sub-network name, only those that have one."""
    return tuple(
        Candidate(
            row.sub, row.score, row.parameters, row.flops, None if latencies_ms is None else latencies_ms[row.sub]
        )
        for row in rows
        if latencies_ms is None or row.sub in latencies_ms
    )


def choose(
    candidates: Sequence[Candidate], limits: Limits, cost: Cost | None = None, teacher: float | None = None
) -> Choice:
    """The best candidate within all limits.

    The best candidate has the highest score; ties go to the cheapest. If only the score is limited, it is the cheapest
    one; ties go to the highest score.

    Args:
        cost: the cost to compare by; by default the first limited cost, else FLOPs.
        teacher: the teacher's score, as a fraction, which `max_loss` needs.

    Raises:
        ChoiceError: `max_loss` is set, and there is no teacher's score.
    """
    costs: list[Cost] = [*limits.ceilings, "flops"]
    by = cost or costs[0]
    judged = sorted(
        (judge(one, limits, teacher) for one in candidates), key=lambda one: (one.distance, one.candidate.cost(by))
    )
    fitting = [one.candidate for one in judged if not one.misses]
    cheap_first = limits.least_score(teacher) is not None and not limits.ceilings

    def order(one: Candidate) -> tuple[float, ...]:
        first, second = -one.score, one.cost(by)
        return (*((second, first) if cheap_first else (first, second)), one.flops, one.parameters)

    return Choice(min(fitting, key=order, default=None), by, pareto_front(candidates, by), tuple(judged))


def judge(candidate: Candidate, limits: Limits, teacher: float | None = None) -> Judged:
    """The limits that the candidate breaks; `teacher` is as in `choose`."""
    misses = [
        Miss(cost, candidate.cost(cost), limit)
        for cost, limit in limits.ceilings.items()
        if candidate.cost(cost) > limit
    ]
    least = limits.least_score(teacher)
    if least is not None and candidate.score < least - ROUNDING:
        misses.append(Miss("score", candidate.score, least))
    return Judged(candidate, tuple(misses))


def pareto_front(candidates: Iterable[Candidate], cost: Cost) -> tuple[Candidate, ...]:
    """The candidates to which no other is equal or better in both score and cost, cheapest first; ties keep one."""
    return front_of(candidates, cost=lambda one: one.cost(cost), score=lambda one: one.score)


def front_of(
    things: Iterable[Thing], cost: Callable[[Thing], float], score: Callable[[Thing], float]
) -> tuple[Thing, ...]:
    """The Pareto front, cheapest first: each has a higher score than all cheaper ones."""
    front: list[Thing] = []
    for one in sorted(things, key=lambda one: (cost(one), -score(one))):
        if not front or score(one) > score(front[-1]):
            front.append(one)
    return tuple(front)


def parse_size(text: str) -> float:
    """Parses a count such as `30M`, `5G` or `1.5B`. The suffixes K, M, G or B (both 10^9) and T are powers of 1000.

    Raises:
        ChoiceError: the text is not such a number, or is zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGBT]?)", text.strip().upper(), re.ASCII)
    value = float(match[1]) * SUFFIXES[match[2]] if match else 0.0
    if not value:
        raise ChoiceError(
            f"{text!r} is not a size; write a number above 0, optionally followed by K (thousands), M (millions), G or "
            f"B (billions) or T (trillions), such as 30M or 1.5B"
        )
    return value
