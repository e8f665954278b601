"""Answers to texts: a run, an export or a model, opened once and asked again and again.

Promises: the same rules for texts as in training; memory does not grow with a file; nothing half written is left.
"""
