"""The importance of attention heads and neurons: (params, batches) -> scores.

The score is the first-order change of the loss when the head or neuron is removed (the paper, section 2.1, equation 3;
`compute_neuron_head_importance` in the reference's `run_glue.py`).
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.config.stages import Importance
from dynabert_jax.data.batches import Batch, PlannedBatch, make_batch, plan_batch
from dynabert_jax.data.encode import Split
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.microbatch import divided
from dynabert_jax.model.params import Model, Params
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.system.progress import progress
from dynabert_jax.train.answers import answered
from dynabert_jax.train.context import Context
from dynabert_jax.train.losses import task_loss
from dynabert_jax.train.preflight import rows_of_a_device
from dynabert_jax.train.take_over import take_importance
from dynabert_jax.weights.rewire import Scores


@struct.dataclass
class Gradients:
    """Gradients of the mean loss, with respect to the heads' gates `[layers, N]` and to the parameters."""

    gates: jax.Array
    params: Params


def importance(
    model: Bert, params: Params, batches: Iterable[Batch], gradients: Literal["per_batch", "running"] = "per_batch",
    rows_at_once: int | None = None,
) -> Scores:  # fmt: skip
    """Sums the scores over batches, without dropout.

    Args:
        model: its full network is scored.
        params: its parameters.
        batches: at least one; rows of weight 0 do not count.
        gradients: `per_batch` scores each batch by its own gradients (the paper); `running` by the sum of all
            gradients so far (the released code, which does not zero them between batches).
        rows_at_once: the largest microbatch that a batch's gradient is summed over; None: the whole batch.

    Raises:
        ValueError: there are no batches.
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


def _add(left: Any, right: Any) -> Any:
    return jax.tree.map(jnp.add, left, right)


def loss_gradients(model: Bert, params: Params, batch: Batch) -> Gradients:
    """Gradients of the loss on the labels, each row multiplied by its weight."""
    config = model.config

    def loss(gates: jax.Array, params: Params) -> jax.Array:
        outputs = model.apply(
            {"params": params},
            *batch.inputs,
            SubNetwork.full(config),
            head_gates=gates,
        )
        return jnp.sum(task_loss(config.head, outputs.logits, batch.labels) * batch.weights)

    gates = jnp.ones((config.num_layers, max(config.heads)))
    by_gates, by_params = jax.grad(loss, argnums=(0, 1))(gates, params)
    return Gradients(by_gates, by_params)


def score(model: Bert, params: Params, gradients: Gradients) -> Scores:
    """|dL/d gate| of each head; for each neuron, |sum of w dL/dw| of its inputs plus that of its outputs."""
    heads, neurons = [], []
    for i, num_heads in enumerate(model.config.heads):
        layer, by_layer = params[f"layer_{i}"], gradients.params[f"layer_{i}"]
        up, down = (jax.tree.map(jnp.multiply, layer[name], by_layer[name]) for name in ("up", "down"))
        entering = up["kernel"].sum(0) + up["bias"]  # [F]
        leaving = down["kernel"].sum(1)  # [F]
        heads.append(jnp.abs(gradients.gates[i, :num_heads]))
        neurons.append(jnp.abs(entering) + jnp.abs(leaving))
    return Scores(tuple(heads), tuple(neurons))


def score_importance(context: Context, settings: Importance, params: Params) -> Scores:
    """The importance of heads and neurons, computed once per run and kept in its folder."""
    origin = context.origin("importance", Model(context.model.config, params).fingerprint)
    if devices.is_first():
        take_importance(context, origin)
    if devices.any_host(not context.folder.importance_file.exists()):
        examples = context.learned(importance_examples(context, settings, params))
        batches = importance_batches(context, settings, examples)
        scores = importance(context.model, params, batches, settings.gradients, rows_at_once(context.config))
        if devices.is_first():
            context.folder.write_importance(scores, origin)
        devices.wait_for_all("importance is written")
    scores = context.folder.read_importance(origin)
    devices.check_same_everywhere({f"{context.folder.importance_file}": fingerprint(scores)})
    return scores


def fingerprint(scores: Scores) -> str:
    """A SHA-256 of the scores."""
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in jax.tree.leaves(scores))).hexdigest()


def importance_examples(context: Context, settings: Importance, params: Params) -> Split:
    """The split with the teacher's answers for labels, if it has none, in the rows that are scored.

    At a regression's own answers the gradient of its loss is zero. One standard deviation away, it is that of the
    answer itself, times a number which is the same for all heads and neurons.
    """
    split = importance_split(context, settings)
    if split.against is not None:
        return split
    rows = np.concatenate([planned.rows for planned in importance_plan(context, settings)])
    labels = split.labels.copy()
    labels[rows] = answered(context, context.answering(params), split.take(rows)).labels
    if context.config.data.task.regression:
        labels[rows] += context.model.config.unit.deviation
    return split.answered(labels)


def importance_split(context: Context, settings: Importance) -> Split:
    """The examples that importance is scored on."""
    return context.data.train if settings.split == "train" else next(iter(context.data.dev.values()))


def importance_plan(context: Context, settings: Importance) -> list[PlannedBatch]:
    """The batches of a split in its own order; with `max_examples`, of that many rows, drawn with the run's seed."""
    split = importance_split(context, settings)
    shuffled = np.random.default_rng(context.config.seed).permutation(len(split))
    rows = np.sort(shuffled[: settings.max_examples or len(split)])
    starts = range(0, len(rows), settings.batch_size)
    return [
        plan_batch(split, rows[start : start + settings.batch_size], context.config.data.lengths) for start in starts
    ]


def importance_batches(context: Context, settings: Importance, split: Split) -> Iterator[Batch]:
    """Batches of the rows of the split that importance is scored on, with a progress bar."""
    plan = importance_plan(context, settings)
    total = sum(len(planned.rows) for planned in plan)
    with progress("importance", total, "examples", is_shown=devices.is_first()) as bar:
        for planned in plan:
            yield make_batch(split, planned, settings.batch_size, context.model.config.pad_token_id)
            bar.update(len(planned.rows))


def rows_at_once(config: CompleteRun) -> int:
    """The most examples that a device computes gradients of at once in training; importance uses no more."""
    return rows_of_a_device(config) // config.gradient_accumulation
