"""Which packages are installed, and the error of a feature that needs another one."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from dynabert_jax.errors import MissingPackageError

# Packages that results may depend on; the log lists their versions.
PACKAGES = ("dynabert_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers", "tokenizers")


def version(package: str) -> str | None:
    """The installed version; None if it is not installed, as even this package may not be."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def source_fingerprint() -> str:
    """A SHA-256 of this package's source files: two clones of one version may differ."""
    folder, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size} ".encode() + file.read_bytes())
    return digest.hexdigest()


def require(packages: Sequence[str], what: str, command: str) -> None:
    """Raises MissingPackageError, with the command that installs them, unless the packages are installed."""
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        raise MissingPackageError(f"{what} needs {' and '.join(missing)}; run `{command}`")


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
