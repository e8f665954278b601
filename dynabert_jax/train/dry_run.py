"""A dry run: what a run would do and how long that would take, without writing anything."""

import dataclasses
import time
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from dynabert_jax import cost
from dynabert_jax.cost import size
from dynabert_jax.data.batches import plan_evaluation
from dynabert_jax.data.encode import Split
from dynabert_jax.evaluate.table import markdown
from dynabert_jax.model.params import Params
from dynabert_jax.plan import results_of
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.system.memory import peak_memory
from dynabert_jax.system.progress import Progress, progress
from dynabert_jax.train.context import Context, evaluation_steps
from dynabert_jax.train.importance import importance_plan
from dynabert_jax.train.objective import Objective
from dynabert_jax.train.preflight import disk_needed, understood
from dynabert_jax.train.step import init_state, make_update, place_teacher, programs_for, train_step, training_flops
from dynabert_jax.train.step_order import batch_of, steps_from

MEASURED = 3  # steps, after the one that compiles


@dataclasses.dataclass(frozen=True)
class Tried:
    """What is known about a stage after a few of its steps.

    Attributes:
        steps: that the stage would take.
        first_step: seconds of the first step, including compilation.
        step: seconds of a later step, the mean over the batches.
        total: seconds, including evaluations and compilation for every length.
        second_per_flop: of its steps.
    """

    name: str
    students: int
    steps: int
    first_step: float
    step: float
    total: float
    second_per_flop: float


@dataclasses.dataclass(frozen=True)
class DryRun:
    """A description of a run: its stages, how long each would take, and what the run needs."""

    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def try_out(context: Context, objectives: Sequence[Objective], params: Params) -> DryRun:
    """Runs a few steps of every stage, and writes nothing."""
    steps = len(objectives) * (1 + MEASURED)
    with progress("dry run", steps, "steps", is_shown=devices.is_first()) as bar:
        tried = [try_stage(context, objective, params, bar) for objective in objectives]
    return DryRun(tuple(described(context, tried)))


def try_stage(context: Context, objective: Objective, params: Params, bar: Progress) -> Tried:
    """Times steps with the first weights, and scales the time to all batches by the FLOPs of their matmuls."""
    bar.set_description(f"dry run, {objective.stage.name}")
    bar.set_postfix_str("compiling")
    per_epoch, config, stage = objective.steps_per_epoch(context), context.config, objective.stage
    total = stage.settings.epochs * per_epoch
    update, state = make_update(objective, total), init_state(objective, params, total)
    teacher = place_teacher(params, config.dtype) if stage.has_teacher else None
    steps = list(steps_from(context, objective, 0))
    planned = [step.planned for step in steps]
    longest = max(steps, key=lambda step: (step.planned.length, len(step.planned.rows)))
    seconds = []
    for _ in range(1 + MEASURED):
        start = time.perf_counter()
        state, report = train_step(
            programs_for(context.model), update, objective, state, teacher, batch_of(context, longest),
            jax.random.key(0, impl="threefry2x32"), config.gradient_accumulation,
        )  # fmt: skip
        jax.block_until_ready(report)
        seconds.append(time.perf_counter() - start)
        bar.set_postfix_str("", refresh=False)
        bar.update()
    measured, shape = float(np.median(seconds[1:])), context.model.config
    second_per_flop = measured / training_flops(shape, stage, longest.planned)
    training = second_per_flop * sum(training_flops(shape, stage, one) for one in planned)
    evaluations = len(evaluation_steps(stage.settings, per_epoch))
    evaluating = second_per_flop * evaluations * scoring_flops(context, stage.students, context.data.dev.values())
    compiling = (seconds[0] - measured) * len({one.length for one in planned})
    return Tried(
        stage.name, len(stage.students), total, seconds[0], training / total,
        compiling + training + evaluating, second_per_flop,
    )  # fmt: skip


def scoring_flops(context: Context, subs: Sequence[SubNetwork], splits: Iterable[Split]) -> int:
    """FLOPs of the forward passes that score sub-networks on splits."""
    data, shape = context.config.data, context.model.config
    return sum(
        len(planned.rows) * cost.flops(shape, sub, planned.length)
        for split in splits
        for planned in plan_evaluation(split, data.eval_batch_size, data.lengths)
        for sub in subs
    )


def seconds_between(context: Context, tried: Sequence[Tried]) -> dict[str, float]:
    """Estimated seconds of the work outside the stages, by name, from its FLOPs and the speed of a stage."""
    if not tried:
        return {}
    config, plan, data, shape = context.config, context.plan, context.data, context.model.config
    scored = scoring_flops(context, results_of(shape, plan), [*data.dev.values(), *data.test.values()])
    seconds = {"the final scores": tried[-1].second_per_flop * scored}
    if plan.width and config.importance:
        planned, full = importance_plan(context, config.importance), SubNetwork.full(shape)
        forward = sum(len(one.rows) * cost.flops(shape, full, one.length) for one in planned)
        seconds["importance"] = tried[0].second_per_flop * 3 * forward  # two backward matmuls for each forward one
    return seconds


def described(context: Context, tried: Sequence[Tried]) -> list[str]:
    """The plan as text, line by line."""
    config, plan, data, shape = context.config, context.plan, context.data, context.model.config
    full = SubNetwork.full(shape)
    counts = ", ".join(f"{len(split)} {split.name}" for split in data.splits)
    between = seconds_between(context, tried)
    stages = [
        (
            one.name,
            str(one.students),
            str(one.steps),
            f"{one.first_step:.1f} s",
            f"{1000 * one.step:.0f} ms",
            spoken(one.total),
        )
        for one in tried
    ]
    networks = [
        (sub.name, size(cost.parameters(shape, sub)), size(cost.flops(shape, sub, config.data.max_length)))
        for sub in (plan.stages[-1].students if plan.stages else ())
    ]
    others = "".join(f", {name} ({spoken(seconds)})" for name, seconds in between.items())
    return [
        f"data: {counts} examples; batches of {config.data.batch_size}, up to {config.data.max_length} tokens",
        *understood(context.pretrained, data).lines,
        *context.chosen,
        f"devices: {devices.num_devices()} x {jax.devices()[0].device_kind}, {config.dtype}",
        "",
        markdown(("stage", "sub-networks", "steps", "first step", "step", "about"), stages),
        "",
        markdown(("sub-network", "parameters", "FLOPs"), networks),
        "",
        f"in total about {spoken(sum(one.total for one in tried) + sum(between.values()))} from the start: the "
        f"stages with their evaluations{others}; compilation for the evaluations is not included",
        f"memory: peak of {peak_memory() / 2**30:.1f} GiB so far",
        f"disk: {disk_needed(config, 4 * cost.parameters(shape, full)) / 2**30:.1f} GiB for checkpoints",
        f"nothing was written to {context.folder.path}",
    ]


def spoken(seconds: float) -> str:
    """2 h 05 min, 3 min 20 s, 12 s."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds) % 60:02d} s" if minutes else f"{seconds:.0f} s"
