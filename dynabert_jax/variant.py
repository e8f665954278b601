"""A sub-network plus the methods by which it skips work, as one value with a name.

A method that saves work for some texts or tokens only (exits, token reduction, depths per token) is a `Skip`: a value
that says after which layers it acts. What it computes belongs to a module of its own in `model/`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Protocol, Self

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import Shape, SubNetwork

_SKIP = re.compile(r"([a-z]+)(\d[^+]*)")


class Skip(Protocol):
    """A method by which a sub-network skips work: frozen, hashable, without arrays."""

    @property
    def name(self) -> str:
        """The method's name in letters and its setting, such as `exit0.3`."""

    @property
    def after(self) -> tuple[int, ...]:
        """Positions of the kept layers after which it acts."""

    def check_fits(self, config: ModelConfig, sub: SubNetwork) -> None:
        """Raises ValueError if the method cannot be used with this model or sub-network."""


Skips = Mapping[str, Callable[[str], Skip]]  # by method name: makes a skip from the setting in its name


@dataclasses.dataclass(frozen=True)
class Variant:
    """A sub-network plus its skips, in the order in which they act; without skips, all of it runs."""

    sub: SubNetwork
    skips: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        methods = [_method(skip.name) for skip in self.skips]
        if len(set(methods)) < len(methods):
            raise ValueError(f"a variant may use each method only once; got {', '.join(methods)}")
        for skip in self.skips:
            if not all(0 <= position < len(self.sub.layers) for position in skip.after):
                raise ValueError(
                    f"{skip.name} acts after kept layers {skip.after}, but {self.sub.name} has only "
                    f"{len(self.sub.layers)}"
                )

    @property
    def name(self) -> str:
        """Such as `w0.5_d0.5`, `w0.5_d0.5+exit0.3` or `w1_d1+keep0.5+exit0.3`."""
        return "+".join([self.sub.name, *(skip.name for skip in self.skips)])

    @classmethod
    def parse(cls, name: str, shape: Shape, methods: Skips) -> Self:
        """The variant of that name, of a model of this shape.

        Raises:
            ValueError: the name of the sub-network, of a method or of a setting is not valid.
        """
        sub, *skips = name.split("+")
        return cls(SubNetwork.parse(sub, shape), tuple(_parse_skip(skip, methods) for skip in skips))

    def check_fits(self, config: ModelConfig) -> None:
        """Raises ValueError unless the sub-network and its skips fit the model."""
        self.sub.check_fits(config)
        for skip in self.skips:
            skip.check_fits(config, self.sub)


def _parse_skip(name: str, methods: Skips) -> Skip:
    found = _SKIP.fullmatch(name)
    if not found or found[1] not in methods:
        raise ValueError(f"{name!r} is not a method that skips work; allowed: {', '.join(methods) or 'none'}")
    return methods[found[1]](found[2])


def _method(name: str) -> str:
    found = _SKIP.fullmatch(name)
    if not found:
        raise ValueError(f"a skip's name is its method in lower-case letters and a setting in digits; got {name!r}")
    return found[1]
