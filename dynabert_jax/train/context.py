"""What all stages of one run share, and how many steps and evaluations its configuration gives."""

import contextlib
import functools
import json
import platform
from collections.abc import Iterator, Sequence

import jax

from dynabert_jax.config.complete import CompleteRun, CompleteStage
from dynabert_jax.config.run import RunConfig
from dynabert_jax.data.encode import Split, TaskData
from dynabert_jax.data.sources import NOTHING, Given
from dynabert_jax.errors import UserError
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.matmul import matmul_rate
from dynabert_jax.model.params import Model, Params
from dynabert_jax.model.unit import in_unit, learned_unit, out_of_unit, standardised
from dynabert_jax.plan import Plan, StagePlan
from dynabert_jax.recipe import Known
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.given import keep
from dynabert_jax.runs.origin import Origin, settings_of
from dynabert_jax.system import devices
from dynabert_jax.system.packages import PACKAGES, source_fingerprint, version
from dynabert_jax.weights.files import Pretrained, tokenizer_fingerprint


class TrainingError(UserError, RuntimeError):
    """Training that cannot continue; the message says where it stopped and what to do."""


class Context:
    """What all stages of one run share.

    Attributes:
        plan: the stages that this call trains.
        pretrained: the model as it was loaded. A regression answers in the user's unit, as the labels in `data` are.
        source: another run, whose finished stages are taken over; None if there is none.
        only: the only stage that may train; None: all.
        chosen: what the recipe chose for the configuration, and why, in lines.
        given: rows in memory, by the file that is to keep them.
    """

    def __init__(
        self, config: CompleteRun, plan: Plan, pretrained: Pretrained, data: TaskData, folder: RunFolder,
        source: RunFolder | None = None, only: str | None = None,
        chosen: Sequence[str] = (), given: Given = NOTHING,
    ):  # fmt: skip
        self.config, self.plan, self.pretrained, self.data, self.folder = config, plan, pretrained, data, folder
        self.source, self.only, self.chosen, self.given = source, only, chosen, given
        unit = learned_unit(config.data.task, data.train, pretrained.config.unit)
        self.model = Bert(pretrained.config.replace(unit=unit), config.dtype, config.rematerialize)

    @property
    def first(self) -> Params:
        """The weights of the first stage. As in every stage, a regression answers in standardised numbers."""
        params = self.pretrained.params
        return params if self.pretrained.new_classifier else out_of_unit(params, self.model.config.unit)

    def learned(self, split: Split) -> Split:
        """The split as stages learn it: with standardised numbers."""
        return standardised(split, self.model.config.unit)

    def answering(self, params: Params) -> Model:
        """The model of a stage's weights which answers in the user's unit: to be scored, or written."""
        return Model(self.model.config, in_unit(params, self.model.config.unit))

    def origin(self, part: str, start: str | None) -> Origin:
        """What a part of the run is made from, if it starts from the weights of this fingerprint; None: of any."""
        labelled = part in ("fine_tune", "answers", "importance", "final")
        data = self.data.fingerprint_of_labelled if labelled else self.data.fingerprint
        return Origin(part, settings_of(self.config, part), data, self.pretrained.fingerprint, start)

    def examples(self, stage: StagePlan) -> Split:
        """What a stage trains on, with labels as it learns them: only what has labels, if it learns from them."""
        return self.learned(self.data.train if stage.learns_labels else self.data.everything)

    @functools.cached_property
    def run(self) -> str | None:
        """The fingerprint of this run in its logs."""
        return Origin("model", self.config, self.data.fingerprint, self.pretrained.fingerprint, None).run

    @functools.cached_property
    def peak_flops(self) -> float:
        """FLOP/s that all devices together could reach, as measured with large matmuls on one of them."""
        alone = 1 if jax.default_backend() == "cpu" else jax.local_device_count()  # a CPU's devices share its cores
        return matmul_rate(self.config.dtype) * alone * devices.num_hosts()


@contextlib.contextmanager
def begun(context: Context) -> Iterator[None]:
    """The first process makes and locks the run's folder; the others wait until it exists.

    Raises:
        RunFolderError: it cannot be written, another run trains in it, or the processes see different folders.
    """
    folder, here = context.folder, "the run folder is there"
    if devices.is_first():
        with folder.begun(context.config):
            devices.wait_for_all(here)
            yield
        return
    devices.wait_for_all(here)
    if not folder.config_file.exists():
        raise RunFolderError(f"{folder.path} is not the folder of the first process; all must see the same one")
    yield


def keep_rows(context: Context) -> None:
    """Writes rows that are in memory alone into the run's folder."""
    if devices.is_first():
        keep(context.given)


def check_same_run(context: Context) -> None:
    """Raises ParallelError if the processes of a run have read, or would compute, anything else than the first one."""
    devices.check_same_everywhere(_what_must_be_the_same(context))


def _what_must_be_the_same(context: Context) -> dict[str, str]:
    """Everything that a process reads before the first step, by its name in messages."""
    data, model = context.data, context.pretrained
    unlabelled = {} if data.unlabelled is None else {"unlabelled": data.unlabelled}
    splits = {"train": {"train": data.train} | unlabelled, "dev": data.dev, "test": data.test}
    return {
        "the program": source_fingerprint(),
        **{f"the version of {package}": str(version(package)) for package in PACKAGES},
        "the version of Python": platform.python_version(),
        **devices.arithmetic(),
        "the configuration": context.config.to_json(),
        **{
            f"the {kind} split {name}": one.fingerprint for kind, named in splits.items() for name, one in named.items()
        },
        "the names of the classes": json.dumps(data.labels),
        "the tokenizer": tokenizer_fingerprint(model.folder),
        "the pretrained model's config.json": repr(model.config),
        "the pretrained weights": model.fingerprint,
    }


def what_is_known(config: RunConfig, data: TaskData) -> Known:
    """What the recipe goes by."""
    by_labels = ("fine_tune", "final")
    return Known(
        sizes=data.everything.sizes,
        longest=max(int(split.sizes.max()) for split in data.splits),
        rows={name: len(data.train if name in by_labels else data.everything) for name in config.stages},
        dev=sum(map(len, data.dev.values())),
        share=devices.num_devices() * config.gradient_accumulation,
    )


def evaluation_steps(settings: CompleteStage, per_epoch: int) -> set[int]:
    """The steps after which the dev set is scored: evenly spread over every epoch or all of them, and at the end."""
    if settings.evaluations < 1:
        total, count = settings.epochs * per_epoch, max(1, round(settings.epochs * settings.evaluations))
        return {-(-total * part // count) for part in range(1, count + 1)}
    parts = min(int(settings.evaluations), per_epoch)
    return {
        epoch * per_epoch + -(-per_epoch * part // parts)
        for epoch in range(settings.epochs)
        for part in range(1, parts + 1)
    }
