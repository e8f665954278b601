"""The losses of each kind of head, one value per example. The caller takes the mean over examples.

Letters in shapes: B examples, S tokens, H hidden size, C labels.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from dynabert_jax.config.tasks import Kind
from dynabert_jax.data.batches import Array


def task_loss(kind: Kind, logits: jax.Array, labels: Array) -> jax.Array:
    """The loss on the labels, `[B]`.

    Classification: cross-entropy with labels `[B]` of integers. Regression: squared error of the single output with
    labels `[B]` of floats. Source: `BertForSequenceClassification.forward` of the reference.
    """
    return _TASK_LOSSES[kind](logits, labels)


def prediction_loss(kind: Kind, student: jax.Array, teacher: jax.Array) -> jax.Array:
    """L_pred: how far a student's logits `[B, C]` are from the teacher's `[B, C]`; returns `[B]`.

    Classification: cross-entropy under the teacher's soft labels. Regression: mean squared error between the outputs.
    Source: the paper, section 2.1; `soft_cross_entropy` in the reference's `run_glue.py` (where regression has no such
    loss).
    """
    return _PREDICTION_LOSSES[kind](student, teacher)


def hidden_loss(student: Sequence[jax.Array], teacher: Sequence[jax.Array]) -> jax.Array:
    """L_hidden (with L_emb): mean squared error over tokens and hidden size, summed over the matched states.

    Padding counts, as in the reference. Both sequences hold `[B, S, H]`, the embedding output first; returns `[B]`.
    Source: the paper, sections 2.1 and 2.2.
    """
    if len(student) != len(teacher):
        raise ValueError(
            f"{len(student)} hidden states of the student cannot be matched with {len(teacher)} of the teacher"
        )
    errors = [optax.squared_error(s, t).mean((1, 2)) for s, t in zip(student, teacher, strict=True)]
    return jnp.sum(jnp.stack(errors), axis=0)


def _soft_cross_entropy(student: jax.Array, teacher: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy(student, jax.nn.softmax(teacher))


def _squared_error(logits: jax.Array, labels: Array) -> jax.Array:
    return optax.squared_error(logits[:, 0], labels)


def _mean_squared_error(student: jax.Array, teacher: jax.Array) -> jax.Array:
    return optax.squared_error(student, teacher).mean(-1)


_TASK_LOSSES: Mapping[Kind, Callable[[jax.Array, Array], jax.Array]] = {
    "classification": optax.softmax_cross_entropy_with_integer_labels,
    "regression": _squared_error,
}
_PREDICTION_LOSSES: Mapping[Kind, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "classification": _soft_cross_entropy,
    "regression": _mean_squared_error,
}
