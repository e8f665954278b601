"""What batches of similar length gain: an epoch of the movie reviews against padding every sentence to 128 tokens:

python -m benchmarks.lengths
"""

import collections
import dataclasses
import statistics
from typing import Literal

import tyro

from benchmarks import harness
from benchmarks.steps import OurStep, StageName, find_objective
from dynabert_jax import weights
from dynabert_jax.batches import plan_epoch
from dynabert_jax.config import DataConfig, Dtype
from dynabert_jax.data import load_data, load_tokenizer
from dynabert_jax.hub import find_model
from dynabert_jax.tasks import task

MODEL = "sample:minilm"  # whose tokenizer it is
TARGET = 2.5  # times as many examples a second


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """whose shape; the weights are random"""
    stage: StageName = "depth"
    """whose step"""
    dtype: Dtype = "bfloat16"
    """what products multiply in"""
    batch: int = 32
    """sentences a step"""
    rounds: int = 5
    """how often everything is timed, in turn"""


def main(settings: Settings) -> None:
    """Times a step at every length, and adds them up over the batches of an epoch."""
    data = DataConfig(task=task("movie_reviews"), batch_size=settings.batch)
    train = load_data(data, load_tokenizer(find_model(MODEL))).train
    batches = collections.Counter(one.length for one in plan_epoch(train, data.batch_size, data.lengths, [0]))
    lengths = sorted({*batches, data.max_length})
    config = harness.MODELS[settings.model]()
    params, objective = weights.init_params(config, seed=0), find_objective(config, settings.stage)
    cases = {
        str(length): OurStep(
            config, objective, params, harness.random_batch(config, harness.Settings(length, settings.batch)),
            settings.dtype,
        )
        for length in lengths
    }  # fmt: skip
    seconds = harness.measure(cases, settings.rounds)
    rows: list[harness.Row] = [
        {
            "tokens": length,
            "batches of an epoch": batches[length],
            "step, ms": round(1e3 * statistics.median(seconds[str(length)]), 1),
        }
        for length in lengths
    ]
    longest, total = seconds[str(data.max_length)], sum(batches.values())
    mixed = [sum(count * seconds[str(length)][i] for length, count in batches.items()) for i in range(settings.rounds)]
    gain = 1 / harness.ratio(mixed, [total * step for step in longest])
    epoch: list[harness.Row] = [
        {
            "batches": name,
            "examples a second": round(len(train) / statistics.median(times), 1),
            "times as many": gained,
            "target": goal,
            "holds": holds,
        }
        for name, times, gained, goal, holds in (
            (f"all of {data.max_length} tokens", [total * step for step in longest], "1", "", ""),
            ("of similar length", mixed, f"{gain:.2f}", f">= {TARGET}", harness.verdict(gain >= TARGET)),
        )
    ]
    tables = {f"{settings.stage} stage, {settings.model}, {settings.dtype}": rows, "An epoch": epoch}
    harness.publish(f"lengths_{settings.model}_{settings.stage}", settings, tables, seconds, harness.machine())


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
