"""The base of every error that a user can cause, and the hint that names what was probably meant."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something a user can fix. The message says what was given, what is allowed and what to do.

    The command line prints it without a traceback and exits with code 2. Anything else is a bug of this package.
    """


class MissingPackageError(UserError, RuntimeError):
    """An optional package is not installed; the message has the command that installs it."""


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """A hint such as `did you mean 'onnx'? ` with the closest of the names; empty where none is close.

    Args:
        name: what was given.
        names: what is allowed.
        cutoff: from 0, where even a distant name is suggested, to 1, where only the same one is.
    """
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f"did you mean {found[0]!r}? " if found else ""
