"""DynaBERT's stages: students learn from a teacher's logits and hidden states, from the labels, or from both.

Fine-tuning and the final stage are the same without a teacher. Source: the paper, sections 2.1 and 2.2.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from dynabert_jax.data.batches import Batch
from dynabert_jax.model.bert import Bert, Outputs
from dynabert_jax.model.params import Params
from dynabert_jax.plan import LossWeights
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.train import losses
from dynabert_jax.train.objective import Objective


@struct.dataclass
class Targets:
    """A teacher's answers: logits `[B, C]` and all hidden states `[B, S, H]`, the embedding output first."""

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...]


@struct.dataclass
class DistillationLosses:
    """One student's mean losses over the batch, and their weighted sum. On a device, that device's share."""

    logit: jax.Array
    hidden: jax.Array
    label: jax.Array
    total: jax.Array


class Distillation(Objective):
    """Fine-tuning, the width stage, the depth stage and the final stage."""

    @property
    def terms(self) -> LossWeights:
        return self.stage.weights

    @staticmethod
    def targets(model: Bert, params: Params, batch: Batch, teacher: SubNetwork) -> Targets:
        outputs = model.apply({"params": params}, *batch.inputs, teacher)
        return Targets(outputs.logits, outputs.hidden_states)

    @staticmethod
    def loss(
        model: Bert, params: Params, batch: Batch, targets: Any, terms: LossWeights, keys: jax.Array,
        family: tuple[SubNetwork, ...],
    ) -> tuple[jax.Array, tuple[DistillationLosses, ...]]:  # fmt: skip
        """All students of a family share one dropout mask."""
        answers = model.apply({"params": params}, *batch.inputs, family, dropout=keys, method="run_together")
        pairs = zip(family, answers, strict=True)
        found = tuple(student_losses(model, batch, targets, terms, student, outputs) for student, outputs in pairs)
        return jnp.sum(jnp.stack([lost.total for lost in found])), found


def student_losses(
    model: Bert, batch: Batch, targets: Targets | None, weights: LossWeights, student: SubNetwork, outputs: Outputs
) -> DistillationLosses:
    """One student's losses and their weighted total."""

    def mean(per_example: jax.Array) -> jax.Array:
        return jnp.sum(per_example * batch.weights)

    head = model.config.head
    label = mean(losses.task_loss(head, outputs.logits, batch.labels))
    logit = hidden = jnp.zeros(())
    if targets is not None:
        # The teacher's states that are inputs of the student's layers, and the last one (section 2.2 of the paper).
        matched = [targets.hidden_states[i] for i in (*student.layers, -1)]
        logit = mean(losses.prediction_loss(head, outputs.logits, targets.logits))
        hidden = mean(losses.hidden_loss(outputs.hidden_states, matched))
    total = weights.logit * logit + weights.hidden * hidden + weights.label * label
    return DistillationLosses(logit, hidden, label, total)
