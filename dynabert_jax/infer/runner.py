"""`Runner`, one network that is ready to answer, and `Source`, a model with its wanted sub-networks.

Letters in shapes: B texts in a batch, S tokens, H hidden size, C labels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.model.params import Model
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.embeddings import Stored


class Answers(NamedTuple):
    """A network's answers to a batch.

    Attributes:
        logits: `[B, C]`; a jax array may not be computed yet.
        work: what was computed for them.
        last_hidden: `[B, S, H]`, the last hidden state, if the runner was opened with it; else None.
    """

    logits: Any
    work: Work
    last_hidden: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Runner:
    """One network, ready to answer: `runner(inputs)` gives `Answers`.

    Attributes:
        by: what runs it, as text.
        answer: inputs `[B, S]` to answers.
        devices: the number of rows in a batch must be a multiple of this.
        memory_bytes: what the program for inputs of this shape needs on its device; None if the runner cannot tell.
    """

    by: str
    answer: Callable[[Inputs], Answers]
    devices: int = 1
    memory_bytes: Callable[[Inputs], int | None] = lambda _: None

    def __call__(self, inputs: Inputs) -> Answers:
        return self.answer(inputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A model and the wanted sub-networks of it; most export formats hold only one.

    Attributes:
        stored: the word embeddings' type in files. Whatever it is, the model has the float32 numbers that they hold.
    """

    model: Model
    subs: tuple[SubNetwork, ...]
    stored: Stored = "float32"

    @property
    def only(self) -> Model:
        """The single sub-network, cut out, for a format that holds one."""
        (sub,) = self.subs
        return self.model.cut(sub)
