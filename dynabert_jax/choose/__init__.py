"""Which sub-network: timing them on this device, and choosing by a budget.

Promises: `choose`, `audit` and `question` read no weights and import no jax.
"""
