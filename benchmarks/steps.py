"""Our training steps against PyTorch's, in the fine-tuning, width and depth stages:

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
from dynabert_jax import cost
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.config.complete import CompleteDepthStage, CompleteFineTune, CompleteWidthStage
from dynabert_jax.data.batches import Batch
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.matmul import matmul_rate
from dynabert_jax.plan import StagePlan, depth, fine_tune, width
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.step import Programs, gradients, init_state, make_update, place_teacher, train_step
from dynabert_jax.weights.files import Params
from dynabert_jax.weights.names import init_params

StageName = Literal["fine_tune", "width", "depth"]

BASE = "torch fp32"
ON_CPU = {"ours fp32": 1.0, "ours bf16": 1 / 1.5}
ON_GPU = {"ours bf16": 1 / 10}
COMPILED = "torch compiled bf16"
ON_GPU_TO_COMPILED = {"ours bf16": 1 / 1.3}
AGREEMENT = 1e-4  # relative, with float32 on both sides
UPDATE_BYTES = 7 * 4  # per parameter: reads weight, gradient and two moments, writes all except the gradient
TOTAL_STEPS = 10_000  # of the schedule; more than are run


@dataclasses.dataclass(frozen=True)
class Settings(harness.Settings):
    """What is timed, and how often."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; the weights are random"""
    stage: StageName = "depth"
    """the stage whose step is timed"""
    compiled: bool = True
    """also time torch.compile, which takes minutes to compile on a CPU"""


def main(settings: Settings) -> None:
    """Times whole steps: teachers and students with dropout, losses, backward, clip, AdamW."""
    harness.share_the_accelerator()
    config = harness.MODELS[settings.model]()
    params, batch = init_params(config, seed=0), harness.random_batch(config, settings.batch, settings.length)
    objective = find_objective(config, settings.stage)
    cases = make_cases(config, objective, params, batch, settings)
    seconds = harness.measure(cases, settings.rounds)
    on_gpu = torch_bert.DEVICE == "cuda"
    rows = harness.comparison(seconds, BASE, ON_GPU if on_gpu else ON_CPU)
    title = f"{settings.stage} stage, {settings.model}, {settings.batch} x {settings.length} tokens"
    tables: dict[str, list[harness.Row]] = {
        title: [
            dict(row)
            | {"% of the floor": harness.percent_of_floor(floor(config, objective, settings, case), seconds[case])}
            | {"host ms": host_time(cases[case])}
            for row in rows
            for case in [str(row["case"])]
        ],
        "The same losses, dropout off": agreement(config, objective, params, batch),
    }
    if settings.compiled:
        targets = ON_GPU_TO_COMPILED if on_gpu else {}
        tables[f"The same times, to {COMPILED}"] = harness.comparison(seconds, COMPILED, targets)
    about = harness.machine() | torch_bert.describe() | harness.product_rates()
    name = f"steps_{settings.model}_{settings.stage}_{settings.batch}"
    harness.publish(name, settings, tables, seconds, about)


def find_objective(config: ModelConfig, name: StageName) -> StagePlan:
    if name == "fine_tune":
        return fine_tune(config, CompleteFineTune())
    return width(config, CompleteWidthStage()) if name == "width" else depth(config, CompleteDepthStage())


def make_cases(
    config: ModelConfig, objective: StagePlan, params: Params, batch: Batch, settings: Settings
) -> dict[str, Callable[[], None]]:
    """The functions that take a step and wait for its end, by name."""
    cases: dict[str, Callable[[], None]] = {
        BASE: torch_dynabert.Step(config, objective, params, batch, torch_dynabert.RELEASED),
        "torch sdpa bf16": torch_dynabert.Step(config, objective, params, batch, torch_dynabert.TODAY),
        "ours fp32": OurStep(config, objective, params, batch, "float32"),
        "ours bf16": OurStep(config, objective, params, batch, "bfloat16"),
    }
    if settings.compiled:
        cases[COMPILED] = torch_dynabert.Step(config, objective, params, batch, torch_dynabert.COMPILED)
    return cases


class OurStep:
    """A training step of a run; each call waits for its end.

    Attributes:
        host_seconds: of every call, until all work is handed to the devices, without waiting for them.
    """

    def __init__(self, config: ModelConfig, objective: StagePlan, params: Params, batch: Batch, dtype: Dtype):
        self.objective, self.batch = objective, batch
        self.programs = Programs(Bert(config, dtype))
        self.update = make_update(Distillation(objective), TOTAL_STEPS)
        self.state = init_state(Distillation(objective), params, TOTAL_STEPS)
        self.teacher = place_teacher(params, dtype) if objective.has_teacher else None
        self.key = jax.random.key(0)
        self.host_seconds: list[float] = []

    def __call__(self) -> None:
        self.host_seconds.append(harness.timed(self.start))
        jax.block_until_ready(self.state)

    def start(self) -> None:
        self.key, own = jax.random.split(self.key)
        self.state, _ = train_step(
            self.programs, self.update, Distillation(self.objective), self.state, self.teacher, self.batch, own
        )


def host_time(case: Callable[[], None]) -> str:
    """The median milliseconds of our step on the host, without the first call, which compiles."""
    return f"{1e3 * statistics.median(case.host_seconds[1:]):.1f}" if isinstance(case, OurStep) else ""


def floor(config: ModelConfig, objective: StagePlan, settings: Settings, case: str) -> float:
    """The least seconds that this device needs: for the matmuls, and then for AdamW to read and write its arrays.

    Work that our students share is counted once per student, because PyTorch does it for each. The rates are ours.
    """
    dtype: Dtype = "bfloat16" if "bf16" in case else "float32"
    forwards = [group.teacher for group in objective.groups if group.teacher] + 3 * list(objective.students)
    flops = settings.batch * sum(cost.flops(config, sub, settings.length) for sub in forwards)
    moved = UPDATE_BYTES * cost.parameters(config, SubNetwork.full(config))
    return flops / matmul_rate(dtype) + moved / harness.memory_rate()


def agreement(config: ModelConfig, objective: StagePlan, params: Params, batch: Batch) -> list[harness.Row]:
    """The largest relative differences of losses and the gradient norm from PyTorch's in float32."""
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
    """PyTorch's loss of every student, then the norm of the gradient, `[students + 1]`."""
    return np.array([*map(float, step.losses()), step.gradient_norm()])


def our_losses(config: ModelConfig, objective: StagePlan, params: Params, batch: Batch, dtype: Dtype) -> np.ndarray:
    """The same values of our code."""
    programs, teacher = Programs(Bert(config, dtype)), place_teacher(params, dtype)
    summed = gradients(programs, Distillation(objective), devices.replicate(params), teacher, batch, jax.random.key(0))
    norm = optax.tree.norm(jax.tree.map(lambda g: np.asarray(g).sum(0), summed.grads))
    return np.array([*(float(np.sum(losses.total)) for losses in summed.losses.values()), float(norm)])


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
