"""How much each attention head and each neuron matters: (params, batches) -> scores.

The score is the first-order change of the loss when the head or neuron is removed (the paper, section 2.1, equation 3;
`compute_neuron_head_importance` in the reference's `run_glue.py`).
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dynabert_jax.batches import Batch, take
from dynabert_jax.bert import Bert
from dynabert_jax.losses import task_loss
from dynabert_jax.subnetwork import SubNetwork

Params = Any


@struct.dataclass
class Scores:
    """Scores, larger is more important.

    Attributes:
        heads: for each layer `[N]`.
        neurons: for each layer `[F]`.
    """

    heads: tuple[jax.Array, ...]
    neurons: tuple[jax.Array, ...]


@struct.dataclass
class Gradients:
    """Of the mean loss: with respect to the heads' gates `[layers, N]` and to the parameters."""

    gates: jax.Array
    params: Params


def importance(
    model: Bert, params: Params, batches: Iterable[Batch], gradients: Literal["per_batch", "running"] = "per_batch",
    rows_at_once: int | None = None,
) -> Scores:  # fmt: skip
    """Sums the scores over batches, dropout off.

    Args:
        model: whose full network is scored.
        params: its parameters.
        batches: at least one; rows of weight 0 do not count.
        gradients: `per_batch` scores each batch by its own gradients (the paper); `running` by the sum of all
            gradients so far (the released code, which does not zero them between batches).
        rows_at_once: a batch's gradient is summed up over parts of at most so many examples; None: taken at once.

    Raises:
        ValueError: there is no batch.
    """
    gradient = jax.jit(functools.partial(loss_gradients, model))
    scored = jax.jit(functools.partial(score, model))
    total, running, params = None, None, jax.device_put(params)
    for batch in batches:
        own = functools.reduce(_add, (gradient(params, part) for part in divided(batch, rows_at_once)))
        if gradients == "running":
            own = running = own if running is None else _add(running, own)
        scores = scored(params, own)
        total = scores if total is None else _add(total, scores)
    if total is None:
        raise ValueError("importance needs at least one batch of examples; got none")
    return total


def divided(batch: Batch, rows_at_once: int | None = None) -> Iterator[Batch]:
    """A batch in equal parts of at most so many rows, whose weights sum to 1 over all of them."""
    batch = dataclasses.replace(batch, weights=batch.weights / batch.weights.sum())
    rows = len(batch.weights)
    fitting = (parts for parts in range(1, rows + 1) if rows % parts == 0 and rows // parts <= (rows_at_once or rows))
    for part in np.split(np.arange(rows), next(fitting)):
        yield take(batch, part)


def _add(left: Any, right: Any) -> Any:
    return jax.tree.map(jnp.add, left, right)


def loss_gradients(model: Bert, params: Params, batch: Batch) -> Gradients:
    """Gradients of the loss on the labels, of which every row has its weight."""
    config = model.config

    def loss(gates: jax.Array, params: Params) -> jax.Array:
        outputs = model.apply(
            {"params": params},
            batch.input_ids,
            batch.attention_mask,
            batch.token_type_ids,
            SubNetwork.full(config),
            head_gates=gates,
        )
        return jnp.sum(task_loss(outputs.logits, batch.labels) * batch.weights)

    gates = jnp.ones((config.num_layers, max(config.heads)))
    by_gates, by_params = jax.grad(loss, argnums=(0, 1))(gates, params)
    return Gradients(by_gates, by_params)


def score(model: Bert, params: Params, gradients: Gradients) -> Scores:
    """|dL/d gate| of each head; |w dL/dw| summed over what enters a neuron, and over what leaves it."""
    heads, neurons = [], []
    for i, num_heads in enumerate(model.config.heads):
        layer, by_layer = params[f"layer_{i}"], gradients.params[f"layer_{i}"]
        up, down = (jax.tree.map(jnp.multiply, layer[name], by_layer[name]) for name in ("up", "down"))
        entering = up["kernel"].sum(0) + up["bias"]  # [F]
        leaving = down["kernel"].sum(1)  # [F]
        heads.append(jnp.abs(gradients.gates[i, :num_heads]))
        neurons.append(jnp.abs(entering) + jnp.abs(leaving))
    return Scores(tuple(heads), tuple(neurons))
