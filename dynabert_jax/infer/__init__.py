"""How one network answers: inputs to answers and the work done, in jax, ONNX Runtime or transformers.

Promises: the only folder that compiles a forward pass; every runner answers one text as it answers it in any batch,
within rounding.
"""
