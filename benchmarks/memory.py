"""Peak memory of steps of the depth stage, with twelve sub-networks and their teachers:

python -m benchmarks.memory
"""

import dataclasses
import json
import subprocess
import sys
from typing import Literal

import jax
import tyro

from benchmarks import harness
from dynabert_jax.config import Dtype
from dynabert_jax.config.complete import CompleteDepthStage
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.microbatch import micro_batches
from dynabert_jax.plan import depth
from dynabert_jax.system.memory import peak_memory
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.step import Programs, init_state, make_update, place_teacher, train_step
from dynabert_jax.weights.names import init_params

STEPS = 2  # the second step starts with everything that the first one left in memory


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured."""

    model: Literal["minilm", "bert-base"] = "bert-base"
    """the shape of the model; the weights are random"""
    batch: int = 32
    """sentences per step"""
    length: int = 128
    """tokens per sentence, none of them padding"""
    dtype: Dtype = "bfloat16"
    """the dtype of the matmuls"""
    parts: tuple[int, ...] = (1, 8)
    """least numbers of microbatches, each measured in its own process; a CPU may use more"""
    rematerialize: tuple[bool, ...] = (False, True)
    """whether activations are recomputed, each measured in its own process"""
    alone: bool = False
    """measure only the first value of each, in this process, and print its row"""


def main(settings: Settings) -> None:
    if settings.alone:
        print(json.dumps(take_steps(settings, settings.parts[0], settings.rematerialize[0])))
        return
    rows = [measured_apart(settings, parts, remat) for parts in settings.parts for remat in settings.rematerialize]
    title = f"{settings.model}, {settings.batch} x {settings.length} tokens, {settings.dtype}"
    harness.publish("memory", settings, {title: rows}, {}, harness.machine())


def take_steps(settings: Settings, parts: int, remat: bool) -> harness.Row:
    """A row with the number of microbatches used and the peak memory, including compilation."""
    config = harness.MODELS[settings.model]()
    params, objective = init_params(config, seed=0), depth(config, CompleteDepthStage())
    programs = Programs(Bert(config, settings.dtype, remat))
    update = make_update(Distillation(objective), STEPS)
    state, teacher = init_state(Distillation(objective), params, STEPS), place_teacher(params, settings.dtype)
    batch = harness.random_batch(config, settings.batch, settings.length)
    for step in range(STEPS):
        state, report = train_step(
            programs, update, Distillation(objective), state, teacher, batch, jax.random.key(step), parts
        )
        jax.block_until_ready(report)
    taken = len(list(micro_batches(batch, parts)))
    return {"parts": taken, "computed again": "yes" if remat else "no", "GiB": round(peak_memory() / 2**30, 1)}


def measured_apart(settings: Settings, parts: int, remat: bool) -> harness.Row:
    """The row from a new process, because the peak memory of a process cannot be reset."""
    command = [
        sys.executable, "-m", "benchmarks.memory", "--alone", "--model", settings.model, "--batch", str(settings.batch),
        "--length", str(settings.length), "--dtype", settings.dtype, "--parts", str(parts),
        "--rematerialize", str(remat),
    ]  # fmt: skip
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: harness.Row = json.loads(result.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
