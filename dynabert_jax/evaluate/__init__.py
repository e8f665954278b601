"""Scores: sub-networks and data to rows, and rows to tables.

Promises: a sub-network is cut out once and scored on every split; `rows` and `table` need no jax.
"""
