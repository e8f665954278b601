"""Scores sub-networks: (model, data, sub-networks) -> rows. Each is cut out and compiled on its own small arrays."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dynabert_jax import cost, parallel
from dynabert_jax.batches import Batch, make_batch, plan_evaluation
from dynabert_jax.checked import Checked
from dynabert_jax.config import DataConfig, Dtype, ModelConfig
from dynabert_jax.cut import cut
from dynabert_jax.data import Split
from dynabert_jax.errors import UserError
from dynabert_jax.metrics import score
from dynabert_jax.parts import make_forward
from dynabert_jax.products import rounded_kernels
from dynabert_jax.subnetwork import SubNetwork

Params = Any


class EvaluationError(UserError, RuntimeError):
    """Answers that cannot be scored; the message says whose they are and what to do."""


class Row(Checked):
    """What one sub-network scores on one split.

    Attributes:
        sub: the sub-network's name.
        width, depth: its multipliers; None where it has none.
        split: the name of the split.
        examples: how many were scored.
        metric: the task's main metric.
        scores: every metric of the task, as fractions.
        parameters: of the cut model.
        flops: of a forward pass over one sentence of `length` tokens.
    """

    sub: str
    width: float | None
    depth: float | None
    split: str
    examples: int
    metric: str
    scores: dict[str, float]
    parameters: int
    flops: int
    length: int

    @property
    def score(self) -> float:
        return self.scores[self.metric]


def evaluate(
    config: ModelConfig, params: Params, subs: Sequence[SubNetwork], split: Split, data: DataConfig, dtype: Dtype
) -> list[Row]:
    """One row for each sub-network, in their order."""
    host = jax.device_get(params)
    rows = []
    for sub in subs:
        scores = score(data.task, predict(config, host, sub, split, data, dtype), split.labels)
        rows.append(
            Row(
                sub=sub.name,
                width=sub.width,
                depth=sub.depth,
                split=split.name,
                examples=len(split.labels),
                metric=data.task.main_metric,
                scores=scores,
                parameters=cost.parameters(config, sub),
                flops=cost.flops(config, sub, data.max_length),
                length=data.max_length,
            )
        )
    return rows


def predict(
    config: ModelConfig, params: Params, sub: SubNetwork, split: Split, data: DataConfig, dtype: Dtype
) -> np.ndarray:
    """The sub-network's logits for every example of the split, `[n, C]`, in the split's order.

    Raises:
        EvaluationError: one of them is NaN or infinite.
    """
    small = cut(config, params, sub)
    weights = parallel.replicate(rounded_kernels(small.params, dtype))
    forward = forward_program(small.config, dtype)
    logits = np.zeros((len(split.labels), config.num_labels), np.float32)
    for planned in plan_evaluation(split, data.eval_batch_size, data.lengths):
        batch = make_batch(split, planned, data.eval_batch_size, config.pad_token_id)
        answers = parallel.join(forward(weights, parallel.split(batch)))
        logits[planned.rows] = answers[: len(planned.rows)]
    check_finite(f"sub-network {sub.name}", split, logits)
    return logits


def check_finite(network: str, split: Split, logits: np.ndarray) -> None:
    """Raises EvaluationError where a logit is not a number that can be compared."""
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise EvaluationError(
            f"{network} answers {bad} of {len(split)} examples of {split.name} with NaN or infinity: the "
            f"weights have diverged. Train with a smaller learning rate, in a new run_dir, or bring other weights"
        )


@functools.lru_cache(maxsize=256)
def forward_program(config: ModelConfig, dtype: Dtype) -> Callable[[Params, Batch], jax.Array]:
    """The compiled forward pass of a whole (cut) model: batch `[devices, B, S]` to logits `[devices, B, C]`."""
    forward = make_forward(config, dtype)

    def answer(params: Params, batch: Batch) -> jax.Array:
        return forward(params, batch.input_ids, batch.attention_mask, batch.token_type_ids)

    return parallel.data_parallel(answer, in_axes=(None, 0), out_axes=0)


def mean_score(rows: Sequence[Row]) -> float:
    """The mean of the main score over rows: what the best checkpoint is chosen by."""
    return float(np.mean([row.score for row in rows]))
