"""The small files of a run: written whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dynabert_jax.errors import UserError
from dynabert_jax.system.files import reason, whole


class RunFolderError(UserError, RuntimeError):
    """A run folder that cannot be used; the message says why and what to do."""


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with writing(path), whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file whole or not at all."""
    with writing(path), whole(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses is the user's to cure."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {reason(error)}. Free some space, or make it writable; the same command then goes "
            f"on from the last checkpoint"
        ) from error
