"""Starts a command: imports jax first, because its settings in the environment may be wrong."""

import importlib
import sys


def start(module: str) -> int:
    """Runs the `main` of this module; returns the exit code."""
    try:
        import jax  # noqa: F401 - reads all its settings
    except ValueError as error:
        if "jax" not in str(error).lower():
            raise
        print(f"error: jax cannot read a setting in the environment: {error}. Correct it, or unset it", file=sys.stderr)
        return 2
    code: int = importlib.import_module(module).main()
    return code
