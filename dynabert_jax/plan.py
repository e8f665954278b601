"""What a run trains: for each stage the students, grouped by their teacher, and the loss weights. No jax."""

import dataclasses
import zlib
from typing import NamedTuple

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.complete import (
    CompleteDepthStage,
    CompleteFinalStage,
    CompleteFineTune,
    CompleteRun,
    CompleteStage,
    CompleteWidthStage,
)
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import SubNetwork, check_names, families_of, uniform_grid


@dataclasses.dataclass(frozen=True)
class Group:
    """Students that share one teacher's outputs; without a teacher they learn only from the labels."""

    teacher: SubNetwork | None
    students: tuple[SubNetwork, ...]

    @property
    def families(self) -> tuple[tuple[SubNetwork, ...], ...]:
        """The students in groups that run as one program: those with the same first kept layer."""
        return families_of(self.students)


class LossWeights(NamedTuple):
    """Factors of the three parts of a student's loss."""

    logit: float
    hidden: float
    label: float


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """What a stage trains.

    Attributes:
        name: the stage's folder and its name in logs.
        settings: epochs, optimizer, what is kept.
        groups: the students, grouped by their teacher.
        weights: factors of the parts of the loss.
    """

    name: str
    settings: CompleteStage
    groups: tuple[Group, ...]
    weights: LossWeights

    @property
    def number(self) -> int:
        """A number made from the stage's name; it seeds the stage's random numbers."""
        return zlib.crc32(self.name.encode())

    @property
    def has_teacher(self) -> bool:
        return any(group.teacher for group in self.groups)

    @property
    def learns_labels(self) -> bool:
        """Whether the loss on the labels counts, so that every example needs one."""
        return self.weights.label > 0

    @property
    def students(self) -> tuple[SubNetwork, ...]:
        return tuple(student for group in self.groups for student in group.students)


LABELS_ONLY = LossWeights(logit=0.0, hidden=0.0, label=1.0)


def fine_tune(config: ModelConfig, settings: CompleteFineTune) -> StagePlan:
    """The full network learns the labels."""
    return StagePlan("fine_tune", settings, (Group(None, (SubNetwork.full(config),)),), LABELS_ONLY)


def width(config: ModelConfig, settings: CompleteWidthStage) -> StagePlan:
    """Every width at full depth learns from the full fine-tuned network."""
    students = uniform_grid(config, settings.widths, (1.0,))
    return _distil("width", config, settings, (Group(SubNetwork.full(config), students),))


def depth(config: ModelConfig, settings: CompleteDepthStage) -> StagePlan:
    """Every width and depth learns from the width stage's network, at its own width or the full one."""
    students = uniform_grid(config, settings.widths, settings.depths)
    if settings.teacher_width == "full":
        return _distil("depth", config, settings, (Group(SubNetwork.full(config), students),))
    groups = tuple(
        Group(SubNetwork.uniform(config, width, 1.0), tuple(s for s in students if s.width == width))
        for width in sorted(set(settings.widths), reverse=True)
    )
    return _distil("depth", config, settings, tuple(group for group in groups if group.students))


def final(config: ModelConfig, settings: CompleteFinalStage) -> StagePlan:
    """Every width and depth learns the labels."""
    students = uniform_grid(config, settings.widths, settings.depths)
    return StagePlan("final", settings, (Group(None, students),), LABELS_ONLY)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The stages of a run; None for a stage that the run leaves out."""

    fine_tune: StagePlan | None
    width: StagePlan | None
    depth: StagePlan | None
    final: StagePlan | None

    @property
    def stages(self) -> tuple[StagePlan, ...]:
        """The stages that the run has, in order."""
        return tuple(stage for stage in (self.fine_tune, self.width, self.depth, self.final) if stage)

    @property
    def distils(self) -> bool:
        """Whether sizes learn from the teacher: the fine-tuned network or, without fine-tuning, the pretrained one."""
        first = self.width or self.depth
        return first is not None and first.has_teacher


def plan_run(config: ModelConfig, run: CompleteRun) -> Plan:
    """What the run's stages train, for a model of this shape.

    Raises:
        ConfigError: a width or depth would keep no head or no layer, or two sub-networks would have one name.
    """
    try:
        plan = Plan(
            fine_tune=fine_tune(config, run.fine_tune) if run.fine_tune else None,
            width=width(config, run.width) if run.width else None,
            depth=depth(config, run.depth) if run.depth else None,
            final=final(config, run.final) if run.final else None,
        )
        check_names([student for stage in plan.stages for student in stage.students])
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return plan


def results_of(config: ModelConfig, plan: Plan) -> tuple[SubNetwork, ...]:
    """The sub-networks that a run ends with: its last stage's students, or the full network if nothing trains."""
    return plan.stages[-1].students if plan.stages else (SubNetwork.full(config),)


def _distil(
    name: str, config: ModelConfig, settings: CompleteWidthStage | CompleteDepthStage, groups: tuple[Group, ...]
) -> StagePlan:
    without_logits = config.is_regression and not settings.distil_regression
    logit_weight = 0.0 if without_logits else settings.logit_weight
    if logit_weight == settings.hidden_weight == 0.0:
        groups = tuple(Group(None, group.students) for group in groups)
    return StagePlan(name, settings, groups, LossWeights(logit_weight, settings.hidden_weight, settings.label_weight))
