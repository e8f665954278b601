"""Checkpoints with orbax: a tree of arrays and a small JSON record, written atomically."""

import dataclasses
import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orbax.checkpoint as ocp

from dynabert_jax.errors import UserError
from dynabert_jax.system import devices
from dynabert_jax.system.files import file_checksum
from dynabert_jax.system.json_file import JsonError, read_object

log = logging.getLogger(__name__)

Record = dict[str, Any]

CHECKSUMS = "checksums.json"  # in the folder of every checkpoint


class CheckpointError(UserError, RuntimeError):
    """A checkpoint that cannot be written or read; the message says which and what to do."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """The content of a checkpoint.

    Attributes:
        step: the training step.
        tree: the arrays.
        record: everything that is not an array.
    """

    step: int
    tree: Any
    record: Record


class Checkpoints:
    """The newest checkpoints in one folder of a stage. Use in a `with` block: leaving it waits for pending writes.

    Checkpoints are saved in the background. orbax writes into a temporary folder and renames it, so an interrupted
    checkpoint is never taken for a complete one. Checksums detect later damage.

    All processes of a run write together, into a folder that all of them see.

    Args:
        folder: only for these checkpoints.
        keep: the number of newest checkpoints to keep.
    """

    def __init__(self, folder: Path, keep: int = 1):
        self.folder = folder.resolve()
        self._whole: set[int] = set()  # steps known to be undamaged: reading a large checkpoint's files takes seconds
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._write_checksums),
            # Two managers are open at once. Separate prefixes keep the processes from mixing up their barriers.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=f"{self.folder.parent.name}_{self.folder.name}"
            ),
        )
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)  # makes the folder
        except OSError as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._manager.close()
        except Exception as failure:  # orbax and TensorStore have no base class for their errors, here and below
            if error is None:  # otherwise the first error matters
                raise self._cannot_write(failure) from failure

    def save(self, step: int, tree: Any, record: Record) -> None:
        """Writes a checkpoint, then drops the oldest. If the step already has one, nothing changes.

        Args:
            step: the training step.
            tree: arrays that are the same on every device.
            record: anything that JSON can hold.

        Raises:
            CheckpointError: this checkpoint, or the previous one that was still pending, cannot be written.
            ValueError: there is a newer checkpoint, so this one would not be kept.
        """
        if step in self._manager.all_steps():
            return
        if step < self.newest:
            raise ValueError(f"{self.folder} has a checkpoint of step {self.newest}, so none of step {step} is kept")
        items = ocp.args.Composite(
            tree=ocp.args.StandardSave(devices.across_hosts(tree)), record=ocp.args.JsonSave(record)
        )
        try:
            if self._manager.save(step, args=items):
                self._whole.add(step)
        except Exception as error:
            raise self._cannot_write(error) from error

    @property
    def newest(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        return max(self._manager.all_steps(), default=0)

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
            CheckpointError: something cannot be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._cannot_write(error) from error

    def restore(self, like: Any) -> Saved | None:
        """The newest undamaged checkpoint, or None if there are no checkpoints. Damaged ones are reported and removed.

        Args:
            like: a tree of arrays, or of their shapes, with the structure to restore.

        Returns:
            Arrays on every device.

        Raises:
            CheckpointError: all checkpoints are damaged, or the newest belongs to another model.
        """
        step = self._newest_undamaged()
        if step is None:
            return None
        tree = ocp.args.StandardRestore(devices.shapes_across_hosts(like))
        restored = self._restored(step, tree=tree, record=ocp.args.JsonRestore())
        return Saved(step, devices.of_this_host(restored["tree"]), restored["record"])

    def record(self) -> Record | None:
        """The record of the newest checkpoint, without its arrays; None if there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        step = self._newest_undamaged()
        if step is None:
            return None
        record: Record = self._restored(step, record=ocp.args.JsonRestore())["record"]
        return record

    def _restored(self, step: int, **items: Any) -> Any:
        """Restores these items of a checkpoint."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise self._cannot_read(step, reason[0] if reason else repr(error)) from error

    def _newest_undamaged(self) -> int | None:
        """Its step. Checked before orbax reads anything, because orbax does not notice changed numbers.

        Raises:
            CheckpointError: there are checkpoints but all are damaged, or they cannot be read.
        """
        newest_first = sorted(self._manager.all_steps(), reverse=True)
        devices.check_same_everywhere({f"the checkpoints in {self.folder}": str(newest_first)})
        if not newest_first:
            return None
        damages: dict[int, str] = {}
        for step in newest_first if devices.is_first() else ():
            damage = None if step in self._whole else damage_of(self.folder / str(step))
            if damage is None:
                break
            damages[step] = damage
        bad = devices.of_the_first(len(damages))  # number of newest ones; all processes use the first one's result
        if bad == len(newest_first):
            newest, too = newest_first[0], "; so are those before it" if bad > 1 else ""
            raise self._cannot_read(newest, damages.get(newest, "the first process found it damaged") + too)
        for step in newest_first[:bad]:
            log.warning(
                "the checkpoint %s is damaged (%s) and is removed; resuming from the one before it",
                self.folder / str(step), damages.get(step, "as the first process found"),
            )  # fmt: skip
            self._manager.delete(step)
        self._check_same(newest_first[bad])
        self._whole.add(newest_first[bad])
        return newest_first[bad]

    def _check_same(self, step: int) -> None:
        """Raises ParallelError if the processes see different checkpoints of this step."""
        try:
            written = (self.folder / str(step) / CHECKSUMS).read_text()
        except OSError as error:
            written = str(error)
        devices.check_same_everywhere({f"the checkpoint {self.folder / str(step)}": written})

    def _write_checksums(self) -> None:
        """orbax calls this after writing a new checkpoint's files and before renaming its folder."""
        for checkpoint in self.folder.glob("*.orbax-checkpoint-tmp"):
            if not (checkpoint / CHECKSUMS).exists():
                (checkpoint / CHECKSUMS).write_text(json.dumps(_checksums(checkpoint)))

    def _cannot_read(self, step: int, reason: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint {self.folder / str(step)} cannot be read: {reason}. It is damaged, or belongs to another "
            f"model; remove {self.folder.parent}, and the same command trains that stage again"
        )

    def _cannot_write(self, error: Exception) -> CheckpointError:
        cure = "free some space" if devices.num_hosts() == 1 else "free some space if needed, start all processes"
        return CheckpointError(
            f"cannot write a checkpoint to {self.folder}: {error}. The one before it, if there is one, is intact; "
            f"{cure}, and the same command resumes from there"
        )


def newest_step(folder: Path) -> int:
    """The newest step among the checkpoints in a folder; 0 if there is none. Creates and opens nothing."""
    return max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)


def record_of(checkpoint: Path) -> Record:
    """The record of a checkpoint in a folder that is only read, such as another run's.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return read_object(checkpoint / "record" / "metadata")  # as orbax's JsonSave writes it
    except (OSError, JsonError) as error:
        raise CheckpointError(f"the checkpoint {checkpoint} cannot be read: {error}") from error


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, in words; None if nothing is.

    Raises:
        CheckpointError: they cannot be read now, which may be temporary.
    """
    try:
        written, found = read_object(checkpoint / CHECKSUMS), _checksums(checkpoint)
        changed = [name for name in written.keys() | found.keys() if written.get(name) != found.get(name)]
    except (FileNotFoundError, JsonError) as error:
        return str(error)
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {checkpoint} cannot be read: {error}. Make it readable, and run the same command again"
        ) from error
    return f"{min(changed)} is missing or not as it was written" if changed else None


def _checksums(checkpoint: Path) -> dict[str, str]:
    """The SHA-256 of every file of the tree and the record. orbax does not need the other files."""
    files = sorted(path for item in ("tree", "record") for path in (checkpoint / item).rglob("*") if path.is_file())
    return {str(path.relative_to(checkpoint)): file_checksum(path) for path in files}
