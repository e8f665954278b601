"""Inference with one network, in jax, ONNX Runtime or transformers: inputs to answers and the work done.

Promises: no other folder compiles a forward pass; every runner gives a text the same answer in any batch, within
rounding.
"""
