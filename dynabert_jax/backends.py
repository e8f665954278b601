"""What can run a sub-network: `BACKENDS` by name, each (config, params, sub, dtype) -> a program for each shape.

A new one is a function here, with its name in `BackendName` and `BACKENDS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from dynabert_jax.bert import Bert
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.cut import cut
from dynabert_jax.subnetwork import SubNetwork

Params = Any
BackendName = Literal["jax"]


class Inputs(NamedTuple):
    """One batch on the host, `[B, S]` int32 each."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Program:
    """A sub-network that is ready to run on batches of one shape.

    Attributes:
        run: a batch on the host to logits `[B, C]` on the host: whoever has them knows that all work has ended.
        memory_bytes: what it needs on the device; None where the backend does not tell.
    """

    run: Callable[[Inputs], np.ndarray]
    memory_bytes: int | None


# Makes a sub-network ready for batches of the shape of the one that is given.
Maker = Callable[[Inputs], Program]


class Backend(Protocol):
    """Takes a sub-network out of the model, whose parameters are on the host."""

    def __call__(self, config: ModelConfig, params: Params, sub: SubNetwork, dtype: Dtype) -> Maker: ...


def run_with_jax(config: ModelConfig, params: Params, sub: SubNetwork, dtype: Dtype) -> Maker:
    """Cut to arrays of its own on the first local device, and compiled ahead."""
    small = cut(config, params, sub)
    model, everything = Bert(small.config, dtype), SubNetwork.full(small.config)
    weights = jax.device_put(small.params, jax.local_devices()[0])

    def forward(weights: Params, inputs: Inputs) -> jax.Array:
        return model.apply({"params": weights}, *inputs, everything).logits

    def make(inputs: Inputs) -> Program:
        compiled = jax.jit(forward).lower(weights, inputs).compile()
        return Program(lambda inputs: np.asarray(compiled(weights, inputs).block_until_ready()), planned(compiled))

    return make


def planned(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of a compiled program's arguments (weights included), results and temporaries, as its compiler planned.

    A device's own peak counts all that the process has ever held and cannot be set back: it tells nothing of one size.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes


BACKENDS: Mapping[BackendName, Backend] = {"jax": run_with_jax}
