"""What a stage trains, against which teacher, and the training step that all stages share.

A stage is a value: which students learn, from which teacher, with which loss weights. The step runs the teacher once
a batch and width, adds up the gradients of all students, and updates once (algorithm 1 of the paper).
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
from dynabert_jax.model.bert import Bert, Outputs
from dynabert_jax.model.matmul import rounded_kernels
from dynabert_jax.model.microbatch import micro_batches
from dynabert_jax.model.params import Params
from dynabert_jax.plan import LossWeights, Objective
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train import losses
from dynabert_jax.train.optim import adamw, linear_schedule


@struct.dataclass
class TrainState:
    """What a stage carries from step to step."""

    step: jax.Array
    params: Params
    opt_state: Any


@struct.dataclass
class Targets:
    """A teacher's answers: logits `[B, C]` and all hidden states `[B, S, H]`, the embedding output first."""

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...]


@struct.dataclass
class Losses:
    """One student's mean losses over the batch, and their weighted sum. On a device: that device's share of them."""

    logit: jax.Array
    hidden: jax.Array
    label: jax.Array
    total: jax.Array


@struct.dataclass
class StepReport:
    """What one training step did; the numbers stay on the devices until somebody looks.

    Attributes:
        losses: of each student, in their order: means over the global batch.
        grad_norm: of all students' gradients together, before clipping.
        learning_rate: that the step was taken with.
        finite: whether all of the above are.
    """

    losses: tuple[Losses, ...]
    grad_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array


def family_loss(
    model: Bert, params: Params, batch: Batch, targets: Targets | None, weights: LossWeights, keys: jax.Array,
    family: tuple[SubNetwork, ...],
) -> tuple[jax.Array, tuple[Losses, ...]]:  # fmt: skip
    """The sum of the weighted losses of students that run together, and each one's parts.

    Args:
        batch: whose weights sum to 1 over the whole (global) batch.
        keys: `[B]`, of each example's dropout, which drops the same for all of the family.
    """
    answers = model.apply(
        {"params": params},
        *batch.inputs,
        family,
        dropout=keys,
        method="run_together",
    )
    pairs = zip(family, answers, strict=True)
    found = tuple(student_losses(batch, targets, weights, student, outputs) for student, outputs in pairs)
    return jnp.sum(jnp.stack([lost.total for lost in found])), found


def student_losses(
    batch: Batch, targets: Targets | None, weights: LossWeights, student: SubNetwork, outputs: Outputs
) -> Losses:
    """What one student loses, in parts and in all."""

    def mean(per_example: jax.Array) -> jax.Array:
        return jnp.sum(per_example * batch.weights)

    label = mean(losses.task_loss(outputs.logits, batch.labels))
    logit = hidden = jnp.zeros(())
    if targets is not None:
        # The teacher's states that enter the student's layers, and the last one (section 2.2 of the paper).
        matched = [targets.hidden_states[i] for i in (*student.layers, -1)]
        logit = mean(losses.prediction_loss(outputs.logits, targets.logits))
        hidden = mean(losses.hidden_loss(outputs.hidden_states, matched))
    total = weights.logit * logit + weights.hidden * hidden + weights.label * label
    return Losses(logit, hidden, label, total)


def example_keys(key: jax.Array, rows: jax.Array) -> jax.Array:
    """A key for each row `[B]` of the global batch, so that the number of devices changes nothing."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)


class Programs:
    """The compiled functions of training; each is traced once a teacher or family of students, and batch shape.

    The loss weights are arguments: other weights are the same program.
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

    def _teach(self, params: Params, batch: Batch, teacher: SubNetwork) -> Targets:
        outputs = self.model.apply({"params": params}, *batch.inputs, teacher)
        return Targets(outputs.logits, outputs.hidden_states)

    def _accumulate(
        self, params: Params, grads: Params, batch: Batch, rows: jax.Array, targets: Targets | None,
        weights: LossWeights, key: jax.Array, family: tuple[SubNetwork, ...],
    ) -> tuple[Params, tuple[Losses, ...]]:  # fmt: skip
        keys = example_keys(key, rows)
        loss = functools.partial(family_loss, self.model)
        own, found = jax.grad(loss, has_aux=True)(params, batch, targets, weights, keys, family)
        return jax.tree.map(jnp.add, grads, own), found


Update = Callable[[TrainState, Params, tuple[Losses, ...]], tuple[TrainState, StepReport]]


def training_flops(config: ModelConfig, objective: Objective, planned: PlannedBatch) -> int:
    """Floating point operations of a step's products: forward once for every teacher, three times for every student.

    A backward pass has two products for each one of the forward pass. Padding counts, filler rows do not, and what
    students share counts once.
    """
    teachers = [(group.teacher,) for group in objective.groups if group.teacher]
    forwards = teachers + 3 * [family for group in objective.groups for family in group.families]
    return len(planned.rows) * sum(cost.flops_together(config, subs, planned.length) for subs in forwards)


def make_update(objective: Objective, total_steps: int) -> Update:
    """The optimizer step of a stage: sums gradients and losses over devices, clips, updates."""
    optimizer = adamw(objective.settings.optimizer, total_steps)
    schedule = linear_schedule(objective.settings.optimizer, total_steps)

    def update(state: TrainState, grads: Params, losses: tuple[Losses, ...]) -> tuple[TrainState, StepReport]:
        grads, losses = devices.summed((grads, losses))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        norm, rate = optax.tree.norm(grads), schedule(state.step)
        finite = jnp.isfinite(jnp.stack([norm, *(loss.total for loss in losses)])).all()
        moved = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
        return moved, StepReport(losses, norm, rate, finite)

    return devices.data_parallel(update, in_axes=(None, 0, 0), out_axes=None, donate=(0,))


def init_state(objective: Objective, params: Params, total_steps: int) -> TrainState:
    """A stage's first state, on all devices."""
    # A copy: training reuses the state's memory, and the teacher may be made of the same arrays.
    params = jax.tree.map(np.array, params)
    optimizer = adamw(objective.settings.optimizer, total_steps)
    return devices.replicate(TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)))


def place_teacher(params: Params, dtype: Dtype) -> Params:
    """What a stage's teachers run with, on all devices."""
    return devices.replicate(rounded_kernels(params, dtype))


@dataclasses.dataclass(frozen=True)
class Summed:
    """Gradients added up over the students, `[devices, ...]` like the parameters, and each student's losses."""

    grads: Params
    losses: dict[SubNetwork, Losses]


def gradients(
    programs: Programs, objective: Objective, params: Params, teacher: Params | None, batch: Batch, key: jax.Array,
    parts_at_least: int = 1,
) -> Summed:  # fmt: skip
    """Each teacher answers once; every student adds its gradient.

    Args:
        params: on all devices.
        teacher: that of `place_teacher`.
        batch: the global batch on the host, `[B, ...]`; rows of weight 0 do not count.
        key: of this step; every family of students draws its own dropout.
        parts_at_least: micro-batches that the batch is worked through in at least: less memory, the same sums.
    """
    each = [family for group in objective.groups for family in group.families]
    keys = dict(zip(each, jax.random.split(key, len(each)), strict=True))
    grads = programs.zeros(params, np.arange(jax.local_device_count()))
    found: dict[SubNetwork, Losses] = {}
    for part in micro_batches(batch, parts_at_least):
        for group in objective.groups:
            targets = None if group.teacher is None else programs.teach(teacher, part.batch, group.teacher)
            for family in group.families:
                grads, own = programs.accumulate(
                    params, grads, part.batch, part.rows, targets, objective.weights, keys[family], family
                )
                for student, lost in zip(family, own, strict=True):
                    found[student] = jax.tree.map(jnp.add, found[student], lost) if student in found else lost
            del targets  # before the next ones come
    return Summed(grads, {student: found[student] for student in objective.students})


def train_step(
    programs: Programs, update: Update, objective: Objective, state: TrainState, teacher: Params | None, batch: Batch,
    key: jax.Array, parts_at_least: int = 1,
) -> tuple[TrainState, StepReport]:  # fmt: skip
    """One batch: the gradients of all students are added up, and the parameters move once."""
    summed = gradients(programs, objective, state.params, teacher, batch, key, parts_at_least)
    return update(state, summed.grads, tuple(summed.losses.values()))
