"""The training step that all stages share, compiled.

It gets targets and losses from an `Objective`, runs each teacher once per batch for all of its students, sums the
gradients of all students, and updates once (algorithm 1 of the paper).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from dynabert_jax import cost
from dynabert_jax.config.checked import Dtype
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.data.batches import Batch, PlannedBatch
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.matmul import rounded_kernels
from dynabert_jax.model.microbatch import micro_batches
from dynabert_jax.model.params import Params, merged, part_of
from dynabert_jax.plan import StagePlan
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.objective import Losses, Objective, StepReport
from dynabert_jax.train.optim import adamw, linear_schedule


@struct.dataclass
class TrainState:
    """The state of a stage that changes from step to step."""

    step: jax.Array
    params: Params
    opt_state: Any


def example_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """A key for each row `[B]` of the global batch, so that results do not depend on the number of devices."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


Kind = type[Objective]  # the class of an objective: what is compiled in


class Programs:
    """The compiled functions of training. Each is traced once per kind, teacher or student family, and batch shape.

    The terms of a loss are arguments, so other weights use the same program.
    """

    def __init__(self, model: Bert):
        self.model = model
        self.zeros = devices.data_parallel(
            lambda params, _: jax.tree.map(jnp.zeros_like, params), in_axes=(None, 0), out_axes=0
        )
        self.teach = devices.data_parallel(self._teach, in_axes=(None, 0, None), out_axes=0, static=2)
        self.accumulate = devices.data_parallel(
            self._accumulate, in_axes=(None, 0, 0, 0, 0, None, None, None), out_axes=0, static=7, donate=(1,)
        )

    def _teach(self, params: Params, batch: Batch, which: tuple[Kind, SubNetwork]) -> Any:
        kind, teacher = which
        return kind.targets(self.model, params, batch, teacher)

    def _accumulate(
        self, params: Params, grads: Params, batch: Batch, rows: jax.Array, targets: Any, terms: Any, key: jax.Array,
        which: tuple[Kind, tuple[SubNetwork, ...]],
    ) -> tuple[Params, tuple[Losses, ...]]:  # fmt: skip
        kind, family = which
        keys = example_keys(key, rows)

        def loss(trained: Params) -> tuple[jax.Array, tuple[Losses, ...]]:
            return kind.loss(self.model, merged(params, trained), batch, targets, terms, keys, family)

        own, found = jax.grad(loss, has_aux=True)(part_of(params, kind.trains))
        return jax.tree.map(jnp.add, grads, own), found


@functools.lru_cache(maxsize=1)
def programs_for(model: Bert) -> Programs:
    """The programs of a model, created once, because the stages of a run share them."""
    return Programs(model)


Update = Callable[[TrainState, Params, tuple[Losses, ...]], tuple[TrainState, StepReport]]


def training_flops(config: ModelConfig, stage: StagePlan, planned: PlannedBatch) -> int:
    """FLOPs of a step's matmuls: one forward pass for every teacher, and three times that for every student.

    A backward pass has two matmuls for each one of the forward pass. Padding counts, filler rows do not, and what
    students share counts once.
    """
    teachers = [(group.teacher,) for group in stage.groups if group.teacher]
    forwards = teachers + 3 * [family for group in stage.groups for family in group.families]
    return len(planned.rows) * sum(cost.flops_together(config, subs, planned.length) for subs in forwards)


def make_update(objective: Objective, total_steps: int) -> Update:
    """The optimizer step of a stage: sums gradients and losses over devices, clips, updates."""
    optimizer = adamw(objective.stage.settings.optimizer, total_steps)
    schedule = linear_schedule(objective.stage.settings.optimizer, total_steps)

    def update(state: TrainState, grads: Params, losses: tuple[Losses, ...]) -> tuple[TrainState, StepReport]:
        grads, losses = devices.summed((grads, losses))
        trained = part_of(state.params, objective.trains)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        norm, rate = optax.tree.norm(grads), schedule(state.step)
        finite = jnp.isfinite(jnp.stack([norm, *(loss.total for loss in losses)])).all()
        params = merged(state.params, optax.apply_updates(trained, updates))
        moved = TrainState(state.step + 1, params, opt_state)
        return moved, StepReport(losses, norm, rate, finite)

    return devices.data_parallel(update, in_axes=(None, 0, 0), out_axes=None, donate=(0,))


def init_state(objective: Objective, params: Params, total_steps: int) -> TrainState:
    """A stage's first state, on all devices."""
    # A copy: training reuses the state's memory, and the teacher may use the same arrays.
    params = jax.tree.map(np.array, params)
    optimizer = adamw(objective.stage.settings.optimizer, total_steps)
    return devices.replicate(
        TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(part_of(params, objective.trains)))
    )


def place_teacher(params: Params, dtype: Dtype) -> Params:
    """The weights of a stage's teachers, on all devices."""
    return devices.replicate(rounded_kernels(params, dtype))


@dataclasses.dataclass(frozen=True)
class Summed:
    """Gradients summed over the students, `[devices, *shape of the parameter]`, and each student's losses."""

    grads: Params
    losses: dict[SubNetwork, Losses]


def gradients(
    programs: Programs, objective: Objective, params: Params, teacher: Params | None, batch: Batch, key: jax.Array,
    microbatches_at_least: int = 1,
) -> Summed:  # fmt: skip
    """Each teacher answers once; every student adds its gradient.

    Args:
        params: on all devices.
        teacher: the result of `place_teacher`; None if there are no teachers.
        batch: the global batch on the host, `[B, ...]`; rows of weight 0 do not count.
        key: of this step; every family of students draws its own dropout.
        microbatches_at_least: the least number of microbatches: more need less memory and give the same sums.
    """
    kind, stage = type(objective), objective.stage
    each = [family for group in stage.groups for family in group.families]
    keys = dict(zip(each, jax.random.split(key, len(each)), strict=True))
    grads = programs.zeros(part_of(params, kind.trains), np.arange(jax.local_device_count()))
    found: dict[SubNetwork, Losses] = {}
    for part in micro_batches(batch, microbatches_at_least):
        for group in stage.groups:
            targets = None if group.teacher is None else programs.teach(teacher, part.batch, (kind, group.teacher))
            for family in group.families:
                grads, own = programs.accumulate(
                    params, grads, part.batch, part.rows, targets, objective.terms, keys[family], (kind, family)
                )
                for student, lost in zip(family, own, strict=True):
                    found[student] = jax.tree.map(jnp.add, found[student], lost) if student in found else lost
            del targets  # frees them before the next ones are computed
    return Summed(grads, {student: found[student] for student in stage.students})


def train_step(
    programs: Programs, update: Update, objective: Objective, state: TrainState, teacher: Params | None, batch: Batch,
    key: jax.Array, microbatches_at_least: int = 1,
) -> tuple[TrainState, StepReport]:  # fmt: skip
    """Trains on one batch: sums the gradients of all students and updates the parameters once."""
    summed = gradients(programs, objective, state.params, teacher, batch, key, microbatches_at_least)
    return update(state, summed.grads, tuple(summed.losses.values()))
