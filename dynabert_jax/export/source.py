"""What is exported: a model and the sub-networks of it that are wanted."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from dynabert_jax.batches import Batch
from dynabert_jax.config import ModelConfig
from dynabert_jax.cut import Cut, cut
from dynabert_jax.subnetwork import SubNetwork

Params = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model and the sub-networks of it that are exported.

    Attributes:
        config: the shape of the model that they are cut from.
        params: its parameters.
        subs: one or more; most formats hold one alone.
    """

    config: ModelConfig
    params: Params
    subs: tuple[SubNetwork, ...]

    @property
    def only(self) -> Cut:
        """The one sub-network of a format that holds one, cut out."""
        (sub,) = self.subs
        return cut(self.config, self.params, sub)


@dataclasses.dataclass(frozen=True)
class Reader:
    """An exported folder, opened to be asked.

    Attributes:
        by: what runs it, for people.
        answer: logits `[B, C]` of a sub-network to a batch.
    """

    by: str
    answer: Callable[[SubNetwork, Batch], np.ndarray]
