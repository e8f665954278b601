"""The steps of a stage: a function of seed, stage and step, so that a run that resumes takes the same ones."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dynabert_jax.data.batches import Batch, PlannedBatch, make_batch, plan_epoch
from dynabert_jax.data.encode import Split
from dynabert_jax.train.context import Context
from dynabert_jax.train.objective import Objective


class PlannedStep(NamedTuple):
    """A step to take: its number, counted from 0, the examples of its epoch, and the rows of its batch."""

    number: int
    examples: Split
    planned: PlannedBatch


def steps_from(context: Context, objective: Objective, first: int) -> Iterator[PlannedStep]:
    """All steps from number `first`."""
    stage, per_epoch = objective.stage, objective.steps_per_epoch(context)
    for epoch in range(first // per_epoch, stage.settings.epochs):
        examples = objective.examples(context, epoch)
        plan = _plan(context, objective, epoch, examples)
        if len(plan) != per_epoch:
            raise ValueError(
                f"stage {stage.name} has {len(plan)} batches in epoch {epoch} instead of {per_epoch}: an objective's "
                f"examples must be as many in every epoch"
            )
        for number, planned in enumerate(plan, epoch * per_epoch):
            if number >= first:
                yield PlannedStep(number, examples, planned)


def examples_before(context: Context, objective: Objective, first: int) -> int:
    """How many examples the steps before number `first` have; one batch of an epoch, anywhere in it, may be smaller."""
    epoch, rest = divmod(first, objective.steps_per_epoch(context))
    examples = objective.examples(context, epoch if rest else 0)
    begun = _plan(context, objective, epoch, examples)[:rest] if rest else ()
    return epoch * len(examples) + sum(len(planned.rows) for planned in begun)


def _plan(context: Context, objective: Objective, epoch: int, examples: Split) -> Sequence[PlannedBatch]:
    config, stage = context.config, objective.stage
    seed = [config.seed, stage.number, epoch]
    return plan_epoch(examples, config.data.batch_size, config.data.lengths, seed)


def batch_of(context: Context, step: PlannedStep) -> Batch:
    """The rows of the global batch; `devices.shard` gives this host its own."""
    size, pad = context.config.data.batch_size, context.model.config.pad_token_id
    return make_batch(step.examples, step.planned, size, pad)
