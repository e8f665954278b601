"""The files of a run: configuration, lock, logs, latency card, and the finished run read back.

Promises: files are written atomically; only one process trains in a folder; reading a finished run imports no jax, and
its weights are read when they are first used.
"""
