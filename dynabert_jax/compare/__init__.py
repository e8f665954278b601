"""Compares a checkpoint's answers here with those of the authors' PyTorch code.

Promises: their code runs in a process of its own, which imports nothing of this package.
"""
