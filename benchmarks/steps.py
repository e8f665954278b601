"""Our training steps against PyTorch's, fine-tuning, width and depth stage:

python -m benchmarks.steps --stage depth
"""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Literal

import jax
import numpy as np
import optax
import tyro

from benchmarks import harness, torch_bert, torch_dynabert
from dynabert_jax import cost, parallel, stages, weights
from dynabert_jax.batches import Batch
from dynabert_jax.bert import Bert
from dynabert_jax.config import DepthStage, Dtype, FineTune, ModelConfig, WidthStage
from dynabert_jax.products import product_rate

StageName = Literal["fine_tune", "width", "depth"]

BASE = "torch fp32"
ON_CPU = {"ours fp32": 1.0, "ours bf16": 1 / 1.5}
ON_GPU = {"ours bf16": 1 / 10}
COMPILED = "torch compiled bf16"
ON_GPU_TO_COMPILED = {"ours bf16": 1 / 1.3}
AGREEMENT = 1e-4  # relative, of float32 on both sides
TOTAL_STEPS = 10_000  # of the schedule; more than are run


@dataclasses.dataclass(frozen=True)
class Settings(harness.Settings):
    """What is timed, and how often."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """whose shape; the weights are random"""
    stage: StageName = "depth"
    """whose step"""
    compiled: bool = True
    """also time torch.compile, whose compiling takes minutes on a CPU"""


def main(settings: Settings) -> None:
    """Times whole steps: teachers and students with dropout, losses, backward, clip, AdamW."""
    harness.share_the_accelerator()
    config = harness.MODELS[settings.model]()
    params, batch = weights.init_params(config, seed=0), harness.random_batch(config, settings)
    objective = find_objective(config, settings.stage)
    seconds = harness.measure(make_cases(config, objective, params, batch, settings), settings.rounds)
    on_gpu = torch_bert.DEVICE == "cuda"
    rows = harness.comparison(seconds, BASE, ON_GPU if on_gpu else ON_CPU)
    used = utilisation(config, objective, settings, seconds)
    tables = {
        f"{settings.stage} stage, {settings.model}, {settings.batch} x {settings.length} tokens": [
            row | {"% of the product rate": used[str(row["case"])]} for row in rows
        ],
        "The same losses, dropout off": agreement(config, objective, params, batch),
    }
    if settings.compiled:
        targets = ON_GPU_TO_COMPILED if on_gpu else {}
        tables[f"The same times, to {COMPILED}"] = harness.comparison(seconds, COMPILED, targets)
    about = harness.machine() | torch_bert.describe() | harness.product_rates()
    name = f"steps_{settings.model}_{settings.stage}_{settings.batch}"
    harness.publish(name, settings, tables, seconds, about)


def find_objective(config: ModelConfig, name: StageName) -> stages.Objective:
    if name == "fine_tune":
        return stages.fine_tune(config, FineTune())
    return stages.width(config, WidthStage()) if name == "width" else stages.depth(config, DepthStage())


def make_cases(
    config: ModelConfig, objective: stages.Objective, params: weights.Params, batch: Batch, settings: Settings
) -> dict[str, Callable[[], None]]:
    """By name, what takes a step and waits for its end."""
    cases: dict[str, Callable[[], None]] = {
        BASE: torch_dynabert.Step(config, objective, params, batch, torch_dynabert.RELEASED),
        "torch sdpa bf16": torch_dynabert.Step(config, objective, params, batch, torch_dynabert.TODAY),
        "ours fp32": ours(config, objective, params, batch, "float32"),
        "ours bf16": ours(config, objective, params, batch, "bfloat16"),
    }
    if settings.compiled:
        cases[COMPILED] = torch_dynabert.Step(config, objective, params, batch, torch_dynabert.COMPILED)
    return cases


def ours(
    config: ModelConfig, objective: stages.Objective, params: weights.Params, batch: Batch, dtype: Dtype
) -> Callable[[], None]:
    """What a run does for a batch."""
    programs = stages.Programs(Bert(config, dtype))
    update = stages.make_update(objective, TOTAL_STEPS)
    state = stages.init_state(objective, params, TOTAL_STEPS)
    teacher = stages.place_teacher(params, dtype) if any(group.teacher for group in objective.groups) else None
    key = jax.random.key(0)

    def run() -> None:
        nonlocal state, key
        key, own = jax.random.split(key)
        state, _ = stages.train_step(programs, update, objective, state, teacher, batch, own)
        jax.block_until_ready(state)

    return run


def utilisation(
    config: ModelConfig, objective: stages.Objective, settings: Settings, seconds: harness.Seconds
) -> dict[str, str]:
    """The products that the step stands for, each student's own, over the time and the rate of large products.

    What our students share is counted for each of them, as for PyTorch, which computes it for each; the rate is ours.
    """
    forwards = [group.teacher for group in objective.groups if group.teacher] + 3 * list(objective.students)
    flops = settings.batch * sum(cost.flops(config, sub, settings.length) for sub in forwards)
    dtypes: dict[bool, Dtype] = {True: "bfloat16", False: "float32"}
    return {
        case: f"{100 * flops / statistics.median(times) / product_rate(dtypes['bf16' in case]):.0f}"
        for case, times in seconds.items()
    }


def agreement(
    config: ModelConfig, objective: stages.Objective, params: weights.Params, batch: Batch
) -> list[harness.Row]:
    """How far losses and the gradient's norm are from PyTorch's in float32, at most and relatively."""
    still = config.replace(hidden_dropout=0.0, attention_dropout=0.0)
    answers = {
        BASE: their_losses(torch_dynabert.Step(still, objective, params, batch, torch_dynabert.RELEASED)),
        "torch sdpa bf16": their_losses(torch_dynabert.Step(still, objective, params, batch, torch_dynabert.TODAY)),
        "ours fp32": our_losses(still, objective, params, batch, "float32"),
        "ours bf16": our_losses(still, objective, params, batch, "bfloat16"),
    }
    differences = {case: np.abs(found / answers[BASE] - 1.0) for case, found in answers.items() if case != BASE}
    return [
        {
            "case": case,
            "losses, at most": f"{difference[:-1].max():.1e}",
            "gradient norm": f"{difference[-1]:.1e}",
            "target": f"<= {AGREEMENT:g}" if case == "ours fp32" else "",
            "holds": harness.verdict(difference.max() <= AGREEMENT) if case == "ours fp32" else "",
        }
        for case, difference in differences.items()
    ]


def their_losses(step: torch_dynabert.Step) -> np.ndarray:
    """Every student's loss and then the norm of the gradient, `[students + 1]`."""
    return np.array([*map(float, step.losses()), step.gradient_norm()])


def our_losses(
    config: ModelConfig, objective: stages.Objective, params: weights.Params, batch: Batch, dtype: Dtype
) -> np.ndarray:
    """The same of ours."""
    programs, teacher = stages.Programs(Bert(config, dtype)), stages.place_teacher(params, dtype)
    summed = stages.gradients(programs, objective, parallel.replicate(params), teacher, batch, jax.random.key(0))
    norm = optax.tree.norm(jax.tree.map(lambda g: np.asarray(g).sum(0), summed.grads))
    return np.array([*(float(np.sum(losses.total)) for losses in summed.losses.values()), float(norm)])


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
