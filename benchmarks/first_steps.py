"""The first step of every stage, including compilation; `depth_step.py` runs this.

python -m benchmarks.first_steps prints, as JSON, the seconds of the first and of the second step of every stage of a
default run at one batch shape. The difference between the two is compilation.
"""

import dataclasses
import json
from collections.abc import Callable

import jax
import tyro

from benchmarks import harness
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.config.complete import CompleteData, CompleteRun
from dynabert_jax.config.tasks import task
from dynabert_jax.data.batches import Batch
from dynabert_jax.model.bert import Bert
from dynabert_jax.plan import Plan, StagePlan, plan_run
from dynabert_jax.system import devices
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.importance import importance
from dynabert_jax.train.step import Programs, init_state, make_update, place_teacher, train_step
from dynabert_jax.weights.files import Params
from dynabert_jax.weights.names import init_params

TOTAL_STEPS = 10_000  # of the schedule; more than are run


@dataclasses.dataclass(frozen=True)
class Settings:
    """The batch shape."""

    length: int = 128
    batch: int = 32
    dtype: Dtype = "float32"


def main(settings: Settings) -> None:
    """Times every stage's first and second step, in the order of a run."""
    config = harness.minilm()
    model, params = Bert(config, settings.dtype), init_params(config, seed=0)
    batch = harness.random_batch(config, settings.batch, settings.length)
    programs = Programs(model)
    jax.block_until_ready(devices.replicate(0.0))  # starts the devices, which is not part of a stage

    def score() -> None:
        jax.block_until_ready(importance(model, params, [batch]))

    stages_of: dict[str, Callable[[], None]] = {}
    for objective in default_plan(config).stages:
        stages_of[objective.name] = stage_steps(programs, objective, params, batch)
        if objective.name == "fine_tune":
            stages_of["importance"] = score
    print(json.dumps({name: [harness.timed(step), harness.timed(step)] for name, step in stages_of.items()}))


def default_plan(config: ModelConfig) -> Plan:
    return plan_run(config, CompleteRun(model="any", run_dir="none", data=CompleteData(task=task("sst2"))))


def stage_steps(programs: Programs, objective: StagePlan, params: Params, batch: Batch) -> Callable[[], None]:
    """Starts a stage and takes one step. A second call does the same with everything compiled."""
    update = make_update(Distillation(objective), TOTAL_STEPS)

    def run() -> None:
        state = init_state(Distillation(objective), params, TOTAL_STEPS)
        teacher = place_teacher(params, programs.model.dtype)
        state, _ = train_step(programs, update, Distillation(objective), state, teacher, batch, jax.random.key(0))
        jax.block_until_ready(state)

    return run


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
