"""The checks before a run trains anything."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from dynabert_jax import cost
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.batches import PlannedBatch, plan_batch
from dynabert_jax.data.encode import Split, TaskData
from dynabert_jax.data.summary import Understood, truncation
from dynabert_jax.errors import nearest
from dynabert_jax.evaluate.evaluate import check_finite, logits_of
from dynabert_jax.evaluate.metrics import label_order_warning
from dynabert_jax.infer import in_jax
from dynabert_jax.model.matmul import matmul_rate
from dynabert_jax.model.microbatch import count_microbatches
from dynabert_jax.plan import StagePlan
from dynabert_jax.system import devices
from dynabert_jax.system.files import expanded, nearest_existing
from dynabert_jax.system.memory import available_memory
from dynabert_jax.weights.files import Pretrained

log = logging.getLogger(__name__)

SLOWER = 0.9  # times the rate of float32: below this, warn


def check_settings(config: CompleteRun, pretrained: Pretrained) -> None:
    """The checks that are possible before texts are encoded.

    Raises:
        ConfigError: the run does not fit the model or the devices.
    """
    model = pretrained.config
    try:
        devices.check_divides(config.data.batch_size, "data.batch_size", parts=config.gradient_accumulation)
        devices.check_divides(config.data.eval_batch_size, "data.eval_batch_size")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.data.max_length > model.max_length:
        raise ConfigError(
            f"the largest of data.lengths, {config.data.max_length}, is more than the model's {model.max_length} "
            f"positions; set it to at most {model.max_length}"
        )
    if config.data.unlabelled_files and not (config.width or config.depth):
        raise ConfigError(
            "data.unlabelled_files are trained on by the width and depth stages, and the run has neither; add one, or "
            "leave the files out"
        )
    if config.data.only_unlabelled and pretrained.new:
        raise ConfigError(
            f"{config.model} has no {' and no '.join(pretrained.new)}, and nothing is labelled that it could learn "
            "from; use a model that is fine-tuned on this task, or add a train_file with labels"
        )
    if not config.fine_tune and pretrained.new:
        raise ConfigError(
            f"fine_tune is None, but {config.model} has no {' and no '.join(pretrained.new)} for the labels "
            f"{model.labels}: it would be random. Add the fine-tuning stage, or use a model that is fine-tuned on this "
            f"task"
        )


def check_metrics(task: Task, labels: Sequence[str]) -> None:
    """Raises ConfigError if a metric is of one class, and the task does not say of which of these classes."""
    named, positive = ", ".join(labels), task.positive_label
    if positive is not None and positive.strip() not in labels:
        raise ConfigError(
            f"positive_label must be one of the classes; {nearest(positive, labels)}got {positive!r}; allowed: {named}"
        )
    if "f1" in task.metrics and len(labels) > 2:
        raise ConfigError(
            f"f1 is of one of two classes, and the data has {len(labels)}: {named}; use macro_f1, the mean over "
            "classes, or weighted_f1"
        )
    if "f1" in task.metrics and positive is None:
        raise ConfigError(
            f"f1 is of one class, and the task does not say which: set positive_label to {' or '.join(labels)}, or use "
            "macro_f1, the mean over both"
        )


def warn_of_dtype(config: CompleteRun) -> None:
    """Warns if bfloat16 only costs time: a CPU without instructions for it converts every number."""
    if jax.default_backend() != "cpu" or config.dtype != "bfloat16":
        return
    ours, plain = (matmul_rate(dtype, size=1024) / 1e9 for dtype in ("bfloat16", "float32"))
    if ours < SLOWER * plain:
        log.warning(
            "this CPU is slow in bfloat16: %.0f GFLOP/s in large matmuls, and %.0f in float32; --dtype float32 is "
            "faster and needs a new run_dir", ours, plain,
        )  # fmt: skip


def check_data(config: CompleteRun, pretrained: Pretrained, data: TaskData) -> None:
    """Warns about labels that may be in another order, and about batches that are never full."""
    if len(data.train) < config.data.batch_size:
        log.warning(
            "data.batch_size %d is more than the %d training examples: the rest of every batch is filled with rows "
            "that do not count; use a smaller value", config.data.batch_size, len(data.train),
        )  # fmt: skip
    warn_of_labels(config, pretrained, data)


def warn_of_data(data: TaskData) -> None:
    """Warns about what the data probably should not be."""
    for warning in (*truncation(data.summaries), *(one for split in data.summaries for one in split.warnings)):
        log.warning("%s", warning)


def understood(pretrained: Pretrained, data: TaskData) -> Understood:
    """What a run says before its first step, and writes next to its results."""
    return Understood(data.summaries, (*pretrained.assumed, *data.assumed))


def tell_understood(pretrained: Pretrained, data: TaskData) -> Understood:
    """Logs what was understood, and returns it."""
    found = understood(pretrained, data)
    tell(found.lines)
    return found


def tell(lines: Sequence[str]) -> None:
    """Logs lines, once for all hosts."""
    for line in lines if devices.is_first() else ():
        log.info("%s", line)


def check_space(config: CompleteRun, pretrained: Pretrained) -> None:
    """Raises ConfigError if the disk has too little space for the run's checkpoints."""
    folder = expanded(config.run_dir)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(pretrained.params))
    used = sum(map(_size, folder.rglob("*")))
    needed = max(0, disk_needed(config, size) - used)
    free = shutil.disk_usage(nearest_existing(folder)).free
    if free < needed:
        raise ConfigError(
            f"{config.run_dir} has {size_of(free)} free, and the run's checkpoints need up to {size_of(needed)}; free "
            f"some space, or set run_dir to a folder on a larger disk"
        )


def size_of(size: int) -> str:
    """Bytes as readable text, such as 1.5 GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def disk_needed(config: CompleteRun, size: int) -> int:
    """Bytes of all checkpoints of a run whose parameters have `size` bytes.

    Every stage keeps two checkpoints of parameters and Adam's two moments, and the best parameters. One stage at a time
    also writes the next checkpoint of each kind.
    """
    return size * (7 * len(config.stages) + 4)


def _size(path: Path) -> int:
    """Bytes of a file; 0 for a folder, and for a file that another process has just removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def check_memory(config: CompleteRun, stages: Sequence[StagePlan], pretrained: Pretrained, data: TaskData) -> None:
    """Raises ConfigError if a device certainly has too little memory for a training step."""
    if not stages:
        return
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(pretrained.params))
    fixed = size * max(4 + stage.has_teacher for stage in stages)
    sharing = jax.local_device_count() if jax.default_backend() == "cpu" else 1  # devices of a CPU share its memory
    needed, free = sharing * (fixed + kept_activations(config, pretrained, data, stages)), available_memory()
    if free < needed:
        cure, more = "use more or larger devices, or a smaller model", more_microbatches(config, data)
        if sharing * fixed < free and more is not None:
            cure = f"set gradient_accumulation to {more}, or use a smaller data.batch_size or more devices"
        elif sharing * fixed < free:
            cure = "use smaller data.lengths, more or larger devices, or a smaller model"
        raise ConfigError(
            f"a training step needs at least {needed / 2**30:.1f} GiB of memory (parameters, gradients, Adam's "
            f"moments, and what the backward pass keeps), and {free / 2**30:.1f} GiB are free; {cure}"
        )


def kept_activations(config: CompleteRun, pretrained: Pretrained, data: TaskData, stages: Sequence[StagePlan]) -> int:
    """The least bytes that one device keeps for the backward pass of the largest family, over one microbatch."""
    examples = rows_of_a_device(config) // microbatches_of_longest(config, data)
    length = longest_batch(config, data).length
    numbers = max(
        cost.activations(pretrained.config, family, length, config.rematerialize)
        for stage in stages
        for group in stage.groups
        for family in group.families
    )
    return examples * numbers * (2 if config.dtype == "bfloat16" else 4)


def microbatches_of_longest(config: CompleteRun, data: TaskData) -> int:
    """The number of microbatches in a device's share of the longest batch."""
    return count_microbatches(
        rows_of_a_device(config), longest_batch(config, data).length, config.gradient_accumulation
    )


def more_microbatches(config: CompleteRun, data: TaskData) -> int | None:
    """The next larger number of microbatches that a device's rows divide into; None if each has one row."""
    rows, now = rows_of_a_device(config), microbatches_of_longest(config, data)
    return next((parts for parts in range(now + 1, rows + 1) if rows % parts == 0), None)


def rows_of_a_device(config: CompleteRun) -> int:
    """A device's share of a training batch, in rows."""
    return config.data.batch_size // devices.num_devices()


def longest_batch(config: CompleteRun, data: TaskData) -> PlannedBatch:
    """A batch with the longest training sentence."""
    return plan_batch(data.everything, np.array([data.everything.sizes.argmax()]), config.data.lengths)


def warn_of_labels(config: CompleteRun, pretrained: Pretrained, data: TaskData) -> None:
    """Warns if a classifier that teaches without being fine-tuned first does not seem to mean the data's classes.

    It is tested on the dev split. `Pretrained.assumed` says how its classes were matched with the data's.
    """
    if config.fine_tune or pretrained.config.head != "classification":
        return
    split = next(iter(data.dev.values()))
    if split.against != "labels":
        return
    warning = label_order_warning(data.labels, accuracy(config, pretrained, split), len(split))
    if warning:
        log.warning("%s: %s", config.model, warning)


def accuracy(config: CompleteRun, pretrained: Pretrained, split: Split) -> float:
    """The checkpoint's accuracy before anything is trained."""
    runner = in_jax.open_model(pretrained, config.dtype)
    logits = logits_of(runner, split, config.data, pretrained.config.pad_token_id)
    check_finite(config.model, split, logits)
    return float(np.mean(logits.argmax(axis=1) == split.labels))
