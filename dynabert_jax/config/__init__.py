"""The user's settings: frozen, typed, checked on creation. No jax.

Promises: an unknown key is an error that names the nearest one; every setting of a run is in its config.json; a
configuration written by an older version can be read.
"""

from dynabert_jax.config.checked import (
    AtLeastOne,
    Checked,
    ConfigError,
    Count,
    Dtype,
    Fraction,
    Fractions,
    Name,
    NonNegative,
    Positive,
    Probability,
    Seed,
)
from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.stages import (
    DepthStage,
    Distillation,
    FinalStage,
    FineTune,
    Importance,
    Optimizer,
    Stage,
    WidthStage,
)
from dynabert_jax.config.tasks import DevSplit, GlueLayout, Task, task

__all__ = [
    "AtLeastOne",
    "Checked",
    "ConfigError",
    "Count",
    "DataConfig",
    "DepthStage",
    "DevSplit",
    "Distillation",
    "Dtype",
    "FinalStage",
    "FineTune",
    "Fraction",
    "Fractions",
    "GlueLayout",
    "Importance",
    "ModelConfig",
    "Name",
    "NonNegative",
    "Optimizer",
    "Positive",
    "Probability",
    "RunConfig",
    "Seed",
    "Stage",
    "Task",
    "WidthStage",
    "task",
]
