"""What a configuration leaves open, chosen by the data and the model: a pure function, without jax.

The paper's values are for BERT-base and the tens of thousands of examples of GLUE. A narrower model needs a larger
learning rate, and a smaller data set more epochs, or the sub-networks answer one class for every text. So:

- a stage takes at least `LEAST_STEPS` steps. The depth stage has the most to learn and takes the most;
- small data come in smaller batches, which are more steps for the same arithmetic; the longer the texts, the smaller;
- the learning rate falls with the square of the model's hidden size, and is the paper's for BERT-base;
- batches are padded to a few lengths that fit the texts, as many as are worth their compilation;
- dev is scored a few times in a stage, and less often where it is large.

docs/measurements.md has what was tried. Nothing here depends on the machine.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dynabert_jax.config.complete import CompleteData, CompleteRun, CompleteStage, filled
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.stages import Stage

LEAST_STEPS: Mapping[str, int] = {"fine_tune": 150, "width": 100, "depth": 200, "final": 150}
LEAST_EPOCHS: Mapping[str, int] = {"fine_tune": 2, "width": 1, "depth": 1, "final": 1}
LARGEST_BATCH = 32  # examples, the paper's
SMALLEST_BATCH = 4
SMALL_BATCH = 16  # where texts are short; longer ones get fewer, so that a step has no more than
SMALL_STEP = 512  # tokens
WARMUP = 0.1
BASE_RATE, BASE_HIDDEN, LARGEST_RATE = 2e-5, 768, 5e-4  # of BERT-base, as in the paper; of a tiny model
LONGEST = 128  # tokens; the time of a step grows faster than the length, and most texts say soon what they are about
SHORTEST_LIMIT = 32  # tokens; texts in use may be longer than those in the data
MULTIPLE = 8  # tokens; the matmuls of all devices like multiples
MOST_LENGTHS = 4
COMPILING = 20_000  # tokens that the depth stage trains on in the time in which it compiles for one more length
MOST_EVALUATIONS = 4
EVALUATED_SHARE = 0.75  # of the examples trained on; scoring one costs a third, so that evaluations add up to a quarter


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of the data.

    Attributes:
        sizes: int `[n]`; tokens of each example that any stage trains on, at most `longest_text`.
        longest: the most tokens of any example, in dev and test, too.
        rows: the number of examples that each stage trains on, by the stage's name.
        dev: the number of examples in dev.
        share: every batch is a multiple of it, so that all devices and microbatches get the same number of examples.
    """

    sizes: np.ndarray
    longest: int
    rows: Mapping[str, int]
    dev: int
    share: int = 1


def longest_text(config: RunConfig, model: ModelConfig) -> int:
    """The most tokens of a text, beyond which it is truncated."""
    return config.data.lengths[-1] if config.data.lengths else min(LONGEST, model.max_length)


def complete(config: RunConfig, model: ModelConfig, known: Known) -> CompleteRun:
    """The configuration with everything chosen that it leaves open; what it names is kept."""
    values = config.to_values()
    batch = config.data.batch_size or batch_size(known)
    epochs = {name: stage.epochs or epochs_of(name, known, batch) for name, stage in config.stages.items()}
    for name, count in epochs.items():
        chosen = {"epochs": count, "evaluations": evaluations_of(known.rows[name] * count, count, known.dev)}
        values[name] = filled(values[name], chosen | {"optimizer": optimizer_of(model)})
    passes = max(epochs.values(), default=1)
    values["data"] = filled(values["data"], {"batch_size": batch, "lengths": lengths_of(model, known, passes)})
    return CompleteRun.from_values(values)


def batch_size(known: Known) -> int:
    """The largest power of two with which the longest stage takes its steps in one epoch, or that small data have."""
    rows = max(known.rows.values(), default=0)
    small = min(SMALL_BATCH, SMALL_STEP / known.sizes.mean())
    wanted = max(small, rows / max(LEAST_STEPS.values()))
    batch = 2 ** int(math.log2(min(LARGEST_BATCH, max(SMALLEST_BATCH, wanted))))
    return -(-batch // known.share) * known.share


def epochs_of(stage: str, known: Known, batch: int) -> int:
    """Enough for the stage's steps."""
    return max(LEAST_EPOCHS[stage], -(-LEAST_STEPS[stage] // steps_of(known.rows[stage], batch)))


def steps_of(rows: int, batch: int) -> int:
    """The steps of an epoch."""
    return -(-rows // batch)


def evaluations_of(trained: int, epochs: int, dev: int) -> float:
    """Evaluations per epoch, for a stage that trains on so many examples, with repeats."""
    count = min(MOST_EVALUATIONS, max(1, int(EVALUATED_SHARE * trained / dev)))
    return count // epochs if count >= epochs else count / epochs


def optimizer_of(model: ModelConfig) -> dict[str, float]:
    rate = min(LARGEST_RATE, BASE_RATE * (BASE_HIDDEN / model.hidden_size) ** 2)
    return {"learning_rate": float(f"{rate:.1e}"), "warmup": WARMUP}


def lengths_of(model: ModelConfig, known: Known, epochs: int) -> tuple[int, ...]:
    """The static lengths: the fewest padded tokens in all epochs, where a further length costs `COMPILING` tokens.

    The largest is for the longest text. Where all are short, it leaves room for longer ones, which costs nothing: a
    length without a text is never compiled.
    """
    needed = min(_rounded_up(known.longest), model.max_length)
    room = min(max(needed, SHORTEST_LIMIT), model.max_length)
    inner = sorted({_rounded_up(size) for size in known.sizes.tolist()} - {needed})
    inner = [length for length in inner if length < needed]
    counted = np.bincount(known.sizes, minlength=needed + 1)[: needed + 1]  # [needed + 1]

    def cost(lengths: Sequence[int]) -> float:
        padded = np.array(lengths)[np.searchsorted(lengths, np.arange(needed + 1))]  # [needed + 1]
        return epochs * float(counted @ padded) + COMPILING * len(lengths)

    best = min(((*some, needed) for some in _subsets(inner)), key=cost)
    return tuple(sorted({*best, room}))


def _subsets(lengths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return itertools.chain.from_iterable(itertools.combinations(lengths, count) for count in range(MOST_LENGTHS))


def _rounded_up(size: int) -> int:
    return -(-size // MULTIPLE) * MULTIPLE


def told(config: RunConfig, chosen: CompleteRun, model: ModelConfig, known: Known) -> list[str]:
    """What was chosen and why, in lines; nothing for what the configuration names."""
    stages = ((name, stage, chosen.stages[name]) for name, stage in config.stages.items())
    found = [_told_of_data(config, chosen.data, known)]
    found += [_told_of_stage(name, stage, complete, model, known, chosen.data) for name, stage, complete in stages]
    return [line for line in found if line]


def _told_of_data(config: RunConfig, data: CompleteData, known: Known) -> str:
    parts = []
    if config.data.batch_size is None:
        rows = max(known.rows.values(), default=0)
        parts.append(f"batches of {data.batch_size} ({rows} examples of {known.sizes.mean():.0f} tokens in the mean)")
    if config.data.lengths is None:
        lengths = " or ".join(map(str, data.lengths))
        parts.append(f"padded to {lengths} tokens (examples have {known.sizes.min()} to {known.longest})")
    return "recipe: " + ", ".join(parts) if parts else ""


def _told_of_stage(
    name: str, stage: Stage, complete: CompleteStage, model: ModelConfig, known: Known, data: CompleteData
) -> str:
    parts = []
    if stage.epochs is None:
        steps = complete.epochs * steps_of(known.rows[name], data.batch_size)
        parts.append(f"{_counted(complete.epochs, 'epoch')} of {steps} steps in all (at least {LEAST_STEPS[name]})")
    if stage.optimizer.learning_rate is None:
        parts.append(f"learning rate {complete.optimizer.learning_rate:g} (hidden size {model.hidden_size})")
    if stage.optimizer.warmup is None:
        parts.append(f"warm-up {complete.optimizer.warmup:g}")
    if stage.evaluations is None:
        count = round(complete.evaluations * complete.epochs)
        parts.append(f"{_counted(count, 'evaluation')} ({known.dev} examples in dev)")
    return f"recipe: {name}: " + ", ".join(parts) if parts else ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
