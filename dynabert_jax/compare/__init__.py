"""The same checkpoint here and in the authors' PyTorch code, side by side.

Promises: their code runs in a process of its own, and nothing of ours is imported there.
"""
