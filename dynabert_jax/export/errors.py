"""What can go wrong in an export by the user's hand."""

from dynabert_jax.errors import UserError


class ExportError(UserError, RuntimeError):
    """An export that cannot be made, or that does not answer as it should; the message says why and what to do."""
