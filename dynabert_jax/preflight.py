"""What is checked before a run compiles or trains anything."""

import logging
import shutil
from pathlib import Path

import jax

from dynabert_jax import parallel
from dynabert_jax.config import ConfigError, RunConfig
from dynabert_jax.data import TaskData
from dynabert_jax.stages import plan
from dynabert_jax.weights import Pretrained

log = logging.getLogger(__name__)


def preflight(config: RunConfig, pretrained: Pretrained, data: TaskData) -> None:
    """Raises a clear error for everything about a run that can be known to be wrong before it starts."""
    model = pretrained.config
    parallel.check_divides(config.data.batch_size, "data.batch_size")
    parallel.check_divides(config.data.eval_batch_size, "data.eval_batch_size")
    if config.data.max_length > model.max_length:
        raise ConfigError(
            f"data.max_length {config.data.max_length} is more than the model's {model.max_length} positions; "
            f"set max_length and the largest of lengths to at most {model.max_length}"
        )
    if not config.fine_tune and pretrained.new_classifier:
        raise ConfigError(
            f"fine_tune is None, but {config.model} has no classifier for the labels {data.labels}: it would be random. "
            f"Add the fine-tuning stage, or bring a model that is fine-tuned on this task"
        )
    plan(model, config)  # raises where a width or depth would keep nothing
    check_space(config, pretrained)


def check_space(config: RunConfig, pretrained: Pretrained) -> None:
    """Every stage keeps parameters with Adam's two moments, the best parameters, and for a moment the next of both."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(pretrained.params))
    needed = size * 8 * max(1, len(config.stages))
    free = shutil.disk_usage(Path(config.run_dir)).free
    if free < needed:
        raise ConfigError(
            f"{config.run_dir} has {free / 2**30:.1f} GiB free, and the run's checkpoints need up to "
            f"{needed / 2**30:.1f} GiB; free some, or set run_dir to a larger disk"
        )
