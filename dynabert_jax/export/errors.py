"""What can go wrong in an export by the user's hand, and the packages that a format asks for."""

import importlib.util
from collections.abc import Sequence


class ExportError(RuntimeError):
    """An export that cannot be made, or that does not answer as it should; the message says why and what to do."""


def require(packages: Sequence[str], what: str, cure: str) -> None:
    """Raises ExportError, with the command that installs them, unless the packages are there."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise ExportError(f"{what} needs {' and '.join(missing)}; run `{cure}`")


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
