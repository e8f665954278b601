"""Expanding paths as users write them, and writing files atomically."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """The path with ~ replaced by the home folder; unchanged if ~ is followed by an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def reason(error: Exception) -> str:
    """Why the system refused, in its own words, without file names: a temporary one means nothing to a user."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def first_line(error: Exception) -> str:
    """The first line of the error's message; its type if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields a temporary file with the same ending, renamed to `path` at the end: the file appears atomically."""
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # such as no folder, reported when writing failed
            temporary.unlink()


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def check_writable(path: Path) -> None:
    """Raises OSError if a folder cannot be created or written to."""
    nearest = nearest_existing(path)
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{nearest} is read-only")
