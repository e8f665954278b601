"""Which packages are installed here, and what a feature that needs another one says."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence

from dynabert_jax.errors import MissingPackageError

# What numbers may depend on; the log names their versions.
PACKAGES = ("dynabert_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers")


def version(package: str) -> str | None:
    """None where it is not installed, which this package need not be."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def require(packages: Sequence[str], what: str, command: str) -> None:
    """Raises MissingPackageError, with the command that installs them, unless the packages are installed."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise MissingPackageError(f"{what} needs {' and '.join(missing)}; run `{command}`")


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
