"""The settings of each stage of a run; the defaults are the paper's values, or None for what the recipe chooses."""

from typing import Any, Literal, Self

import pydantic

from dynabert_jax.config.checked import (
    AtLeastOne,
    Checked,
    Count,
    Fraction,
    Fractions,
    NonNegative,
    Positive,
    Probability,
)

Evaluations = AtLeastOne | Fraction


class Optimizer(Checked):
    """AdamW with a linear schedule.

    Attributes:
        learning_rate: the largest one; None: the recipe's, by the model's size.
        warmup: fraction of the stage's steps over which the learning rate rises from 0; None: the recipe's.
        clip_norm: largest global norm of the gradient, summed over the sub-networks.
    """

    learning_rate: Positive | None = None
    weight_decay: NonNegative = 0.0
    warmup: Probability | None = None
    b1: Probability = 0.9
    b2: Probability = 0.999
    eps: Positive = 1e-8
    clip_norm: Positive = 1.0


class Stage(Checked):
    """The settings that every stage has.

    Attributes:
        epochs: passes over the training data; None: the recipe's, by the number of steps that a stage needs.
        evaluations: dev evaluations per epoch, evenly spread, with one at its end; less than 1, such as 0.25, for one
            in several epochs. There is always one at the end of the stage. None: the recipe's.
        keep: which weights the stage passes on: those with the best mean dev score over its sub-networks, or the last.
    """

    epochs: AtLeastOne | None = None
    optimizer: Optimizer = Optimizer()
    evaluations: Evaluations | None = None
    keep: Literal["best", "last"] = "best"

    @pydantic.field_validator("evaluations", mode="before")
    @classmethod
    def _check_evaluations(cls, value: Any) -> Any:
        """One message instead of one for each of the two types."""
        if isinstance(value, int | float) and not (0 < value < 1 or (value >= 1 and isinstance(value, int))):
            raise ValueError("should be a whole number from 1, or a fraction between 0 and 1")
        return value


class FineTune(Stage):
    """Ordinary fine-tuning of the full network on the labels; its result is the first teacher."""


class Distillation(Stage):
    """A stage whose students learn from a teacher.

    The loss of one student is
    logit_weight * L_pred + hidden_weight * L_hidden + label_weight * the task's own loss on the labels.

    Attributes:
        widths: multipliers of heads and neurons.
        distil_regression: match the outputs of a regression task by mean squared error; the released code does not.
    """

    widths: Fractions = (1.0, 0.75, 0.5, 0.25)
    logit_weight: NonNegative = 1.0
    hidden_weight: NonNegative = 1.0
    label_weight: NonNegative = 0.0
    distil_regression: bool = True

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.logit_weight or self.hidden_weight or self.label_weight):
            raise ValueError("logit_weight, hidden_weight and label_weight are all 0; set at least one")
        return self


class WidthStage(Distillation):
    """Distil the fine-tuned model into every width at full depth (the paper, section 2.1)."""

    hidden_weight: NonNegative = 0.1


class DepthStage(Distillation):
    """Distil the width-adaptive model into every width and depth (the paper, section 2.2).

    Attributes:
        depths: multipliers of layers.
        teacher_width: run the teacher at the student's width, as in the paper, or at full width, as in the released
            code.
    """

    depths: Fractions = (1.0, 0.75, 0.5)
    teacher_width: Literal["same", "full"] = "same"


class FinalStage(Stage):
    """Final fine-tuning of every sub-network on the labels, without a teacher (the paper, table 1)."""

    widths: Fractions = (1.0, 0.75, 0.5, 0.25)
    depths: Fractions = (1.0, 0.75, 0.5)


class Importance(Checked):
    """How heads and neurons are scored before rewiring (the paper, section 2.1).

    Attributes:
        split: the examples on which scores are computed; the released code uses the dev set.
        gradients: each batch's own, as in the paper, or summed from batch to batch without being zeroed, as in the
            released code.
        batch_size: examples per batch.
        max_examples: use only this many, drawn with the run's seed; 0 means all.
    """

    split: Literal["train", "dev"] = "train"
    gradients: Literal["per_batch", "running"] = "per_batch"
    batch_size: AtLeastOne = 32
    max_examples: Count = 0
