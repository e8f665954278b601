"""Paths as people write them, and files that are written whole."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """With the home folder in place of ~; where ~ is followed by no user of this machine, as it stands."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def reason(error: Exception) -> str:
    """Why the system refused, in its words; the names of temporary files, which mean nothing to a user, left out."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def first_line(error: Exception) -> str:
    """Of what an error says; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary file, with the same ending, that takes the path's name once it is written."""
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # such as that there is no folder: that was told when writing failed
            temporary.unlink()


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def check_writable(path: Path) -> None:
    """Raises OSError where a folder cannot be made or written to."""
    nearest = nearest_existing(path)
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{nearest} is read-only")
