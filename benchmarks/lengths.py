"""The gain from batches of similar length: an epoch of the movie reviews against padding all sentences to 128 tokens:

python -m benchmarks.lengths
"""

import collections
import dataclasses
import statistics
from typing import Literal

import tyro

from benchmarks import harness
from benchmarks.steps import OurStep, StageName, find_objective
from dynabert_jax.config import Dtype
from dynabert_jax.config.complete import CompleteData
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.tasks import task
from dynabert_jax.data.batches import plan_epoch
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.weights.hub import find_model
from dynabert_jax.weights.names import init_params

MODEL = "sample:minilm"  # the tokenizer of this model is used
TARGET = 2.5  # times as many examples per second


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; the weights are random"""
    stage: StageName = "depth"
    """the stage whose step is timed"""
    dtype: Dtype = "bfloat16"
    """the dtype of the matmuls"""
    batch: int = 32
    """sentences per step"""
    finer: tuple[int, ...] = (24, 32, 48, 64, 128)
    """batch lengths to compare with the default ones: less padding, but more programs to compile"""
    rounds: int = 5
    """how often everything is timed, in turn"""


def main(settings: Settings) -> None:
    """Times a step at every length, and sums the times over the batches of an epoch."""
    data = CompleteData(task=task("movie_reviews"), batch_size=settings.batch)
    folder = find_model(MODEL)
    train = load_data(data, load_tokenizer(folder, ModelConfig.read(folder / "config.json"))).train
    batches = {
        lengths: collections.Counter(one.length for one in plan_epoch(train, data.batch_size, lengths, [0]))
        for lengths in ((data.max_length,), data.lengths, settings.finer)
    }
    config = harness.MODELS[settings.model]()
    params, objective = init_params(config, seed=0), find_objective(config, settings.stage)
    cases = {
        str(length): OurStep(
            config, objective, params, harness.random_batch(config, settings.batch, length),
            settings.dtype,
        )
        for length in sorted(set().union(*batches.values()))
    }  # fmt: skip
    seconds = harness.measure(cases, settings.rounds)
    steps: list[harness.Row] = [
        {"tokens": length, "step, ms": round(1e3 * statistics.median(times), 1)} for length, times in seconds.items()
    ]
    epochs = {
        lengths: [sum(n * seconds[str(length)][i] for length, n in counts.items()) for i in range(settings.rounds)]
        for lengths, counts in batches.items()
    }
    tokens = int(train.sizes.sum())
    tables = {
        f"{settings.stage} stage, {settings.model}, {settings.dtype}": steps,
        "An epoch": [
            epoch_row(lengths, batches[lengths], times, epochs[data.max_length,], len(train), tokens, settings.batch)
            for lengths, times in epochs.items()
        ],
    }
    harness.publish(f"lengths_{settings.model}_{settings.stage}", settings, tables, seconds, harness.machine())


def epoch_row(
    lengths: tuple[int, ...], batches: collections.Counter[int], times: list[float], padded_to_all: list[float],
    examples: int, tokens: int, batch: int,
) -> harness.Row:  # fmt: skip
    """The gain of an epoch of batches of these lengths over padding all sentences to the largest."""
    gain = 1 / harness.ratio(times, padded_to_all)
    room = batch * sum(length * count for length, count in batches.items())
    return {
        "padded to": " ".join(map(str, lengths)),
        "batches": " ".join(str(batches[length]) for length in lengths),
        "tokens that are no padding": f"{100 * tokens / room:.0f} %",
        "examples a second": round(examples / statistics.median(times), 1),
        "times as many": f"{gain:.2f}",
        "target": f">= {TARGET}" if len(lengths) > 1 else "",
        "holds": harness.verdict(gain >= TARGET) if len(lengths) > 1 else "",
    }


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
