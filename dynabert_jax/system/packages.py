"""Which packages are installed, and the error of a feature that needs another one."""

import hashlib
import importlib.metadata
import importlib.util
import shlex
import sys
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


def require(packages: Sequence[str], what: str, extra: str = "") -> None:
    """Raises MissingPackageError, with the command that installs them, unless the packages are installed.

    Args:
        packages: the names under which they are imported.
        what: what needs them, for the message.
        extra: the extra of this package that has them; empty: they are installed by their names.
    """
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        wanted = of_extra(extra) if extra else " ".join(missing)
        raise MissingPackageError(f"{what} needs {' and '.join(missing)}; run `{install_command(wanted)}`")


def install_command(wanted: str) -> str:
    """The command that installs for this very interpreter, whatever environment the shell has activated."""
    return f"{shlex.quote(sys.executable)} -m pip install {wanted}"


def of_extra(extra: str) -> str:
    """What pip installs an extra from: this package by its name or, where pip does not know it, this clone.

    An installed package is enough, also where it is installed from a clone: pip then installs only what is missing.
    """
    if version("dynabert_jax") is None:
        return f'-e "{Path(__file__).parents[2]}[{extra}]"'
    return f'"dynabert_jax[{extra}]"'


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
