"""Configurations without a gap: what the recipe leaves to choose is chosen.

A user's `RunConfig` may leave settings open (None). `dynabert_jax.recipe` makes a `CompleteRun` of it, and everything
behind it takes only that. The defaults are those of older versions, which had no recipe: the paper's values.
"""

from collections.abc import Mapping
from typing import Any

from dynabert_jax.config.checked import AtLeastOne, Positive, Probability
from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.stages import (
    DepthStage,
    Evaluations,
    FinalStage,
    FineTune,
    Optimizer,
    Stage,
    WidthStage,
)

# The settings that are chosen; each has a name of its own in a configuration.
CHOSEN = ("lengths", "batch_size", "epochs", "learning_rate", "warmup", "evaluations")


class CompleteData(DataConfig):
    """Data of which the lengths and the batch size are chosen."""

    lengths: tuple[AtLeastOne, ...] = (32, 64, 128)
    batch_size: AtLeastOne = 32

    @property
    def max_length(self) -> int:
        """The longest sentence in tokens, special tokens included."""
        return self.lengths[-1]


class CompleteOptimizer(Optimizer):
    """An optimizer of which the learning rate and the warm-up are chosen."""

    learning_rate: Positive = 2e-5
    warmup: Probability = 0.0


class CompleteStage(Stage):
    """A stage of which the epochs, the optimizer and the evaluations are chosen."""

    epochs: AtLeastOne = 3
    optimizer: CompleteOptimizer = CompleteOptimizer()
    evaluations: Evaluations = 1


class CompleteFineTune(CompleteStage, FineTune):
    """A complete `FineTune`."""


class CompleteWidthStage(CompleteStage, WidthStage):  # the first base's defaults count; it changes those chosen alone
    """A complete `WidthStage`."""


class CompleteDepthStage(CompleteStage, DepthStage):
    """A complete `DepthStage`."""


class CompleteFinalStage(CompleteStage, FinalStage):
    """A complete `FinalStage`."""


class CompleteRun(RunConfig):
    """A whole run, as its config.json has it."""

    data: CompleteData
    fine_tune: CompleteFineTune | None = CompleteFineTune()
    width: CompleteWidthStage | None = CompleteWidthStage()
    depth: CompleteDepthStage | None = CompleteDepthStage()
    final: CompleteFinalStage | None = None

    @property
    def stages(self) -> Mapping[str, CompleteStage]:
        named = {"fine_tune": self.fine_tune, "width": self.width, "depth": self.depth, "final": self.final}
        return {name: stage for name, stage in named.items() if stage is not None}


def resumed(config: RunConfig, stored: CompleteRun) -> RunConfig:
    """The configuration with what it leaves open taken from the run that it began: a run keeps its recipe."""
    return RunConfig.from_values(filled(config.to_values(), stored.to_values()))


def filled(values: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Values in which those that are open (`CHOSEN` and None), at any depth, are replaced by the chosen ones."""
    return {name: _filled(name, value, chosen.get(name)) for name, value in values.items()}


def _filled(name: str, value: Any, chosen: Any) -> Any:
    if isinstance(value, dict) and isinstance(chosen, dict):
        return filled(value, chosen)
    return chosen if value is None and name in CHOSEN else value
