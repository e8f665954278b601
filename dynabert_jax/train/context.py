"""What all stages of one run share, and how many steps and evaluations its configuration gives."""

import contextlib
import functools
from collections.abc import Iterator

import jax

from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.stages import Stage
from dynabert_jax.data.encode import TaskData
from dynabert_jax.errors import UserError
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.matmul import matmul_rate
from dynabert_jax.plan import Plan
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.system import devices
from dynabert_jax.system.packages import PACKAGES, version
from dynabert_jax.weights.files import Pretrained

# What a checkpoint was trained from, in words that users know.
ORIGINS = {"data": "train or dev data (texts, labels or tokens)", "weights": "pretrained weights"}


class TrainingError(UserError, RuntimeError):
    """Training that cannot continue; the message says where it stopped and what to do."""


class Context:
    """What all stages of one run share.

    Attributes:
        plan: the stages that this call trains.
        origins: what every checkpoint was trained from: checksums of the data and of the pretrained weights, by name.
    """

    def __init__(self, config: RunConfig, plan: Plan, pretrained: Pretrained, data: TaskData, folder: RunFolder):
        self.config, self.plan, self.pretrained, self.data, self.folder = config, plan, pretrained, data, folder
        self.model = Bert(pretrained.config, config.dtype, config.rematerialize)
        self.origins = {"data": data.fingerprint, "weights": pretrained.fingerprint}

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


def check_same_run(context: Context) -> None:
    """Raises ParallelError if the processes of a run differ in configuration, data, weights or versions."""
    devices.check_same_everywhere(context.config.to_json(), "the configuration is")
    for origin, fingerprint in context.origins.items():
        devices.check_same_everywhere(fingerprint, f"the {ORIGINS[origin]} are")
    devices.check_same_everywhere(str([(package, version(package)) for package in PACKAGES]), "the versions are")


def steps_per_epoch(context: Context) -> int:
    return -(-len(context.data.train) // context.config.data.batch_size)


def evaluation_steps(settings: Stage, per_epoch: int) -> set[int]:
    """The steps after which the dev set is scored: evenly spread over every epoch, and at its end."""
    parts = min(settings.evaluations, per_epoch)
    return {
        epoch * per_epoch + -(-per_epoch * part // parts)
        for epoch in range(settings.epochs)
        for part in range(1, parts + 1)
    }
