"""Which part of a BERT runs: the kept layers, and how many heads and neurons each keeps.

The rounding and kept-layer rules are defined only here. No jax.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

_SHOWN_DIGITS = 6  # significant digits of a multiplier in a name
_MULTIPLIERS = re.compile(r"w(\d*\.?\d+)_d(\d*\.?\d+)")
_LAYER = re.compile(r"l(\d+)h(\d+)n(\d+)")


class Shape(Protocol):
    """What a sub-network needs to know about a model: the heads and neurons of each layer, `[layers]` each."""

    @property
    def heads(self) -> tuple[int, ...]: ...

    @property
    def neurons(self) -> tuple[int, ...]: ...


class KeptLayer(NamedTuple):
    """One kept layer: its index in the model, and how many of its first heads and neurons run."""

    layer: int
    heads: int
    neurons: int


@dataclasses.dataclass(frozen=True)
class SubNetwork:
    """A sub-network as a value: hashable, so that it can be a static argument of a compiled function.

    In layer `layers[k]`, the first `heads[k]` heads and the first `neurons[k]` neurons run; `k` counts the kept layers.
    Two sub-networks with the same structure are equal, whatever the paper's grid calls them.

    Attributes:
        layers: indices of the kept layers, ascending.
        heads: how many attention heads each kept layer keeps.
        neurons: how many feed-forward neurons each kept layer keeps.
        width, depth: the multipliers it was made from, for names and tables; not part of its identity.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]
    width: float | None = dataclasses.field(default=None, compare=False)
    depth: float | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("a sub-network must keep at least one layer; this one keeps none")
        if not len(self.layers) == len(self.heads) == len(self.neurons):
            raise ValueError(
                f"a sub-network needs one number of heads and of neurons for each of its {len(self.layers)} kept "
                f"layers; got {len(self.heads)} and {len(self.neurons)}"
            )
        if any(b <= a for a, b in zip(self.layers, self.layers[1:], strict=False)) or self.layers[0] < 0:
            raise ValueError(f"kept layers must be ascending indices from 0; got {self.layers}")
        if min(self.heads) < 1:
            raise ValueError(f"every kept layer must keep at least one head; got heads {self.heads}")
        if min(self.neurons) < 1:
            raise ValueError(f"every kept layer must keep at least one neuron; got neurons {self.neurons}")

    @classmethod
    def full(cls, shape: Shape) -> Self:
        """The full network: all layers, all heads, all neurons."""
        return cls(tuple(range(len(shape.heads))), tuple(shape.heads), tuple(shape.neurons), 1.0, 1.0)

    @classmethod
    def uniform(cls, shape: Shape, width: float, depth: float) -> Self:
        """The paper's sub-network: the same fraction of heads and neurons in evenly spread layers.

        Source: the paper, section 2; rounding as in the reference (`transformers/modeling_bert.py`,
        `round_to_nearest` and `BertEncoder.forward`).

        Args:
            shape: the model's heads and neurons.
            width: fraction of heads and neurons, in (0, 1].
            depth: fraction of layers, in (0, 1].

        Raises:
            ValueError: a multiplier is outside (0, 1], or nothing would be kept.
        """
        layers = kept_layers(len(shape.heads), depth)
        heads = tuple(kept_heads(shape.heads[i], width) for i in layers)
        neurons = tuple(kept_neurons(shape.neurons[i], shape.heads[i], width) for i in layers)
        return cls(layers, heads, neurons, width, depth)

    @classmethod
    def parse(cls, name: str, shape: Shape) -> Self:
        """The sub-network of that name: the inverse of `name`.

        Args:
            name: multipliers, such as `w0.75_d0.5`, or a structure, such as `l0h3n5_l2h1n17`.
            shape: the heads and neurons of the model that it is cut from.

        Raises:
            ValueError: the name is malformed, the model lacks a part of it, or a multiplier has six digits or more.
                `name` rounds to six digits, and a rounded multiplier may keep other layers.
        """
        if found := _MULTIPLIERS.fullmatch(name):
            if any(len(number.lstrip("0.").replace(".", "")) >= _SHOWN_DIGITS for number in found.groups()):
                raise ValueError(
                    f"the multipliers in {name!r} may be rounded (six digits or more); name the sub-network by its "
                    f"structure, such as 'l0h3n5_l2h1n17'"
                )
            return cls.uniform(shape, *map(float, found.groups()))
        kept = [_LAYER.fullmatch(part) for part in name.split("_")]
        if not all(kept):
            raise ValueError(
                f"{name!r} is not the name of a sub-network; write its width and depth, such as 'w0.75_d0.5', or its "
                f"layers with their heads and neurons, such as 'l0h3n5_l2h1n17'"
            )
        layers, heads, neurons = zip(*(map(int, found.groups()) for found in kept if found), strict=True)
        sub = cls(layers, heads, neurons)
        sub.check_fits(shape)
        return sub

    def check_fits(self, shape: Shape) -> None:
        """Raises ValueError unless every kept layer, head and neuron exists in a model of this shape."""
        if self.layers[-1] >= len(shape.heads):
            raise ValueError(
                f"the sub-network keeps layer {self.layers[-1]}, but the model has {len(shape.heads)} layers"
            )
        for layer, heads, neurons in zip(self.layers, self.heads, self.neurons, strict=True):
            if heads > shape.heads[layer] or neurons > shape.neurons[layer]:
                raise ValueError(
                    f"the sub-network keeps {heads} heads and {neurons} neurons of layer {layer}, but that layer has "
                    f"{shape.heads[layer]} heads and {shape.neurons[layer]} neurons"
                )

    @property
    def kept(self) -> tuple[KeptLayer, ...]:
        """The kept layers, in order."""
        return tuple(map(KeptLayer, self.layers, self.heads, self.neurons))

    @property
    def name(self) -> str:
        """A short name for files and logs, such as `w0.75_d0.5`; the structure if there are no multipliers."""
        if self.width is not None and self.depth is not None:
            return f"w{self.width:g}_d{self.depth:g}"
        parts = zip(self.layers, self.heads, self.neurons, strict=True)
        return "_".join(f"l{layer}h{heads}n{neurons}" for layer, heads, neurons in parts)


def check_names(subs: Sequence[SubNetwork]) -> None:
    """Raises ValueError if two different sub-networks have one name, in files, tables and on the command line."""
    named: dict[str, SubNetwork] = {}
    for sub in subs:
        other = named.setdefault(sub.name, sub)
        if other != sub:
            raise ValueError(
                f"two sub-networks would have the name {sub.name}: width {other.width!r} with depth {other.depth!r}, "
                f"and width {sub.width!r} with depth {sub.depth!r}; write widths and depths that differ within "
                f"{_SHOWN_DIGITS} digits"
            )


def shared_prefixes(subs: Sequence[SubNetwork]) -> tuple[tuple[KeptLayer, ...], ...]:
    """Every prefix of the sub-networks' kept layers, each once.

    Sub-networks that start with the same kept layers share a prefix: the same layers on the same input. A prefix comes
    after the shorter prefixes that it extends.
    """
    return tuple(dict.fromkeys(sub.kept[:end] for sub in subs for end in range(1, len(sub.kept) + 1)))


def families_of(subs: Sequence[SubNetwork]) -> tuple[tuple[SubNetwork, ...], ...]:
    """The sub-networks, grouped by their first kept layer; in a grid, each group is one width."""
    firsts = dict.fromkeys(sub.kept[0] for sub in subs)
    return tuple(tuple(sub for sub in subs if sub.kept[0] == first) for first in firsts)


def kept_layers(num_layers: int, depth: float) -> tuple[int, ...]:
    """Layers floor(i / depth) for i < round(num_layers * depth), as the reference keeps them.

    Rounds as Python does: half to even.
    """
    _check_multiplier("depth", depth)
    kept = tuple(math.floor(i / depth) for i in range(round(num_layers * depth)))
    if not kept:
        raise ValueError(f"depth {depth:g} keeps none of {num_layers} layers; use more than {0.5 / num_layers:.3g}")
    return kept


def kept_heads(num_heads: int, width: float) -> int:
    """round(num_heads * width), half to even."""
    _check_multiplier("width", width)
    kept = round(num_heads * width)
    if kept < 1:
        raise ValueError(f"width {width:g} keeps none of {num_heads} heads; use more than {0.5 / num_heads:.3g}")
    return kept


def kept_neurons(num_neurons: int, num_heads: int, width: float) -> int:
    """The kept fraction of heads, applied to the neurons and rounded down; at least one."""
    return max(1, int(kept_heads(num_heads, width) / num_heads * num_neurons))


def uniform_grid(shape: Shape, widths: Sequence[float], depths: Sequence[float]) -> tuple[SubNetwork, ...]:
    """Every width at every depth, largest first, each structure once."""
    ordered = [(width, depth) for depth in sorted(depths, reverse=True) for width in sorted(widths, reverse=True)]
    return tuple(dict.fromkeys(SubNetwork.uniform(shape, width, depth) for width, depth in ordered))


def _check_multiplier(what: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ValueError(f"{what} must be in (0, 1]; got {value!r}")
