"""The small files of a run, written atomically."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dynabert_jax.errors import UserError
from dynabert_jax.system.files import reason, whole


class RunFolderError(UserError, RuntimeError):
    """A run folder that cannot be used; the message says why and what to do."""


def write_whole(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with writing(path), whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file atomically."""
    with writing(path), whole(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into a RunFolderError, because the user can fix it."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {reason(error)}. Free some space, or make it writable; the same command then "
            f"resumes from the last checkpoint"
        ) from error
