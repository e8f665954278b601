"""The choice for a finished run: its scores and latency cards -> the sub-network that fits a budget, and its report."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynabert_jax.choose.choose import Candidate, Choice, ChoiceError, Cost, Judged, Limits, Miss, candidates, choose
from dynabert_jax.cost import size
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.evaluate.table import markdown
from dynabert_jax.plan import plan_run
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.latency_card import LatencyError, Measurement, Where, latencies, merge, read_card
from dynabert_jax.system.files import expanded

log = logging.getLogger(__name__)

NEAREST = 12  # how many are listed if nothing fits; JSON has all
MANY_TIMES = 10  # above this factor, misses are shown as a factor instead of per cent
FLOAT_SCORES = "Scores are the float model's; `dynabert export --format onnx --int8` measures what 8 bits cost."
OF_SCORES = ("min_score", "max_loss")  # limits in points
NAMES: Mapping[str, str] = {"latency_ms": "latency", "parameters": "parameters", "flops": "FLOPs", "score": "score"}


@dataclasses.dataclass(frozen=True)
class Question:
    """A budget for a run.

    Attributes:
        limits: the budget.
        where: which latencies to use, if they are needed.
        split: the split whose scores are used; None: the run's first dev split.
        cards: latency cards in addition to the run's own.
        cost: the cost of the Pareto front; None: the first limited cost, else FLOPs.
    """

    limits: Limits
    where: Where
    split: str | None = None
    cards: Sequence[str | Path] = ()
    cost: Cost | None = None

    @property
    def by_latency(self) -> bool:
        return self.limits.max_latency_ms is not None or self.cost == "latency_ms"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A choice, and the numbers that it is based on.

    Attributes:
        limits: the budget.
        rows: the scores, of one split.
        measured: the latencies, of one device, backend, dtype and shape; empty if none were needed.
        teacher: the teacher's scores on that split; None if there are none.
    """

    choice: Choice
    limits: Limits
    rows: tuple[Row, ...]
    measured: tuple[Measurement, ...]
    teacher: Row | None = None

    @property
    def best(self) -> Candidate:
        """The chosen candidate.

        Raises:
            ChoiceError: nothing fits; the message lists the nearest candidates.
        """
        if self.choice.best is None:
            raise ChoiceError(nothing_fits(self))
        return self.choice.best

    def __str__(self) -> str:
        return in_words(self, self.best)

    def to_json(self) -> str:
        return answer_json(self)


def choose_run(path: str | Path, question: Question) -> Answer:
    """The best sub-network of a finished run within the limits, and the Pareto front.

    Raises:
        RunFolderError, ConfigError: the folder holds no finished run.
        LatencyError: latencies are needed, and no card has them.
        ChoiceError: the run has no such split, latency options are given without a latency limit, a loss is limited and
            there is no teacher's score, or nothing fits; the message lists the nearest candidates.
    """
    answer = ask(path, question)
    _ = answer.best
    return answer


def ask(path: str | Path, question: Question) -> Answer:
    """Like `choose_run`, but returns an answer even if nothing fits."""
    check_used(question)
    return answer_for(read_finished(path), question)


def check_used(question: Question) -> None:
    """Raises ChoiceError if latency options are given and no latency is needed."""
    given = [f"--{name}" for name, value in question.where if value is not None]
    given += ["--card"] if question.cards else []
    if given and not question.by_latency:
        raise ChoiceError(
            f"{', '.join(given)}: without a latency limit these options have no effect; add --max-latency-ms or "
            "--by latency_ms, or leave them out"
        )


def answer_for(run: Finished, question: Question) -> Answer:
    """The choice among the run's scored sub-networks and, if latencies are needed, those that a card has measured."""
    rows = rows_of(run, question.split)
    teacher = None if run.teacher is None else run.teacher.on(rows[0].split)
    if question.limits.max_loss is not None and teacher is None:
        raise ChoiceError(no_teacher(run, rows[0].split))
    measured = measured_for(run, question) if question.by_latency else ()
    milliseconds = {row.sub: row.median_ms for row in measured} if question.by_latency else None
    known = candidates(rows, milliseconds)
    missing = sorted({row.sub for row in rows} - {one.sub for one in known})
    if not known:
        raise LatencyError(f"no card has these latencies for {', '.join(missing)}; measure them with `dynabert bench`")
    if missing:
        log.warning("left out, because no card has these latencies for them: %s", ", ".join(missing))
    choice = choose(known, question.limits, question.cost, None if teacher is None else teacher.score)
    return Answer(choice, question.limits, rows, measured, teacher)


def no_teacher(run: Finished, split: str) -> str:
    """Why --max-loss is not possible, and how it would be."""
    if not plan_run(run.shape, run.config).distils:
        return (
            f"--max-loss is relative to the teacher, and nothing in {run.folder.path} learns from one; use --min-score"
        )
    return (
        f"--max-loss needs the teacher's score on {split}, which {run.folder.results_file} lacks. Run `dynabert "
        f"evaluate {run.folder.path}`: it scores the teacher if its weights are still there. Or use --min-score"
    )


def rows_of(run: Finished, split: str | None) -> tuple[Row, ...]:
    """The scores on one split; None is the run's first one, which is a dev split.

    Raises:
        ChoiceError: the run has no such split.
    """
    splits = list(dict.fromkeys(row.split for row in run.rows))
    if split is not None and split not in splits:
        raise ChoiceError(f"{run.folder.path} has no scores on split {split!r}; it has {', '.join(splits)}")
    return tuple(row for row in run.rows if row.split == (split or splits[0]))


def measured_for(run: Finished, question: Question) -> tuple[Measurement, ...]:
    """The wanted latencies, from the run's own card and the given ones.

    Raises:
        LatencyError: there is no card, a card belongs to another model, or no card has the wanted latencies.
    """
    own = run.card_file
    files = [*([own] if own.exists() else []), *question.cards]
    if not files:
        raise LatencyError(
            f"there are no latencies: {own} does not exist. Run `dynabert bench {run.folder.path}` on the target "
            f"device, or name a card that was written there with --card"
        )
    return latencies(merge([read_card(expanded(file), run.fingerprint) for file in files]), question.where)


def in_words(answer: Answer, best: Candidate) -> str:
    """The choice in words, and the Pareto front as a table."""
    costs = ", ".join(shown(cost, best.cost(cost)) for cost in costs_of(answer))
    row = answer.rows[0]
    teacher = "" if answer.teacher is None else f", the teacher {shown('score', answer.teacher.score)}"
    parts = [
        f"{best.sub}: {row.measure} x 100 is {shown('score', best.score)}{teacher} on {row.split} ({row.examples:,} "
        f"examples); {costs}",
        f"{budget(answer)}. {len(answer.choice.judged)} sub-networks compared; FLOPs at {row.length} tokens.",
        *([FLOAT_SCORES] if answer.measured and answer.measured[0].dtype == "int8" else []),
        f"The Pareto front of {row.measure} against {NAMES[answer.choice.cost]}:",
        front_table(answer, best),
    ]
    return "\n\n".join(parts)


def budget(answer: Answer) -> str:
    """The limits, and where the latencies were measured."""
    limits = [f"at most {shown(cost, limit)}" for cost, limit in answer.limits.ceilings.items()]
    if answer.limits.min_score is not None:
        limits.append(f"{answer.rows[0].measure} x 100 of at least {answer.limits.min_score:g}")
    if answer.limits.max_loss is not None and answer.teacher is not None:
        teacher = f"the teacher's {shown('score', answer.teacher.score)}"
        limits.append(f"{answer.rows[0].measure} x 100 at most {answer.limits.max_loss:g} below {teacher}")
    place = ""
    if answer.measured:
        row = answer.measured[0]
        place = f" ({row.device}, {row.backend}, {row.dtype}, batch {row.batch}, {row.length} tokens)"
    return f"Limits: {', '.join(limits) or 'none'}{place}"


def front_table(answer: Answer, best: Candidate) -> str:
    """One line per candidate on the front, and one for the best, which another limit may keep off the front."""
    judged = {one.candidate: one for one in answer.choice.judged}
    costs = costs_of(answer)
    lines = sorted({*answer.choice.front, best}, key=lambda one: one.cost(answer.choice.cost))
    return markdown(
        ["sub-network", f"{answer.rows[0].measure} x 100", *(NAMES[cost] for cost in costs), ""],
        [
            [
                one.sub,
                shown("score", one.score),
                *(in_cell(cost, one.cost(cost)) for cost in costs),
                "chosen" if one == best else "; ".join(map(in_short, judged[one].misses)),
            ]
            for one in lines
        ],
    )


def nothing_fits(answer: Answer) -> str:
    """The nearest candidates, and by how much each misses."""
    judged = answer.choice.judged
    lines = [f"- {one.candidate.sub}: {missed(one)}" for one in judged[:NEAREST]]
    more = f"\n- and {len(judged) - NEAREST} more" if len(judged) > NEAREST else ""
    return f"nothing fits. {budget(answer)}. Nearest first; loosen a limit:\n" + "\n".join(lines) + more


def missed(judged: Judged) -> str:
    """By how much a candidate misses its limits; empty if it fits."""
    return "; ".join(missed_one(miss) for miss in judged.misses)


def missed_one(miss: Miss) -> str:
    score = "score " if miss.what == "score" else ""
    return f"{score}{shown(miss.what, miss.value)}, {distance(miss)} {shown(miss.what, miss.limit)}"


def in_short(miss: Miss) -> str:
    """The same in a table that has the value, too."""
    return f"{NAMES[miss.what]} {distance(miss)}"


def distance(miss: Miss) -> str:
    """For a score the difference. For a cost the excess in per cent, or a factor if it is far beyond the limit."""
    if miss.what == "score":
        below = 100 * (miss.limit - miss.value)
        return f"{below:.2f} below" if below >= 0.005 else f"{below:.1g} below"
    times = miss.value / miss.limit
    return f"{times:,.0f} times" if times > MANY_TIMES else f"{100 * miss.part:.1f} % above"


def shown(what: str, value: float) -> str:
    """A cost, or a score x 100, in a sentence."""
    if what == "latency_ms":
        return in_cell(what, value)
    return f"{100 * value:.2f}" if what == "score" else f"{in_cell(what, value)} {NAMES[what]}"


def in_cell(cost: str, value: float) -> str:
    """A cost in a table; counts have the form that `--max-parameters` takes."""
    return f"{value:.4g} ms" if cost == "latency_ms" else size(value)


def costs_of(answer: Answer) -> tuple[Cost, ...]:
    """The costs that every candidate has."""
    return ("latency_ms", "parameters", "flops") if answer.measured else ("parameters", "flops")


def answer_json(answer: Answer) -> str:
    """The same as JSON. `chosen` is null if nothing fits; `nearest` is sorted by how much each candidate misses.

    All scores are fractions, those of the limits, too.
    """
    row, choice = answer.rows[0], answer.choice
    measured = {"device", "time", "backend", "dtype", "batch", "length"}
    values = {
        "chosen": dataclasses.asdict(choice.best) if choice.best else None,
        "limits": answer.limits.model_dump() | {name: of_one(getattr(answer.limits, name)) for name in OF_SCORES},
        "teacher": None if answer.teacher is None else answer.teacher.score,
        "split": row.split,
        "metric": row.metric,
        "against": row.against,
        "flops_length": row.length,
        "measured": answer.measured[0].model_dump(include=measured) if answer.measured else None,
        "front_by": choice.cost,
        "front": [dataclasses.asdict(one) for one in choice.front],
        "nearest": [] if choice.best else [judged_values(one) for one in choice.judged],
    }
    return json.dumps(values, indent=2)


def of_one(points: float | None) -> float | None:
    """A limit on a score as a fraction."""
    return None if points is None else points / 100


def judged_values(judged: Judged) -> dict[str, Any]:
    misses = [dataclasses.asdict(miss) | {"part": miss.part} for miss in judged.misses]
    return dataclasses.asdict(judged.candidate) | {"misses": misses}
