"""A run tried out: what it would do, and how long that would take, without writing anything."""

import dataclasses
import time
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from tqdm import tqdm

from dynabert_jax import cost
from dynabert_jax.cost import size
from dynabert_jax.data.batches import plan_evaluation
from dynabert_jax.data.encode import Split
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.evaluate.table import markdown
from dynabert_jax.model.params import Params
from dynabert_jax.plan import Objective, Plan, results_of
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.system.memory import peak_memory
from dynabert_jax.train.context import Context, batch_of, evaluation_steps, steps_from, steps_per_epoch
from dynabert_jax.train.importance import importance_plan
from dynabert_jax.train.preflight import disk_needed
from dynabert_jax.train.step import init_state, make_update, place_teacher, train_step, training_flops

MEASURED = 3  # steps, behind the one that compiles


@dataclasses.dataclass(frozen=True)
class Rehearsed:
    """What is known of a stage after a few of its steps.

    Attributes:
        steps: that it would take.
        first_step: seconds of the first one, compiling included.
        step: seconds of one behind it, the mean over its batches.
        total: seconds, with compiling for every length and the evaluations.
        second_per_flop: of its steps.
    """

    name: str
    students: int
    steps: int
    first_step: float
    step: float
    total: float
    second_per_flop: float


def rehearse(context: Context, plan: Plan, params: Params) -> list[Row]:
    """Takes a few steps of every stage, prints the plan of the run, and returns no scores."""
    rehearsed = []
    for objective in tqdm(plan.objectives, desc="dry run", unit=" stages", disable=not devices.is_first()):
        rehearsed.append(rehearse_stage(context, objective, params))
    if devices.is_first():
        print("\n".join(described(context, plan, rehearsed)))
    return []


def rehearse_stage(context: Context, objective: Objective, params: Params) -> Rehearsed:
    """Steps with the first weights; their time goes by the products of a batch, and so does the estimate."""
    per_epoch, config = steps_per_epoch(context), context.config
    total = objective.settings.epochs * per_epoch
    update, state = make_update(objective, total), init_state(objective, params, total)
    teacher = place_teacher(params, config.dtype) if objective.has_teacher else None
    planned = [one for _, one in steps_from(context, objective, 0)]
    longest = max(planned, key=lambda one: (one.length, len(one.rows)))
    seconds = []
    for _ in range(1 + MEASURED):
        start = time.perf_counter()
        state, report = train_step(
            context.programs, update, objective, state, teacher, batch_of(context, longest), jax.random.key(0),
            config.gradient_accumulation,
        )  # fmt: skip
        jax.block_until_ready(report)
        seconds.append(time.perf_counter() - start)
    measured = float(np.median(seconds[1:]))
    second_per_flop = measured / training_flops(context.model.config, objective, longest)
    training = second_per_flop * sum(training_flops(context.model.config, objective, one) for one in planned)
    evaluations = len(evaluation_steps(objective.settings, per_epoch))
    evaluating = second_per_flop * evaluations * scoring_flops(context, objective.students, context.data.dev.values())
    compiling = (seconds[0] - measured) * len({one.length for one in planned})
    return Rehearsed(
        objective.name, len(objective.students), total, seconds[0], training / total,
        compiling + training + evaluating, second_per_flop,
    )  # fmt: skip


def scoring_flops(context: Context, subs: Sequence[SubNetwork], splits: Iterable[Split]) -> int:
    """Of the forward passes that score sub-networks on splits."""
    data, shape = context.config.data, context.model.config
    return sum(
        len(planned.rows) * cost.flops(shape, sub, planned.length)
        for split in splits
        for planned in plan_evaluation(split, data.eval_batch_size, data.lengths)
        for sub in subs
    )


def seconds_between(context: Context, plan: Plan, rehearsed: Sequence[Rehearsed]) -> dict[str, float]:
    """What a run does beside its stages, by name: estimates that go by the products, as fast as a stage has them."""
    if not rehearsed:
        return {}
    config, data, shape = context.config, context.data, context.model.config
    scored = scoring_flops(context, results_of(shape, plan), [*data.dev.values(), *data.test.values()])
    seconds = {"the final scores": rehearsed[-1].second_per_flop * scored}
    if plan.width and config.importance:
        planned, full = importance_plan(context, config.importance), SubNetwork.full(shape)
        forward = sum(len(one.rows) * cost.flops(shape, full, one.length) for one in planned)
        seconds["importance"] = rehearsed[0].second_per_flop * 3 * forward  # two products backwards for each one
    return seconds


def described(context: Context, plan: Plan, rehearsed: list[Rehearsed]) -> list[str]:
    """The plan in words, line by line."""
    config, data, shape = context.config, context.data, context.model.config
    full = SubNetwork.full(shape)
    splits = {"train": data.train, **data.dev, **data.test}
    counts = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    between = seconds_between(context, plan, rehearsed)
    stages = [
        (
            one.name,
            str(one.students),
            str(one.steps),
            f"{one.first_step:.1f} s",
            f"{1000 * one.step:.0f} ms",
            spoken(one.total),
        )
        for one in rehearsed
    ]
    networks = [
        (sub.name, size(cost.parameters(shape, sub)), size(cost.flops(shape, sub, config.data.max_length)))
        for sub in (plan.objectives[-1].students if plan.objectives else ())
    ]
    told = "".join(f", {name} ({spoken(seconds)})" for name, seconds in between.items())
    return [
        "",
        f"data: {counts} examples; batches of {config.data.batch_size}, up to {config.data.max_length} tokens",
        f"devices: {devices.num_devices()} x {jax.devices()[0].device_kind}, {config.dtype}",
        "",
        markdown(("stage", "sub-networks", "steps", "first step", "step", "about"), stages),
        "",
        markdown(("sub-network", "parameters", "FLOPs"), networks),
        "",
        f"in all about {spoken(sum(one.total for one in rehearsed) + sum(between.values()))} from the beginning: the "
        f"stages with their evaluations{told}; without compiling what evaluates",
        f"memory: {peak_memory() / 2**30:.1f} GiB at most so far",
        f"disk: {disk_needed(config, 4 * cost.parameters(shape, full)) / 2**30:.1f} GiB for checkpoints",
        f"nothing was written to {context.folder.path}",
    ]


def spoken(seconds: float) -> str:
    """2 h 05 min, 3 min 20 s, 12 s."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {int(seconds) % 60:02d} s" if minutes else f"{seconds:.0f} s"
