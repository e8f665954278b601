"""The speed-up of cut sub-networks against the speed-up in FLOPs, for MiniLM and BERT-base:

python -m benchmarks.sizes
"""

import dataclasses
from typing import Literal

import tyro
from tqdm import tqdm

from benchmarks import harness
from dynabert_jax import cost
from dynabert_jax.choose.backends import find_backend
from dynabert_jax.choose.bench import random_inputs, summary, time_shape
from dynabert_jax.config import DepthStage, Dtype, ModelConfig
from dynabert_jax.model.params import Model
from dynabert_jax.subnetwork import SubNetwork, uniform_grid
from dynabert_jax.weights.names import init_params

TARGET = 0.9  # of the speed-up in FLOPs


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often."""

    model: tuple[Literal["minilm", "bert-base"], ...] = ("minilm", "bert-base")
    """the shape of the model; the weights are random"""
    batch: tuple[int, ...] = (1, 8)
    """sentences per batch"""
    length: int = 128
    """tokens per sentence, none of them padding"""
    rounds: int = 20
    """how often everything is timed, in turn"""
    dtype: Dtype = "float32"
    """the dtype of the matmuls"""


def main(settings: Settings) -> None:
    """Times the twelve sub-networks of the paper, each cut out, in jax."""
    tables: dict[str, list[harness.Row]] = {}
    seconds: harness.Seconds = {}
    for model in settings.model:
        config = harness.MODELS[model]()
        for batch, timed in time_sizes(config, settings).items():
            title = f"{model}, batch {batch}, {settings.length} tokens"
            tables[title] = rows(config, settings.length, timed)
            seconds |= {f"{title}, {sub.name}": times for sub, times in timed.items()}
    harness.publish("sizes", settings, tables, seconds, harness.machine())


def time_sizes(config: ModelConfig, settings: Settings) -> dict[int, dict[SubNetwork, list[float]]]:
    """The seconds of every round, by batch size and sub-network; the full network is first."""
    stage, params = DepthStage(), init_params(config, seed=0)
    subs = uniform_grid(config, stage.widths, stage.depths)
    model, opened = Model(config, params), find_backend("jax").opens[settings.dtype]
    runners = {sub: opened(model.cut(sub)) for sub in subs}
    timed = {}
    with tqdm(total=len(settings.batch) * (len(subs) + settings.rounds), unit=" steps", leave=False) as bar:
        for batch in settings.batch:
            timings = time_shape(runners, random_inputs(config, batch, settings.length), settings.rounds, bar.update)
            timed[batch] = {sub: timing.seconds for sub, timing in timings.items()}
    return timed


def rows(config: ModelConfig, length: int, timed: dict[SubNetwork, list[float]]) -> list[harness.Row]:
    """A row for each sub-network: its speed-up over the full one, and its share of the speed-up in FLOPs."""
    full = SubNetwork.full(config)
    made: list[harness.Row] = []
    for sub, times in timed.items():
        values, promise = (
            summary(times, timed[full]),
            cost.flops(config, full, length) / cost.flops(config, sub, length),
        )
        part = values["speed_up"] / promise
        made.append(
            {
                "sub-network": sub.name,
                "median ms": round(values["median_ms"], 2),
                "p95 ms": round(values["p95_ms"], 2),
                "speed-up": f"{values['speed_up']:.2f} ({values['speed_up_low']:.2f}-{values['speed_up_high']:.2f})",
                "FLOPs promise": round(promise, 2),
                "part of the promise": round(part, 2),
                "target": f">= {TARGET}",
                "holds": harness.verdict(part >= TARGET),
            }
        )
    return made


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
