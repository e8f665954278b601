"""What a stage trains, against which teacher, and the training step that all stages share.

A stage is a value: which students learn, from which teacher, with which loss weights. The step runs the teacher once
a batch and width, adds up the gradients of all students, and updates once (algorithm 1 of the paper).
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from dynabert_jax import cost, losses, parallel
from dynabert_jax.batches import Batch, PlannedBatch, take
from dynabert_jax.bert import Bert, Outputs
from dynabert_jax.checked import ConfigError
from dynabert_jax.config import (
    DepthStage,
    Distillation,
    Dtype,
    FinalStage,
    FineTune,
    ModelConfig,
    RunConfig,
    Stage,
    WidthStage,
)
from dynabert_jax.optim import adamw, linear_schedule
from dynabert_jax.parts import count_parts
from dynabert_jax.products import rounded_kernels
from dynabert_jax.subnetwork import SubNetwork, families_of, uniform_grid

Params = Any


@dataclasses.dataclass(frozen=True)
class Group:
    """Students that share one teacher's outputs; without a teacher they learn from the labels alone."""

    teacher: SubNetwork | None
    students: tuple[SubNetwork, ...]

    @property
    def families(self) -> tuple[tuple[SubNetwork, ...], ...]:
        """The students that run as one program together: those that begin with the same part of a layer."""
        return families_of(self.students)


@struct.dataclass
class LossWeights:
    """Factors of the three parts of a student's loss."""

    logit: float
    hidden: float
    label: float


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a stage trains.

    Attributes:
        name: the stage's folder and its name in logs.
        settings: epochs, optimizer, what is kept.
        groups: the students, grouped by their teacher.
        weights: of the losses.
    """

    name: str
    settings: Stage
    groups: tuple[Group, ...]
    weights: LossWeights

    @property
    def number(self) -> int:
        """A number of its own for every stage, which its random numbers start from."""
        return zlib.crc32(self.name.encode())

    @property
    def has_teacher(self) -> bool:
        return any(group.teacher for group in self.groups)

    @property
    def students(self) -> tuple[SubNetwork, ...]:
        return tuple(student for group in self.groups for student in group.students)


LABELS_ONLY = LossWeights(logit=0.0, hidden=0.0, label=1.0)


def fine_tune(config: ModelConfig, settings: FineTune) -> Objective:
    """The full network learns the labels."""
    return Objective("fine_tune", settings, (Group(None, (SubNetwork.full(config),)),), LABELS_ONLY)


def width(config: ModelConfig, settings: WidthStage) -> Objective:
    """Every width at full depth learns from the full fine-tuned network."""
    students = uniform_grid(config, settings.widths, (1.0,))
    return _distil("width", config, settings, (Group(SubNetwork.full(config), students),))


def depth(config: ModelConfig, settings: DepthStage) -> Objective:
    """Every width and depth learns from the width stage's network, at its own width or the full one."""
    students = uniform_grid(config, settings.widths, settings.depths)
    if settings.teacher_width == "full":
        return _distil("depth", config, settings, (Group(SubNetwork.full(config), students),))
    groups = tuple(
        Group(SubNetwork.uniform(config, width, 1.0), tuple(s for s in students if s.width == width))
        for width in sorted(set(settings.widths), reverse=True)
    )
    return _distil("depth", config, settings, tuple(group for group in groups if group.students))


def final(config: ModelConfig, settings: FinalStage) -> Objective:
    """Every width and depth learns the labels."""
    students = uniform_grid(config, settings.widths, settings.depths)
    return Objective("final", settings, (Group(None, students),), LABELS_ONLY)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The stages of a run; None where the run leaves one out."""

    fine_tune: Objective | None
    width: Objective | None
    depth: Objective | None
    final: Objective | None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The stages there are, in their order."""
        return tuple(stage for stage in (self.fine_tune, self.width, self.depth, self.final) if stage)


def plan(config: ModelConfig, run: RunConfig) -> Plan:
    """What the run's stages train, for a model of this shape.

    Raises:
        ConfigError: a width or depth would keep no head or no layer.
    """
    try:
        return Plan(
            fine_tune=fine_tune(config, run.fine_tune) if run.fine_tune else None,
            width=width(config, run.width) if run.width else None,
            depth=depth(config, run.depth) if run.depth else None,
            final=final(config, run.final) if run.final else None,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def results_of(config: ModelConfig, plan: Plan) -> tuple[SubNetwork, ...]:
    """The sub-networks that a run ends with: its last stage's students, or the full network where nothing trains."""
    return plan.objectives[-1].students if plan.objectives else (SubNetwork.full(config),)


def _distil(name: str, config: ModelConfig, settings: Distillation, groups: tuple[Group, ...]) -> Objective:
    without_logits = config.is_regression and not settings.distil_regression
    logit_weight = 0.0 if without_logits else settings.logit_weight
    if logit_weight == settings.hidden_weight == 0.0:
        groups = tuple(Group(None, group.students) for group in groups)
    return Objective(name, settings, groups, LossWeights(logit_weight, settings.hidden_weight, settings.label_weight))


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
        batch.input_ids,
        batch.attention_mask,
        batch.token_type_ids,
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
        self.zeros = parallel.data_parallel(
            lambda params, _: jax.tree.map(jnp.zeros_like, params), in_axes=(None, 0), out_axes=0
        )
        self.teach = parallel.data_parallel(self._teach, in_axes=(None, 0, None), out_axes=0, static=2)
        self.accumulate = parallel.data_parallel(
            self._accumulate, in_axes=(None, 0, 0, 0, 0, None, None, None), out_axes=0, static=7, donate=(1,)
        )

    def _teach(self, params: Params, batch: Batch, teacher: SubNetwork) -> Targets:
        outputs = self.model.apply(
            {"params": params}, batch.input_ids, batch.attention_mask, batch.token_type_ids, teacher
        )
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
        grads, losses = parallel.summed((grads, losses))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        norm, rate = optax.tree.norm(grads), schedule(state.step)
        finite = jnp.isfinite(jnp.stack([norm, *(loss.total for loss in losses)])).all()
        moved = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
        return moved, StepReport(losses, norm, rate, finite)

    return parallel.data_parallel(update, in_axes=(None, 0, 0), out_axes=None, donate=(0,))


def init_state(objective: Objective, params: Params, total_steps: int) -> TrainState:
    """A stage's first state, on all devices."""
    # A copy: training reuses the state's memory, and the teacher may be made of the same arrays.
    params = jax.tree.map(np.array, params)
    optimizer = adamw(objective.settings.optimizer, total_steps)
    return parallel.replicate(TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)))


def place_teacher(params: Params, dtype: Dtype) -> Params:
    """What a stage's teachers run with, on all devices."""
    return parallel.replicate(rounded_kernels(params, dtype))


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


@dataclasses.dataclass(frozen=True)
class MicroBatch:
    """What is computed at once of a batch, on this host's D devices.

    Attributes:
        batch: `[D, B / (all devices * parts), ...]`; the weights of all parts on all devices sum to 1.
        rows: of each of its examples the number in the global batch, `[D, B / (all devices * parts)]`.
    """

    batch: Batch
    rows: np.ndarray


def micro_batches(batch: Batch, at_least: int = 1) -> Iterator[MicroBatch]:
    """The equal parts, at least so many, of a global batch on the host, `[B, ...]`."""
    batch = dataclasses.replace(batch, weights=batch.weights / batch.weights.sum())
    examples, length = batch.input_ids.shape
    parts = count_parts(examples // parallel.num_devices(), length, at_least)
    for rows in np.split(np.arange(examples), parts):
        yield MicroBatch(batch=parallel.split(take(batch, rows)), rows=parallel.split(rows))


def train_step(
    programs: Programs, update: Update, objective: Objective, state: TrainState, teacher: Params | None, batch: Batch,
    key: jax.Array, parts_at_least: int = 1,
) -> tuple[TrainState, StepReport]:  # fmt: skip
    """One batch: the gradients of all students are added up, and the parameters move once."""
    summed = gradients(programs, objective, state.params, teacher, batch, key, parts_at_least)
    return update(state, summed.grads, tuple(summed.losses.values()))
