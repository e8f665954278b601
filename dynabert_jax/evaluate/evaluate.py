"""Scores sub-networks: (model, data, sub-networks) -> rows. Each is cut out and compiled on its own small arrays."""

from collections.abc import Sequence

import jax
import numpy as np

from dynabert_jax import cost
from dynabert_jax.config.checked import Dtype
from dynabert_jax.config.complete import CompleteData
from dynabert_jax.data.batches import in_order, make_batch, plan_evaluation
from dynabert_jax.data.encode import Split
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate.metrics import score
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.runner import Runner
from dynabert_jax.model.params import Model
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices


class EvaluationError(UserError, RuntimeError):
    """Answers that cannot be scored; the message names the network and says what to do."""


def evaluate(
    model: Model, subs: Sequence[SubNetwork], splits: Sequence[Split], data: CompleteData, dtype: Dtype
) -> list[Row]:
    """A row for each split and sub-network, ordered by split. Each sub-network is cut out once for all splits.

    Raises:
        EvaluationError: a sub-network answers with NaN or infinity.
        ValueError: a split has neither labels nor a teacher's answers.
    """
    host = Model(model.config, jax.device_get(model.params))
    scored = [score_on(splits, host, sub, data, dtype) for sub in subs]
    return [rows[i] for i in range(len(splits)) for rows in scored]


def score_on(splits: Sequence[Split], model: Model, sub: SubNetwork, data: CompleteData, dtype: Dtype) -> list[Row]:
    """One sub-network's row on each split."""
    config, runner = model.config, in_jax.open_model(model.cut(sub), dtype)
    costs = {
        "parameters": cost.parameters(config, sub),
        "flops": cost.flops(config, sub, data.max_length),
        "length": data.max_length,
    }
    rows = []
    for split in splits:
        if split.against is None:
            raise ValueError(f"there is nothing to compare the answers to {split.name} with")
        logits = logits_of(runner, split, data, config.pad_token_id)
        check_finite(f"sub-network {sub.name}", split, logits)
        rows.append(
            Row(
                sub=sub.name, width=sub.width, depth=sub.depth, split=split.name, examples=len(split),
                metric=data.task.main_metric, positive=data.task.positive_class(config.labels),
                scores=score(data.task, logits, split.labels, config.labels), against=split.against, **costs,
            )
        )  # fmt: skip
    return rows


def logits_of(runner: Runner, split: Split, data: CompleteData, pad_token_id: int) -> np.ndarray:
    """The network's logits for every example of the split, `[n, C]`, in the split's order.

    Several hosts share each batch, and every host gets all answers.
    """
    answered = []
    for planned in plan_evaluation(split, data.eval_batch_size, data.lengths):
        batch = make_batch(split, planned, data.eval_batch_size, pad_token_id)
        answers = runner(devices.rows_of_this_host(batch.inputs))
        answered.append((planned.rows, devices.rows_of_all_hosts(answers.logits)[: len(planned.rows)]))
    return in_order(answered)


def answered_by(model: Model, network: str, split: Split, data: CompleteData, dtype: Dtype) -> Split:
    """The split with a teacher's answers for labels: the most likely classes, or the numbers of a regression.

    Args:
        model: the teacher.
        network: its name, for messages.

    Raises:
        EvaluationError: it answers with NaN or infinity.
    """
    logits = logits_of(in_jax.open_model(model, dtype), split, data, model.config.pad_token_id)
    check_finite(network, split, logits)
    return split.answered(logits[:, 0] if model.config.is_regression else logits.argmax(axis=1))


def check_finite(network: str, split: Split, logits: np.ndarray) -> None:
    """Raises EvaluationError if a logit is NaN or infinite."""
    bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if bad:
        raise EvaluationError(
            f"{network} answers {bad} of {len(split)} examples of {split.name} with NaN or infinity: the "
            f"weights have diverged. Train with a smaller learning rate, in a new run_dir, or use other weights"
        )
