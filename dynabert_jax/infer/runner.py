"""What answers: one network, opened so that inputs can be put to it; and a model with the sub-networks that are wanted.

Letters in shapes: B texts at once, S tokens, H hidden size, C labels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.model.params import Model
from dynabert_jax.subnetwork import SubNetwork


class Answers(NamedTuple):
    """What a network says to a batch.

    Attributes:
        logits: `[B, C]`; a jax array may still be being computed.
        work: what was computed for them.
        last_hidden: `[B, S, H]`, the last hidden state, where the runner was opened with it; else None.
    """

    logits: Any
    work: Work
    last_hidden: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Runner:
    """One network, ready to answer: `runner(inputs)` gives `Answers`.

    Attributes:
        by: what runs it, for people.
        answer: inputs `[B, S]` to answers.
        devices: a batch's rows must divide over so many.
        memory_bytes: what the program for inputs of this shape needs on its device; None where the runner cannot say.
    """

    by: str
    answer: Callable[[Inputs], Answers]
    devices: int = 1
    memory_bytes: Callable[[Inputs], int | None] = lambda _: None

    def __call__(self, inputs: Inputs) -> Answers:
        return self.answer(inputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model and the sub-networks of it that are wanted; most export formats hold one alone."""

    model: Model
    subs: tuple[SubNetwork, ...]

    @property
    def only(self) -> Model:
        """The one sub-network of a format that holds one, cut out."""
        (sub,) = self.subs
        return self.model.cut(sub)
