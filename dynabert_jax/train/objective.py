"""`Objective`: what the training loop needs from a stage. DynaBERT's own stages are in `distillation.py`.

A new stage is a subclass in its own file, named in `run.py`; the loop and the step stay as they are.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import struct

from dynabert_jax.data.batches import Batch
from dynabert_jax.data.encode import Split
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.params import Params, Path
from dynabert_jax.plan import StagePlan
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.train.context import Context


class Losses(Protocol):
    """One student's mean losses over the batch, by name; `total` is what is minimised. A dataclass that is a pytree."""

    @property
    def total(self) -> jax.Array: ...


@struct.dataclass
class StepReport:
    """The numbers of one training step. They stay on the devices until they are read.

    Attributes:
        losses: of each student, in order: means over the global batch.
        grad_norm: of all students' gradients together, before clipping.
        learning_rate: of this step.
        finite: whether the losses' totals and the norm are finite.
    """

    losses: tuple[Losses, ...]
    grad_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array


@dataclasses.dataclass(frozen=True)
class Objective(ABC):
    """How one stage learns.

    `targets`, `loss` and `trains` belong to the class, not to the instance: they are compiled in, and stages of one
    class share their programs. What differs between stages is in `terms`, which the programs take as arguments.

    Attributes:
        stage: the students, grouped by their teacher, with the stage's settings.
    """

    stage: StagePlan

    @property
    @abstractmethod
    def terms(self) -> Any:
        """A pytree of numbers that weight the loss."""

    @staticmethod
    @abstractmethod
    def targets(model: Bert, params: Params, batch: Batch, teacher: SubNetwork) -> Any:
        """What students learn from a teacher: a pytree of arrays `[B, ...]`."""

    @staticmethod
    @abstractmethod
    def loss(
        model: Bert, params: Params, batch: Batch, targets: Any, terms: Any, keys: jax.Array,
        family: tuple[SubNetwork, ...],
    ) -> tuple[jax.Array, tuple[Losses, ...]]:  # fmt: skip
        """The sum of the losses of students that run together, and each student's losses.

        Args:
            batch: whose weights sum to 1 over the whole (global) batch.
            targets: the result of `targets`; None if the students have no teacher.
            keys: `[B]`, one for each example's dropout.
        """

    @staticmethod
    def trains(path: Path) -> bool:  # noqa: ARG004
        """Whether the parameter at this path is trained; all others stay the same, bit for bit."""
        return True

    def examples(self, context: Context, epoch: int) -> Split:  # noqa: ARG002
        """The examples of an epoch: the same number in every epoch, and the same examples when a run resumes."""
        return context.examples(self.stage)

    def steps_per_epoch(self, context: Context) -> int:
        return -(-len(self.examples(context, 0)) // context.config.data.batch_size)

    def logged(self, report: StepReport) -> Mapping[str, float]:  # noqa: ARG002
        """Additional values for a line of the training log, by name."""
        return {}
