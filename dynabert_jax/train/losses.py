"""The losses, one value an example; means over examples are taken where the examples' weights are known.

Letters in shapes: B examples, S tokens, H hidden size, C labels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

Array = jax.Array | np.ndarray


def task_loss(logits: jax.Array, labels: Array) -> jax.Array:
    """Cross-entropy with labels `[B]` of integers; squared error where there is one output, labels `[B]` of floats.

    Returns `[B]`. Source: `BertForSequenceClassification.forward` of the reference.
    """
    if logits.shape[-1] == 1:
        return optax.squared_error(logits[:, 0], labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def prediction_loss(student: jax.Array, teacher: jax.Array) -> jax.Array:
    """L_pred: cross-entropy of the student's logits `[B, C]` under the teacher's soft labels `[B, C]`; returns `[B]`.

    With one output, the mean squared error between the outputs. Source: the paper, section 2.1; `soft_cross_entropy`
    in the reference's `run_glue.py` (where regression has no such loss).
    """
    if student.shape[-1] == 1:
        return optax.squared_error(student, teacher).mean(-1)
    return optax.softmax_cross_entropy(student, jax.nn.softmax(teacher))


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
