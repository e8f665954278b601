"""8-bit ONNX files: their answers differ, so the loss is measured in the task's score."""

import dataclasses
from pathlib import Path

from dynabert_jax.config.tasks import Task
from dynabert_jax.evaluate.metrics import score
from dynabert_jax.evaluate.rows import measure
from dynabert_jax.export import onnx_file
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.verify import Sentences, answers
from dynabert_jax.infer.in_onnxruntime import FLOAT, INT8, open_file
from dynabert_jax.infer.runner import Source


@dataclasses.dataclass(frozen=True)
class Loss:
    """The cost of quantizing on one split: the main scores of the float32 file and the quantized one, as fractions.

    Attributes:
        metric: in words.
    """

    split: str
    examples: int
    metric: str
    exact: float
    quantized: float

    def __str__(self) -> str:
        return (
            f"{INT8}: {self.metric} x 100 on {self.split} ({self.examples:,} examples) is "
            f"{100 * self.quantized:.2f}, and {100 * self.exact:.2f} in float32: {self.change:+.2f}"
        )

    @property
    def change(self) -> float:
        return 100 * (self.quantized - self.exact)


def check_possible(format: str, sentences: Sentences) -> None:
    """Raises ExportError if the format cannot be quantized, or there is no dev data to score it on."""
    if format != "onnx":
        raise ExportError(f"--int8 quantizes ONNX files; use --format onnx, or leave --int8 out with {format}")
    if not sentences.dev:
        raise ExportError(
            f"--int8 measures the loss of score on the run's dev data, which cannot be read: {sentences.problem}. "
            f"Restore the data, or leave --int8 out"
        )


def quantize(source: Source, task: Task, sentences: Sentences, folder: Path) -> tuple[Loss, ...]:
    """Writes model_int8.onnx next to model.onnx, and scores both on every dev split."""
    onnx_file.quantize(folder)
    (sub,), pad, labels = source.subs, source.model.config.pad_token_id, source.model.config.labels
    runners = [open_file(folder / name, len(sub.layers)) for name in (FLOAT, INT8)]
    positive, losses = task.positive_class(labels), []
    for name, split in sentences.dev.items():
        scores = [
            score(task, answers(runner, split, pad), split.labels, labels)[task.main_metric] for runner in runners
        ]
        losses.append(Loss(name, len(split), measure(task.main_metric, split.against, positive), *scores))
    return tuple(losses)
