"""Which sizes gain clearly less speed than their FLOPs promise, and the likely cause in words. No jax."""

import dataclasses
from collections.abc import Iterable, Mapping

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.runs.latency_card import Measurement
from dynabert_jax.subnetwork import SubNetwork

# A size is told when even the upper end of its speed-up, noise and all, stays below this part of its FLOPs' promise.
CLEARLY_LESS = 0.8
# A forward pass so short is for a good part the start of the program.
SHORT_MS = 1.0
# Columns of a matrix product below which the units of today's devices are not filled.
NARROW = 128


@dataclasses.dataclass(frozen=True)
class Shortfall:
    """A size that gains less than its FLOPs promise.

    Attributes:
        row: its measurement.
        fixed_ms: the part of its median that does not shrink with the FLOPs, in milliseconds: what is left of a
            straight line through it and the full network, read off at no FLOPs.
        cause: the likely one.
    """

    row: Measurement
    fixed_ms: float
    cause: str

    def __str__(self) -> str:
        row = self.row
        return (
            f"{row.sub}, batch {row.batch}, {row.length} tokens, {row.backend}, {row.dtype}: {row.speed_up:.2f} times "
            f"as fast as the full network instead of {row.ideal_speed_up:.2f}; {self.fixed_ms:.3g} of "
            f"{row.median_ms:.3g} ms do not shrink"
        )


def audit(config: ModelConfig, subs: Mapping[str, SubNetwork], rows: Iterable[Measurement]) -> tuple[Shortfall, ...]:
    """The rows whose speed-up lies, beyond noise, below `CLEARLY_LESS` of their FLOPs' promise.

    What was timed too seldom to tell noise is left out.

    Args:
        config: the model that the sub-networks are cut from.
        subs: by name.
    """
    return tuple(
        Shortfall(row, fixed_ms(row), likely_cause(config, subs[row.sub], row))
        for row in rows
        if row.speed_up_high is not None and row.speed_up_high < CLEARLY_LESS * row.ideal_speed_up
    )


def fixed_ms(row: Measurement) -> float:
    """The constant of time = constant + slope * FLOPs through the row and the full network, in milliseconds."""
    full_ms, part = row.median_ms * row.speed_up, 1 / row.ideal_speed_up
    return min(row.median_ms, max(0.0, (row.median_ms - part * full_ms) / (1 - part)))


def likely_cause(config: ModelConfig, sub: SubNetwork, row: Measurement) -> str:
    """What most often keeps such a size from its promise, told by its shape; a guess, not a measurement."""
    heads, neurons = min(sub.heads), min(sub.neurons)
    columns = min(heads * config.head_size, neurons)
    if row.median_ms * row.speed_up < SHORT_MS:
        return "so short a call is mostly the start of the program; larger batches and longer sentences gain more"
    if all(heads == config.heads[i] and neurons == config.neurons[i]
           for i, heads, neurons in zip(sub.layers, sub.heads, sub.neurons, strict=True)):  # fmt: skip
        return "embeddings, classifier and the way to the device and back cost the same at every depth"
    if columns < NARROW:
        return f"its narrowest products have {columns} columns, too few to fill the device; less depth gains more"
    return "layer norms, residuals and the softmax keep their size at every width; less depth gains more"
