"""Checkpoints with orbax: a tree of arrays and a small JSON record, written whole or not at all."""

import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

Record = dict[str, Any]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message says which and what to do."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        step: of training.
        tree: the arrays.
        record: what belongs to them and is not an array.
    """

    step: int
    tree: Any
    record: Record


class Checkpoints:
    """The newest checkpoint in a folder. Use it in a `with` block: leaving waits for what is being written.

    Saving goes on in the background. orbax writes into a temporary folder and renames it, so a checkpoint that was
    interrupted is never taken for a whole one.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()

    def save(self, step: int, tree: Any, record: Record) -> None:
        """Writes a checkpoint and then drops the one before it. A step that is there already is left as it is."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(tree=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record))
        try:
            self._manager.save(step, args=items)
        except OSError as error:
            raise CheckpointError(
                f"cannot write a checkpoint to {self.folder}: {error}; the one before it is whole"
            ) from error

    def wait(self) -> None:
        """Returns when everything is on disk."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot write a checkpoint to {self.folder}: {error}; the one before it is whole"
            ) from error

    def restore(self, like: Any) -> Saved | None:
        """The newest checkpoint, or None where there is none.

        Args:
            like: a tree of arrays (or of their shapes) with the structure, shapes and placement to restore to.

        Raises:
            CheckpointError: it is damaged, or belongs to another model.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(tree=ocp.args.StandardRestore(target), record=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=items)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).strip().splitlines()
            raise CheckpointError(
                f"the checkpoint {self.folder / str(step)} cannot be read: {reason[0] if reason else error!r}. It is "
                f"damaged, or of another model; remove {self.folder} to start this stage again"
            ) from error
        return Saved(step, restored["tree"], restored["record"])
