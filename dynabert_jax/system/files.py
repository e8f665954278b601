"""Paths as users write them; files that are written atomically, locked, and identified by their content."""

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock


def expanded(path: str | Path) -> Path:
    """The path with ~ replaced by the home folder; unchanged if ~ is followed by an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def reason(error: Exception) -> str:
    """Why the system refused, in its own words, without file names: a temporary one means nothing to a user."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def first_line(error: BaseException) -> str:
    """The first line of the error's message; its type if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def file_checksum(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_damage(folder: Path, checksums: Mapping[str, str]) -> str | None:
    """What is wrong with the first file that is not as it was written, in words; None if nothing is.

    Args:
        checksums: the SHA-256 of each file by its path in the folder.
    """
    for name, checksum in checksums.items():
        try:
            if file_checksum(folder / name) != checksum:
                return f"{folder / name} is damaged, or was changed after it was written"
        except OSError as error:
            return f"{folder / name} cannot be read ({reason(error)})"
    return None


@contextlib.contextmanager
def whole(path: Path, replace: bool = True) -> Iterator[Path]:
    """Yields a temporary file with the same ending, renamed to `path` at the end: the file appears atomically.

    A file that is replaced keeps its mode, and nobody else can read the new one before. Where `path` is a link, the
    file that it names is replaced, and the link stays.

    Raises:
        FileExistsError: by the end there is such a file, and it is not to be replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    with temporary_beside(path) as temporary:
        if mode is not None:
            temporary.touch(mode=0o600)
        yield temporary
        if mode is not None:
            temporary.chmod(mode)
        if replace:
            temporary.replace(path)
        else:
            _appear(temporary, path)


def _appear(temporary: Path, path: Path) -> None:
    """Renames a file, unless another one has the name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.replace(path)


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Holds the lock of a file or folder, which need not exist. The system releases it however this process ends.

    Raises:
        filelock.Timeout: another process held it for `timeout` seconds.
        OSError: the folder that it is in cannot be written.
    """
    with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout):
        yield


# Temporary files and folders. Their names have the host, the process and a token, so that those of a process that was
# killed are recognised and removed by the next one that writes the same thing.

_TEMPORARY = re.compile(r"\.(?P<host>.+)-(?P<process>\d+)-(?P<token>[0-9a-f]{8})\.tmp\.")
_in_use: set[str] = set()  # tokens of this process


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yields a path in the same folder, with the same ending; what is there at the end of the block is removed."""
    for left in leftovers(path):
        remove(left)
    token = secrets.token_hex(4)
    temporary = path.with_name(f".{socket.gethostname()}-{os.getpid()}-{token}.tmp.{path.name}")
    _in_use.add(token)
    try:
        yield temporary
    finally:
        remove(temporary)
        _in_use.discard(token)


def leftovers(path: Path) -> list[Path]:
    """What processes that were killed left behind when they wrote this file or folder."""
    try:
        there = list(path.parent.iterdir())
    except OSError:  # such as no folder, reported when it is written to
        return []
    return [one for one in there if one.name.endswith(f".tmp.{path.name}") and _was_left(one.name)]


def _was_left(name: str) -> bool:
    """Whether the process that made a temporary file has ended. Of another host, nothing is known."""
    match = _TEMPORARY.match(name)
    if match is None or match["host"] != socket.gethostname() or os.name != "posix":
        return False
    if int(match["process"]) == os.getpid():  # containers give the same numbers again
        return match["token"] not in _in_use
    try:
        os.kill(int(match["process"]), 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # the process is another user's, or there can be no such number
        return False
    return False


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


_EXCHANGE = 2  # RENAME_EXCHANGE of Linux


def exchange(one: Path, other: Path) -> bool:
    """Swaps two files or folders atomically; returns False, and does nothing, where the system cannot.

    Raises:
        OSError: the system can, and refuses.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    here = -100  # AT_FDCWD: paths are relative to the current folder
    if renameat2(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # an older kernel, or a file system without it
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


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
