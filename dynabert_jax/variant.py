"""A sub-network and what it skips while it runs: what is trained, scored, timed, chosen and exported by name.

A method that saves work for some texts or tokens alone (exits, token reduction, depths per token) is a `Skip`: a value
that says after which layers it looks. What it does there is `mark` of the module of that name in `model/`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import Shape, SubNetwork

_SKIP = re.compile(r"([a-z]+)(.*)")


class Skip(Protocol):
    """Something that a sub-network skips: frozen, hashable, without arrays."""

    @property
    def name(self) -> str:
        """The method's name in letters and its setting, such as `exit0.3`."""

    @property
    def after(self) -> tuple[int, ...]:
        """Positions of the kept layers after which it looks."""

    def check_fits(self, config: ModelConfig, sub: SubNetwork) -> None:
        """Raises ValueError where the model or the sub-network cannot do without what it skips."""


Skips = Mapping[str, Callable[[str], Skip]]  # by the method's name, what makes a skip of the setting after it


@dataclasses.dataclass(frozen=True)
class Variant:
    """A sub-network plus what it skips, in the order in which it looks; without skips, it runs as it is."""

    sub: SubNetwork
    skips: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        methods = [_method(skip.name) for skip in self.skips]
        if len(set(methods)) < len(methods):
            raise ValueError(f"a variant skips by each method once; got {', '.join(methods)}")
        for skip in self.skips:
            if not all(0 <= position < len(self.sub.layers) for position in skip.after):
                raise ValueError(
                    f"{skip.name} looks after kept layers {skip.after}, and {self.sub.name} has {len(self.sub.layers)}"
                )

    @property
    def name(self) -> str:
        """Such as `w0.5_d0.5`, `w0.5_d0.5+exit0.3` or `w1_d1+keep0.5+exit0.3`."""
        return "+".join([self.sub.name, *(skip.name for skip in self.skips)])

    @classmethod
    def parse(cls, name: str, shape: Shape, methods: Skips) -> Self:
        """The variant of that name, of a model of this shape.

        Raises:
            ValueError: the sub-network or a setting is none, or no method has that name.
        """
        sub, *skips = name.split("+")
        return cls(SubNetwork.parse(sub, shape), tuple(_parse_skip(skip, methods) for skip in skips))

    def check_fits(self, config: ModelConfig) -> None:
        """Raises ValueError unless the model has the sub-network and can do without what it skips."""
        self.sub.check_fits(config)
        for skip in self.skips:
            skip.check_fits(config, self.sub)


def _parse_skip(name: str, methods: Skips) -> Skip:
    found = _SKIP.fullmatch(name)
    if not found or found[1] not in methods:
        raise ValueError(f"{name!r} names nothing to skip; there are: {', '.join(methods) or 'no methods'}")
    return methods[found[1]](found[2])


def _method(name: str) -> str:
    found = _SKIP.fullmatch(name)
    if not found:
        raise ValueError(f"a skip's name begins with its method in lower-case letters; got {name!r}")
    return found[1]
