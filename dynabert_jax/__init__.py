"""DynaBERT in JAX: one set of BERT or RoBERTa weights out of which a network of any width and depth can be cut."""

from dynabert_jax.config import (
    DataConfig,
    DepthStage,
    FinalStage,
    FineTune,
    Importance,
    ModelConfig,
    Optimizer,
    RunConfig,
    WidthStage,
)
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.tasks import Task, task

__all__ = [
    "DataConfig",
    "DepthStage",
    "FinalStage",
    "FineTune",
    "Importance",
    "ModelConfig",
    "Optimizer",
    "RunConfig",
    "SubNetwork",
    "Task",
    "WidthStage",
    "task",
]
