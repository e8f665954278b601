"""Cuts a sub-network out: (config, params, sub-network) -> a smaller model like any other.

Slicing inside a compiled function copies the weights at every call; a cut model holds dense small arrays instead,
which is what makes it fast (`docs/measurements.md`).
"""

import dataclasses
from typing import Any

from dynabert_jax.config import ModelConfig
from dynabert_jax.rewire import select
from dynabert_jax.subnetwork import SubNetwork

Params = Any


@dataclasses.dataclass(frozen=True)
class Cut:
    """A model of its own: its configuration and its parameters."""

    config: ModelConfig
    params: Params


def cut(config: ModelConfig, params: Params, sub: SubNetwork) -> Cut:
    """The sub-network alone, its layers numbered anew. Its full network equals `params` run with `sub`.

    Raises:
        ValueError: the sub-network keeps what the model does not have.
    """
    sub.check_fits(config)
    small = {name: tree for name, tree in params.items() if not name.startswith("layer_")}
    for k, layer in enumerate(sub.layers):
        small[f"layer_{k}"] = select(params[f"layer_{layer}"], slice(sub.heads[k]), slice(sub.neurons[k]))
    return Cut(config.replace(heads=sub.heads, neurons=sub.neurons), small)
