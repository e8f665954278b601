"""Sorts heads and neurons by importance, so that the first ones are the ones to keep: (params, order) -> params.

A rewired network computes what it computed before; only its narrower sub-networks change. Source: the paper, section
2.1; `reorder_neuron_head` in the reference's `run_glue.py`.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dynabert_jax.model.params import Params, select


class Scores(NamedTuple):
    """How much each head and neuron matters; larger is more important.

    Attributes:
        heads: for each layer `[N]`.
        neurons: for each layer `[F]`.
    """

    heads: tuple[Any, ...]
    neurons: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Order:
    """For each layer the heads `[N]` and neurons `[F]` in their new order, as indices into the old one."""

    heads: tuple[np.ndarray, ...]
    neurons: tuple[np.ndarray, ...]

    def inverse(self) -> "Order":
        """The order that undoes this one."""
        return Order(tuple(np.argsort(i) for i in self.heads), tuple(np.argsort(i) for i in self.neurons))


def by_importance(importance: Scores) -> Order:
    """Most important first; ties keep their old order."""

    def descending(scores: Any) -> np.ndarray:
        return np.argsort(-np.asarray(scores), kind="stable")

    return Order(tuple(map(descending, importance.heads)), tuple(map(descending, importance.neurons)))


def rewire(params: Params, order: Order) -> Params:
    """The same network with the heads and neurons of every layer in another order."""
    rewired = dict(params)
    for i, (heads, neurons) in enumerate(zip(order.heads, order.neurons, strict=True)):
        rewired[f"layer_{i}"] = select(params[f"layer_{i}"], heads, neurons)
    return rewired
