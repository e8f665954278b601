"""Whether two runs have ended alike: what an interruption must not change."""

from pathlib import Path
from typing import Any

import jax

from dynabert_jax.config import RunConfig
from dynabert_jax.plan import plan_run
from dynabert_jax.train.checkpoint import Checkpoints
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.step import TrainState, init_state
from dynabert_jax.weights.files import load_model
from tiny import Params
from tiny_run import STEPS, assert_equal_trees, lines

NOT_REPEATED = ("time", "examples_per_second", "flops_utilization")


def assert_same_runs(left: RunConfig, right: RunConfig) -> None:
    """The same logs, every stage's last state and what it handed on, and the same model."""
    assert logs_of(Path(left.run_dir)) == logs_of(Path(right.run_dir))
    for stage in left.stages:
        assert_equal_trees(last_state(left, stage), last_state(right, stage))
        assert_equal_trees(kept_params(left, stage), kept_params(right, stage))
    models = [load_model(Path(run.run_dir) / "model") for run in (left, right)]
    assert_equal_trees(models[0].params, models[1].params)


def logs_of(folder: Path) -> list[dict[str, Any]]:
    logged = lines(folder / "training.jsonl") + lines(folder / "evaluations.jsonl")
    return [{name: value for name, value in line.items() if name not in NOT_REPEATED} for line in logged]


def last_state(config: RunConfig, stage: str) -> TrainState:
    like = first_state(config, stage)
    with Checkpoints(Path(config.run_dir) / stage / "last") as checkpoints:
        saved = checkpoints.restore(like)
    assert saved is not None
    assert saved.step == int(saved.tree.step) == STEPS
    return jax.device_get(saved.tree)


def kept_params(config: RunConfig, stage: str) -> Params:
    """What a stage hands on, as its checkpoints have it."""
    if config.stages[stage].keep == "last":
        return last_state(config, stage).params
    with Checkpoints(Path(config.run_dir) / stage / "best") as checkpoints:
        saved = checkpoints.restore({"params": first_state(config, stage).params})
    assert saved is not None
    return jax.device_get(saved.tree["params"])


def first_state(config: RunConfig, stage: str) -> TrainState:
    model = load_model(Path(config.run_dir) / "model")
    objective = {o.name: o for o in plan_run(model.config, config).stages}[stage]
    return init_state(Distillation(objective), model.params, STEPS)
