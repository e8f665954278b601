"""Predictions for texts from a run, an export or a model, which is loaded once.

Promises: texts are read as in training; memory does not grow with a file; output files are written atomically.
"""
