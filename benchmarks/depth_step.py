"""A step of the depth stage against the sum of its parts, and the time of the first step of every stage:

python -m benchmarks.depth_step
"""

import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks import harness
from dynabert_jax.config import Dtype
from dynabert_jax.config.complete import CompleteDepthStage
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.microbatch import micro_batches
from dynabert_jax.plan import depth
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.objective import Losses
from dynabert_jax.train.step import Programs, init_state, make_update, place_teacher, train_step
from dynabert_jax.weights.names import init_params

STEP = "whole step"
TOTAL_STEPS = 10_000  # of the schedule; more than are run
COMPILING_TARGETS = (60.0, 10.0)  # seconds for the depth stage, with an empty and with a warm compilation cache


@dataclasses.dataclass(frozen=True)
class Settings(harness.Settings):
    """What is timed, and how often."""

    dtype: Dtype = "float32"
    """the dtype of the matmuls"""


def main(settings: Settings) -> None:
    """Times the depth stage, and compilation in all stages."""
    first_steps = time_first_steps(settings)  # before this process takes the accelerator
    parts = Parts(settings)
    seconds = harness.measure(parts.cases(), settings.rounds)
    sums = [sum(times) for times in zip(*(seconds[name] for name in seconds if name != STEP), strict=True)]
    tables = {
        "A step of the depth stage": part_rows(seconds, sums),
        "The first step of every stage, in seconds": first_steps,
    }
    harness.publish("depth_step", settings, tables, seconds | {"sum of parts": sums}, harness.machine())


class Parts:
    """The step of the depth stage, whole and in parts; each call waits for its end."""

    def __init__(self, settings: Settings):
        config = harness.minilm()
        params = init_params(config, seed=0)
        self.objective = depth(config, CompleteDepthStage())
        self.programs = Programs(Bert(config, settings.dtype))
        self.apply_update = make_update(Distillation(self.objective), TOTAL_STEPS)
        self.batch = harness.random_batch(config, settings.batch, settings.length)
        self.micro_batches = list(micro_batches(self.batch))
        self.losses: dict[SubNetwork, Losses] = {}
        self.key = jax.random.key(0)
        self.teacher = place_teacher(params, settings.dtype)
        self.state = init_state(Distillation(self.objective), params, TOTAL_STEPS)
        self.grads = self.new_zeros()
        self.targets = {group.teacher: self.answers(group.teacher) for group in self.objective.groups}

    def cases(self) -> dict[str, Callable[[], None]]:
        """By name: the whole step, the gradients' zeros, each teacher, each family of students, the update."""
        named: dict[str, Callable[[], None]] = {STEP: self.step, "zeros": self.zeros}
        for group in self.objective.groups:
            if group.teacher is not None:
                named[f"teach {group.teacher.name}"] = functools.partial(self.teach, group.teacher)
            for family in group.families:
                name = f"accumulate {', '.join(student.name for student in family)}"
                named[name] = functools.partial(self.accumulate, group.teacher, family)
        return named | {"update": self.update}

    def step(self) -> None:
        self.state, _ = train_step(
            self.programs, self.apply_update, Distillation(self.objective), self.state, self.teacher, self.batch,
            self.key,
        )  # fmt: skip
        jax.block_until_ready(self.state)

    def zeros(self) -> None:
        jax.block_until_ready(self.new_zeros())

    def teach(self, teacher: SubNetwork) -> None:
        jax.block_until_ready(self.answers(teacher))

    def accumulate(self, teacher: SubNetwork | None, family: tuple[SubNetwork, ...]) -> None:
        for part, targets in zip(self.micro_batches, self.targets[teacher], strict=True):
            self.grads, losses = self.programs.accumulate(
                self.state.params, self.grads, part.batch, part.rows, targets, self.objective.weights, self.key,
                (Distillation, family),
            )  # fmt: skip
        self.losses |= dict(zip(family, losses, strict=True))
        jax.block_until_ready(self.grads)

    def update(self) -> None:
        losses = tuple(self.losses[student] for student in self.objective.students)
        self.state, _ = self.apply_update(self.state, self.grads, losses)
        jax.block_until_ready(self.state)

    def new_zeros(self) -> Any:
        return self.programs.zeros(self.state.params, np.arange(jax.local_device_count()))

    def answers(self, teacher: SubNetwork | None) -> list[Any]:
        """The teacher's answers to each microbatch; None without a teacher."""
        if teacher is None:
            return [None] * len(self.micro_batches)
        return [self.programs.teach(self.teacher, part.batch, (Distillation, teacher)) for part in self.micro_batches]


def part_rows(seconds: harness.Seconds, sums: list[float]) -> list[harness.Row]:
    """A row for each part, for their sum, and for the whole step."""
    total = statistics.median(sums)
    parts = {name: times for name, times in seconds.items() if name != STEP}
    rows: list[harness.Row] = [
        {
            "part": name,
            "median ms": round(1e3 * statistics.median(times), 1),
            "% of the sum": round(100 * statistics.median(times) / total, 1),
        }
        for name, times in (parts | {"sum of parts": sums, STEP: seconds[STEP]}).items()
    ]
    ratio = f"{harness.ratio(seconds[STEP], sums):.3f}"
    return [*rows, {"part": "whole step / sum of parts", "median ms": "", "% of the sum": ratio}]


def time_first_steps(settings: Settings) -> list[harness.Row]:
    """A row for each stage: its first step with an empty cache, and with the cache that the first run filled."""
    with tempfile.TemporaryDirectory(prefix="dynabert-cache-") as cache:
        empty, warm = first_steps(settings, cache), first_steps(settings, cache)
    rows = [first_step_row(stage, empty[stage], warm[stage]) for stage in empty]
    total = {"first step, empty cache": sum(first for first, _ in empty.values()),
             "first step, warm cache": sum(first for first, _ in warm.values())}  # fmt: skip
    return [*rows, dict.fromkeys(rows[0], "") | {"stage": "all"} | {name: round(s, 1) for name, s in total.items()}]


def first_step_row(stage: str, empty: tuple[float, float], warm: tuple[float, float]) -> harness.Row:
    """One stage's row. `empty` and `warm` are the seconds of its first and second step with each cache."""
    beyond = [first - second for first, second in (empty, warm)]
    goals = COMPILING_TARGETS if stage == "depth" else None
    known = stage != "importance"  # importance compiles in every call
    return {
        "stage": stage,
        "first step, empty cache": round(empty[0], 1),
        "beyond a step, empty": round(beyond[0], 1) if known else "",
        "first step, warm cache": round(warm[0], 1),
        "beyond a step, warm": round(beyond[1], 1) if known else "",
        "target": f"<= {goals[0]:g}; {goals[1]:g}" if goals else "",
        "holds": harness.verdict(beyond[0] <= goals[0] and beyond[1] <= goals[1]) if goals else "",
    }


def first_steps(settings: Settings, cache: str) -> dict[str, tuple[float, float]]:
    """The seconds of each stage's first two steps that `first_steps.py` prints, in a process of its own."""
    # The same limit as in the command line: programs that compile faster are not kept.
    keep = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    command = [sys.executable, "-m", "benchmarks.first_steps", "--length", str(settings.length),
               "--batch", str(settings.batch), "--dtype", settings.dtype]  # fmt: skip
    result = subprocess.run(command, env=os.environ | keep, stdout=subprocess.PIPE, text=True, check=True)
    seconds: dict[str, tuple[float, float]] = json.loads(result.stdout)
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
