"""Times sub-networks on this device, and chooses one by a budget.

Promises: `choose`, `audit` and `question` read no weights and import no jax.
"""
