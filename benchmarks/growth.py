"""How the time of a training step grows with the batch, the length, and the number of sub-networks:

python -m benchmarks.growth
"""

import dataclasses
import statistics
from typing import Literal

import numpy as np
import tyro

from benchmarks import harness
from benchmarks.steps import OurStep
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.config.complete import CompleteDepthStage, CompleteFineTune
from dynabert_jax.data.batches import PlannedBatch
from dynabert_jax.plan import StagePlan, depth, fine_tune
from dynabert_jax.train.step import training_flops
from dynabert_jax.weights.names import init_params


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often. Values that do not grow stay at their first setting."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; the weights are random"""
    dtype: Dtype = "bfloat16"
    """the dtype of the matmuls"""
    batch: tuple[int, ...] = (8, 16, 32, 64)
    """sentences of a fine-tuning step"""
    length: tuple[int, ...] = (32, 64, 128, 256)
    """tokens per sentence"""
    widths: tuple[int, ...] = (1, 2, 3, 4)
    """the number of widths, out of four, that a step of the depth stage trains, each in three depths"""
    rounds: int = 5
    """how often everything is timed, in turn"""


@dataclasses.dataclass(frozen=True)
class Point:
    """A step to time."""

    grows: str
    objective: StagePlan
    shape: harness.Settings

    def flops(self, config: ModelConfig) -> int:
        planned = PlannedBatch(np.arange(self.shape.batch), self.shape.length)
        return training_flops(config, self.objective, planned)


def main(settings: Settings) -> None:
    """Times every step, and compares its growth with that of its FLOPs."""
    config = harness.MODELS[settings.model]()
    params = init_params(config, seed=0)
    found = points(config, settings)
    seconds: harness.Seconds = {}
    for grows in dict.fromkeys(point.grows for point in found.values()):  # one group at a time, to save memory
        cases = {
            name: OurStep(
                config,
                point.objective,
                params,
                harness.random_batch(config, point.shape.batch, point.shape.length),
                settings.dtype,
            )
            for name, point in found.items()
            if point.grows == grows
        }
        seconds |= harness.measure(cases, settings.rounds, harness.BUSY)
    tables = {f"{settings.model}, {settings.dtype}": rows(config, found, seconds)}
    harness.publish(f"growth_{settings.model}", settings, tables, seconds, harness.machine())


def points(config: ModelConfig, settings: Settings) -> dict[str, Point]:
    """By name, in the order of growth."""
    tuning, stage = fine_tune(config, CompleteFineTune()), CompleteDepthStage()
    found: dict[str, Point] = {}
    for batch in settings.batch:
        found[f"{batch} sentences"] = Point("batch", tuning, harness.Settings(settings.length[0], batch))
    for length in settings.length:
        found[f"{length} tokens"] = Point("length", tuning, harness.Settings(length, settings.batch[0]))
    for count in settings.widths:
        objective = depth(config, stage.replace(widths=stage.widths[:count]))
        shape = harness.Settings(settings.length[0], settings.batch[0])
        found[f"{len(objective.students)} sub-networks"] = Point("sub-networks", objective, shape)
    return found


def rows(config: ModelConfig, points: dict[str, Point], seconds: harness.Seconds) -> list[harness.Row]:
    """Times and FLOPs of each step, as multiples of the first step of its group."""
    made: list[harness.Row] = []
    for name, point in points.items():
        first = next(other for other, there in points.items() if there.grows == point.grows)
        made.append(
            {
                "step": name,
                "median ms": round(1e3 * statistics.median(seconds[name]), 1),
                "fastest ms": round(1e3 * min(seconds[name]), 1),
                "times the first": f"{harness.ratio(seconds[name], seconds[first]):.2f}",
                "FLOPs, times the first": f"{point.flops(config) / points[first].flops(config):.2f}",
            }
        )
    return made


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
