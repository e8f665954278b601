"""A model as one value, and cutting a smaller one out of it.

Slicing inside a compiled function copies the weights at every call; a cut model has small dense arrays instead, which
makes it fast (`docs/measurements.md`).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import SubNetwork

# A tree of arrays: nested dicts, such as params["layer_0"]["query"]["kernel"].
Params = dict[str, Any]
Path = tuple[str, ...]  # of an array in it, such as ("layer_0", "query", "kernel")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A configuration and the parameters of a network of that shape."""

    config: ModelConfig
    params: Params

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the parameters. It changes with any number."""
        digest = hashlib.sha256()
        for name, array in sorted(_named(self.params)):
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def cut(self, sub: SubNetwork) -> "Model":
        """The sub-network as a model, its layers renumbered from 0. It answers as this model does when it runs `sub`.

        Raises:
            ValueError: the sub-network does not fit the model.
        """
        sub.check_fits(self.config)
        small = {name: tree for name, tree in self.params.items() if not name.startswith("layer_")}
        for k, layer in enumerate(sub.layers):
            small[f"layer_{k}"] = select(self.params[f"layer_{layer}"], slice(sub.heads[k]), slice(sub.neurons[k]))
        return Model(self.config.replace(heads=sub.heads, neurons=sub.neurons), small)


def cut_model(config: ModelConfig, params: Params, sub: SubNetwork) -> Model:
    """`Model(config, params).cut(sub)`."""
    return Model(config, params).cut(sub)


def _named(params: Params, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays with their paths, such as `layer_0/query/kernel`."""
    for name, value in params.items():
        if isinstance(value, dict):
            yield from _named(value, f"{prefix}{name}/")
        else:
            yield prefix + name, np.asarray(value)


def part_of(params: Params, wanted: Callable[[Path], bool], path: Path = ()) -> Params:
    """The part of the tree with the arrays whose path is wanted; branches without any are left out."""
    kept: Params = {}
    for name, value in params.items():
        place = (*path, name)
        if isinstance(value, dict):
            value = part_of(value, wanted, place)
            if value:
                kept[name] = value
        elif wanted(place):
            kept[name] = value
    return kept


def merged(params: Params, part: Params) -> Params:
    """The tree with its arrays replaced by those of `part`, where `part` has them."""
    return params | {
        name: merged(params[name], value) if isinstance(value, dict) else value for name, value in part.items()
    }


def select(layer: Params, heads: Any, neurons: Any) -> Params:
    """One layer's parameters with these heads and neurons only, in this order (index arrays or slices)."""
    into_heads = {
        name: {"kernel": layer[name]["kernel"][:, heads], "bias": layer[name]["bias"][heads]}
        for name in ("query", "key", "value")
    }
    return {
        **layer,
        **into_heads,
        "attention_output": {**layer["attention_output"], "kernel": layer["attention_output"]["kernel"][heads]},
        "up": {"kernel": layer["up"]["kernel"][:, neurons], "bias": layer["up"]["bias"][neurons]},
        "down": {**layer["down"], "kernel": layer["down"]["kernel"][neurons]},
    }
