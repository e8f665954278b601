"""Finds the sizes that gain clearly less speed than their FLOPs promise, with the likely cause. Imports no jax."""

import dataclasses
from collections.abc import Iterable, Mapping

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.runs.latency_card import Measurement
from dynabert_jax.subnetwork import SubNetwork

# A size is reported if even the upper end of its speed-up's interval is below this share of its ideal speed-up.
CLEARLY_LESS = 0.8
# In a shorter forward pass, launch overhead is a large share of the time.
SHORT_MS = 1.0
# A matmul with fewer columns does not fill the units of today's devices.
NARROW = 128


@dataclasses.dataclass(frozen=True)
class Shortfall:
    """A size that gains less than its FLOPs promise.

    Attributes:
        row: its measurement.
        fixed_ms: the part of its median that does not shrink with the FLOPs, in milliseconds: the intercept, at 0
            FLOPs, of the straight line through this size and the full network.
        cause: the likely cause.
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
    """The rows whose speed-up is below `CLEARLY_LESS` of their ideal one, beyond noise.

    Rows with too few rounds for an interval are left out.

    Args:
        config: the model that the sub-networks are cut from.
        subs: the sub-networks by name.
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
    """What most often limits a size of this shape. This is a guess, not a measurement."""
    heads, neurons = min(sub.heads), min(sub.neurons)
    columns = min(heads * config.head_size, neurons)
    if row.median_ms * row.speed_up < SHORT_MS:
        return "so short a call is mostly launch overhead; larger batches and longer sentences gain more"
    if all(heads == config.heads[i] and neurons == config.neurons[i]
           for i, heads, neurons in zip(sub.layers, sub.heads, sub.neurons, strict=True)):  # fmt: skip
        return "embeddings, classifier and transfers between host and device cost the same at every depth"
    if columns < NARROW:
        return f"its narrowest matmuls have {columns} columns, too few to fill the device; less depth gains more"
    return "layer norms, residuals and the softmax keep their size at every width; less depth gains more"
