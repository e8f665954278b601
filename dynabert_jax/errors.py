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
    """The hint `did you mean 'onnx'? ` with the closest name; empty if no name is close.

    Args:
        name: what was given.
        names: the allowed names.
        cutoff: least similarity, from 0 (any name is suggested) to 1 (only the same name is).
    """
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return f"did you mean {found[0]!r}? " if found else ""
