"""Standard output, and errors in plain words. No jax."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from dynabert_jax.errors import UserError

READER_LEFT = 128 + signal.SIGPIPE  # exit code


def told(work: Callable[[], object]) -> int:
    """Does the work; returns the exit code: an error that the user can fix becomes a message and exit code 2."""
    try:
        with checked_stdout():
            work()
    except BrokenPipeError:  # the reader has left, as `head` does
        silence_stdout()
        return READER_LEFT
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


@contextlib.contextmanager
def checked_stdout() -> Iterator[None]:
    """Writes out what the block prints, while a failure can still be reported.

    Raises:
        BrokenPipeError: the reader has left.
        UserError: standard output cannot be written, for example because the disk is full.
    """
    if sys.stdout is None:  # it was closed before this program began
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
        return
    output = _Checked(sys.stdout)
    with contextlib.redirect_stdout(output):
        try:
            yield
        except SystemExit:  # tyro prints help, and leaves
            output.flush()
            raise
        output.flush()


class _Checked:
    """A file that is like another one, and raises UserError where that cannot be written."""

    def __init__(self, file: TextIO):
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with _reported():
            return self._file.write(text)

    def flush(self) -> None:
        with _reported():
            self._file.flush()


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        silence_stdout()
        raise UserError(f"cannot write to standard output: {error.strerror}") from error


def silence_stdout() -> None:
    """Drops what could not be written. Otherwise Python tries again at exit, and reports that it failed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
