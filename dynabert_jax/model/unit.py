"""A regression's numbers in the user's unit, and standardised as stages learn them: of mean 0 and deviation 1 in train.

The head's last layer changes the unit: kernel and bias times the deviation, and the mean added to the bias. So weights
in files answer in the user's unit whoever reads them, and training does not depend on the unit.
"""

import dataclasses
import math

import numpy as np

from dynabert_jax.config.tasks import Task
from dynabert_jax.config.unit import Unit
from dynabert_jax.data.encode import Split
from dynabert_jax.model.params import Params


def unit_of(numbers: np.ndarray) -> Unit:
    """The unit of labels `[n]` that are not all the same. Sums are exact, so every machine computes the same."""
    values = numbers.astype(np.float64)
    mean = math.fsum(values) / len(values)
    return Unit(mean=mean, deviation=math.sqrt(math.fsum((values - mean) ** 2) / len(values)))


def learned_unit(task: Task, train: Split, of_model: Unit) -> Unit:
    """The unit in which a task's labels are learned: that of train or, without labels, of the model that teaches."""
    if not (task.regression and task.standardise):
        return Unit()
    return of_model if train.against is None else unit_of(train.labels)


def standardised(split: Split, unit: Unit) -> Split:
    """The split with standardised labels; the same split if it has none, or they are as the user has them."""
    if unit == Unit() or split.against is None:
        return split
    labels = (split.labels.astype(np.float64) - unit.mean) / unit.deviation
    return dataclasses.replace(split, labels=labels.astype(np.float32))


def in_unit(params: Params, unit: Unit) -> Params:
    """Parameters that answer in the user's unit, from those that answer in standardised numbers."""
    return _rescaled(params, unit.deviation, unit.mean)


def out_of_unit(params: Params, unit: Unit) -> Params:
    """Parameters that answer in standardised numbers, from those that answer in the user's unit."""
    return _rescaled(params, 1 / unit.deviation, -unit.mean / unit.deviation)


def _rescaled(params: Params, factor: float, shift: float) -> Params:
    """Parameters whose answers are those of `params` times the factor plus the shift, up to rounding."""
    if (factor, shift) == (1.0, 0.0):
        return params
    kernel, bias = (np.asarray(params["classifier"][name], np.float64) for name in ("kernel", "bias"))
    last = {"kernel": kernel * factor, "bias": bias * factor + shift}
    return params | {"classifier": {name: array.astype(np.float32) for name, array in last.items()}}
