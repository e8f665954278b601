"""The small files of a run: written atomically, and with a checksum where they are read back."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.errors import UserError
from dynabert_jax.system.files import reason, whole
from dynabert_jax.system.json_file import JsonError, parse_object


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


CHECKSUM = "checksum"  # key in a JSON object, of all its other keys


def sealed(values: Mapping[str, Any]) -> str:
    """JSON with a checksum, so that a change of the file is noticed when it is read back."""
    return json.dumps({**values, CHECKSUM: _checksum(values)}, indent=2)


def unsealed(text: str | bytes) -> dict[str, Any]:
    """The values of `sealed`. Files of older versions have no checksum.

    Raises:
        JsonError: the text is no JSON object, or was changed after it was written.
    """
    values = parse_object(text)
    checksum = values.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(values):
        raise JsonError("it was changed after it was written")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


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
