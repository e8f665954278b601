"""The error of exports."""

from dynabert_jax.errors import UserError


class ExportError(UserError, RuntimeError):
    """An export that cannot be made or read, or whose answers are wrong; the message says why and what to do."""
