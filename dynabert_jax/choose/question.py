"""The choice for a finished run: its scores and latency cards -> the sub-network that fits a budget, told."""

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
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.latency_card import LatencyError, Measurement, Where, latencies, merge, read_card
from dynabert_jax.system.files import expanded

log = logging.getLogger(__name__)

NEAREST = 12  # how many are told where nothing fits; JSON has all
MANY_TIMES = 10  # from which on nobody reads per cent
FLOAT_SCORES = "Scores are the float model's; `dynabert export --format onnx --int8` measures what 8 bits cost."
NAMES: Mapping[str, str] = {"latency_ms": "latency", "parameters": "parameters", "flops": "FLOPs", "score": "score"}


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of a run.

    Attributes:
        limits: the budget.
        where: which latencies are meant, where they matter.
        split: the split whose scores count; None: the run's first dev split.
        cards: latency cards beside the run's own.
        cost: what the Pareto front is drawn by; None: the first cost that is limited, else FLOPs.
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
    """A choice with where its numbers come from.

    Attributes:
        limits: the budget.
        rows: the scores that counted, of one split.
        measured: the latencies that counted, of one place and shape; empty where none were needed.
    """

    choice: Choice
    limits: Limits
    rows: tuple[Row, ...]
    measured: tuple[Measurement, ...]

    @property
    def best(self) -> Candidate:
        """What was chosen.

        Raises:
            ChoiceError: nothing fits; the message says what is nearest.
        """
        if self.choice.best is None:
            raise ChoiceError(nothing_fits(self))
        return self.choice.best

    def __str__(self) -> str:
        return in_words(self, self.best)

    def to_json(self) -> str:
        return answer_json(self)


def choose_run(path: str | Path, question: Question) -> Answer:
    """The best sub-network of a finished run within the limits, and the Pareto front around it.

    Raises:
        RunFolderError, ConfigError: the folder holds no finished run.
        LatencyError: latencies matter, and no card has them.
        ChoiceError: the run has no such split, latencies are described and do not matter, or nothing fits; the message
            says what is nearest.
    """
    answer = ask(path, question)
    _ = answer.best
    return answer


def ask(path: str | Path, question: Question) -> Answer:
    """`choose_run`, also where nothing fits."""
    check_used(question)
    return answer_for(read_finished(path), question)


def check_used(question: Question) -> None:
    """Raises ChoiceError where it is said which latencies are meant, and none matter."""
    given = [f"--{name}" for name, value in question.where if value is not None]
    given += ["--card"] if question.cards else []
    if given and not question.by_latency:
        raise ChoiceError(
            f"{', '.join(given)}: this says which latencies are meant, and nothing asks for latencies; add "
            "--max-latency-ms or --by latency_ms, or leave it out"
        )


def answer_for(run: Finished, question: Question) -> Answer:
    """The choice among the sub-networks that the run has scored and, where latencies matter, a card knows."""
    rows = rows_of(run, question.split)
    measured = measured_for(run, question) if question.by_latency else ()
    milliseconds = {row.sub: row.median_ms for row in measured} if question.by_latency else None
    known = candidates(rows, milliseconds)
    missing = sorted({row.sub for row in rows} - {one.sub for one in known})
    if not known:
        raise LatencyError(f"no card has these latencies of {', '.join(missing)}; run `dynabert bench` for them")
    if missing:
        log.warning("not measured there, and left out: %s", ", ".join(missing))
    return Answer(choose(known, question.limits, question.cost), question.limits, rows, measured)


def rows_of(run: Finished, split: str | None) -> tuple[Row, ...]:
    """The scores on one split; the first one that the run has written is a dev split.

    Raises:
        ChoiceError: the run has no such split.
    """
    splits = list(dict.fromkeys(row.split for row in run.rows))
    if split is not None and split not in splits:
        raise ChoiceError(f"{run.folder.path} has no scores on split {split!r}; it has {', '.join(splits)}")
    return tuple(row for row in run.rows if row.split == (split or splits[0]))


def measured_for(run: Finished, question: Question) -> tuple[Measurement, ...]:
    """The latencies that are meant, from the run's own card and those that are named.

    Raises:
        LatencyError: there is no card, one is of another model, or none has what is meant.
    """
    own = run.card_file
    files = [*([own] if own.exists() else []), *question.cards]
    if not files:
        raise LatencyError(
            f"nothing is known of latencies: there is no {own}. Run `dynabert bench {run.folder.path}` on the device "
            f"that is meant, or name the card that it wrote there with --card"
        )
    return latencies(merge([read_card(expanded(file), run.fingerprint) for file in files]), question.where)


def in_words(answer: Answer, best: Candidate) -> str:
    """The choice in words, and the front around it as a table."""
    costs = ", ".join(shown(cost, best.cost(cost)) for cost in costs_of(answer))
    row = answer.rows[0]
    parts = [
        f"{best.sub}: {row.metric} {best.score:.4f} on {row.split} ({row.examples:,} examples); {costs}",
        f"{budget(answer)}. {len(answer.choice.judged)} sub-networks compared; FLOPs at {row.length} tokens.",
        *([FLOAT_SCORES] if answer.measured and answer.measured[0].dtype == "int8" else []),
        f"The Pareto front of {row.metric} against {NAMES[answer.choice.cost]}:",
        front_table(answer, best),
    ]
    return "\n\n".join(parts)


def budget(answer: Answer) -> str:
    """The limits, and where the latencies are of."""
    limits = [f"at most {shown(cost, limit)}" for cost, limit in answer.limits.ceilings.items()]
    if answer.limits.min_score is not None:
        limits.append(f"{answer.rows[0].metric} of at least {answer.limits.min_score:g}")
    place = ""
    if answer.measured:
        row = answer.measured[0]
        place = f" ({row.device}, {row.backend}, {row.dtype}, batch {row.batch}, {row.length} tokens)"
    return f"Limits: {', '.join(limits) or 'none'}{place}"


def front_table(answer: Answer, best: Candidate) -> str:
    """A line for each candidate on the front, and for the best, which another limit may keep off it."""
    judged = {one.candidate: one for one in answer.choice.judged}
    costs = costs_of(answer)
    lines = sorted({*answer.choice.front, best}, key=lambda one: one.cost(answer.choice.cost))
    return markdown(
        ["sub-network", answer.rows[0].metric, *(NAMES[cost] for cost in costs), ""],
        [
            [
                one.sub,
                f"{one.score:.4f}",
                *(in_cell(cost, one.cost(cost)) for cost in costs),
                "chosen" if one == best else missed(judged[one]),
            ]
            for one in lines
        ],
    )


def nothing_fits(answer: Answer) -> str:
    """Which candidates are nearest, and by how much each misses."""
    judged = answer.choice.judged
    lines = [f"- {one.candidate.sub}: {missed(one)}" for one in judged[:NEAREST]]
    more = f"\n- and {len(judged) - NEAREST} more" if len(judged) > NEAREST else ""
    return f"nothing fits. {budget(answer)}. Nearest first; loosen a limit:\n" + "\n".join(lines) + more


def missed(judged: Judged) -> str:
    """By how much a candidate misses its limits; empty where it keeps to all."""
    return "; ".join(missed_one(miss) for miss in judged.misses)


def missed_one(miss: Miss) -> str:
    return f"{shown(miss.what, miss.value)}, {distance(miss)} {shown(miss.what, miss.limit)}"


def distance(miss: Miss) -> str:
    """Of a score the difference, of a cost the part; of one that is far beyond its limit how many times it is that."""
    if miss.what == "score":
        return f"{miss.limit - miss.value:.4f} below"
    times = miss.value / miss.limit
    return f"{times:,.0f} times" if times > MANY_TIMES else f"{100 * miss.part:.1f} % above"


def shown(what: str, value: float) -> str:
    """A cost or score in a sentence."""
    if what == "latency_ms":
        return in_cell(what, value)
    return f"score {value:.4f}" if what == "score" else f"{in_cell(what, value)} {NAMES[what]}"


def in_cell(cost: str, value: float) -> str:
    """A cost below its name; counts as `--max-parameters` takes them."""
    return f"{value:.4g} ms" if cost == "latency_ms" else size(value)


def costs_of(answer: Answer) -> tuple[Cost, ...]:
    """Those that are known of every candidate."""
    return ("latency_ms", "parameters", "flops") if answer.measured else ("parameters", "flops")


def answer_json(answer: Answer) -> str:
    """The same for programs; `chosen` is null where nothing fits, and `nearest` starts with what misses least."""
    row, choice = answer.rows[0], answer.choice
    measured = {"device", "time", "backend", "dtype", "batch", "length"}
    values = {
        "chosen": dataclasses.asdict(choice.best) if choice.best else None,
        "limits": answer.limits.model_dump(),
        "split": row.split,
        "metric": row.metric,
        "flops_length": row.length,
        "measured": answer.measured[0].model_dump(include=measured) if answer.measured else None,
        "front_by": choice.cost,
        "front": [dataclasses.asdict(one) for one in choice.front],
        "nearest": [] if choice.best else [judged_values(one) for one in choice.judged],
    }
    return json.dumps(values, indent=2)


def judged_values(judged: Judged) -> dict[str, Any]:
    misses = [dataclasses.asdict(miss) | {"part": miss.part} for miss in judged.misses]
    return dataclasses.asdict(judged.candidate) | {"misses": misses}
