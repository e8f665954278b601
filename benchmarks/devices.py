"""How the time of a training step falls with the number of devices:

python -m benchmarks.devices
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Literal

import tyro

from benchmarks import harness, torch_bert
from benchmarks.steps import OurStep, StageName, find_objective
from dynabert_jax.config import Dtype
from dynabert_jax.weights.names import init_params


@dataclasses.dataclass(frozen=True)
class Settings(harness.Settings):
    """What is timed, and how often: one process per number of devices, in order and then in reverse."""

    rounds: int = 5
    """timed steps per process"""
    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; the weights are random"""
    stage: StageName = "fine_tune"
    """the stage whose step is timed"""
    dtype: Dtype = "bfloat16"
    """the dtype of the matmuls"""
    devices: tuple[int, ...] = (1, 2)
    """numbers of devices; they share the batch, and on a CPU also the cores"""
    alone: bool = False
    """time only the devices of this process, and print the seconds of its steps"""


def main(settings: Settings) -> None:
    """Times the same global batch on every number of devices."""
    if settings.alone:
        print(json.dumps(step_seconds(settings)))
        return
    seconds: harness.Seconds = {str(count): [] for count in settings.devices}
    with tempfile.TemporaryDirectory(prefix="dynabert-cache-") as cache:
        for count in (*settings.devices, *reversed(settings.devices)):
            seconds[str(count)] += measured_apart(settings, count, cache)
    first = settings.devices[0]
    base = statistics.median(seconds[str(first)])
    rows: list[harness.Row] = [
        {
            "devices": count,
            "median ms": round(1e3 * statistics.median(seconds[str(count)]), 1),
            f"times as fast as {first}": f"{base / statistics.median(seconds[str(count)]):.2f}",
        }
        for count in settings.devices
    ]
    title = f"{settings.stage}, {settings.model}, {settings.dtype}, {settings.batch} x {settings.length} tokens"
    harness.publish(f"devices_{settings.model}", settings, {title: rows}, seconds, harness.machine())


def step_seconds(settings: Settings) -> list[float]:
    """The seconds of every round, after a step that compiles."""
    config = harness.MODELS[settings.model]()
    objective, batch = (
        find_objective(config, settings.stage),
        harness.random_batch(config, settings.batch, settings.length),
    )
    step = OurStep(config, objective, init_params(config, seed=0), batch, settings.dtype)
    return harness.measure({"step": step}, settings.rounds)["step"]


def measured_apart(settings: Settings, count: int, cache: str) -> list[float]:
    """The seconds from a new process that sees this many devices."""
    command = [
        sys.executable, "-m", "benchmarks.devices", "--alone", "--model", settings.model, "--stage", settings.stage,
        "--dtype", settings.dtype, "--batch", str(settings.batch), "--length", str(settings.length),
        "--rounds", str(settings.rounds),
    ]  # fmt: skip
    seen = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count)))}
    if torch_bert.DEVICE == "cpu":
        seen = {"JAX_NUM_CPU_DEVICES": str(count)}
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache} | seen
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds: list[float] = json.loads(result.stdout.splitlines()[-1])
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
