"""The layers with weights: x W + b in three shapes, and layer norm.

Letters in shapes: B examples, S tokens, H hidden size, N heads, D head size; n is how many heads run.
"""

import jax
from flax import linen as nn

from dynabert_jax.config.checked import Dtype
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.model.matmul import matmul

kernel_init = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros_init()


class Dense(nn.Module):
    """x W + b; a call may use only the first inputs and outputs."""

    inputs: int
    outputs: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, inputs: int | None = None, outputs: int | None = None) -> jax.Array:
        """`[..., inputs]` to `[..., outputs]`; None means all of them."""
        kernel = self.param("kernel", kernel_init, (self.inputs, self.outputs))[:inputs, :outputs]
        bias = self.param("bias", _zeros, (self.outputs,))[:outputs]
        equation = "bsi,io->bso" if x.ndim == 3 else "bi,io->bo"
        return matmul(equation, x, kernel, self.dtype) + jax.lax.broadcast_to_rank(bias, x.ndim)


class ToHeads(nn.Module):
    """Projects the hidden state to the first heads' queries, keys or values."""

    hidden_size: int
    heads: int
    head_size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, heads: int) -> jax.Array:
        """`[B, S, H]` to `[B, n, S, D]`."""
        kernel = self.param("kernel", kernel_init, (self.hidden_size, self.heads, self.head_size))[:, :heads]
        bias = self.param("bias", _zeros, (self.heads, self.head_size))[None, :heads, None]  # [1, n, 1, D]
        # A matmul and then a transpose: in XLA for CPUs, a matmul with a transposed result is slow.
        flat = matmul("bsi,io->bso", x, kernel.reshape(self.hidden_size, -1), self.dtype)  # [B, S, n D]
        return flat.reshape(*x.shape[:2], heads, self.head_size).swapaxes(1, 2) + bias


class FromHeads(nn.Module):
    """Projects the heads' contexts back to the hidden size."""

    hidden_size: int
    heads: int
    head_size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, context: jax.Array) -> jax.Array:
        """`[B, n, S, D]` to `[B, S, H]`."""
        kernel = self.param("kernel", kernel_init, (self.heads, self.head_size, self.hidden_size))
        bias = self.param("bias", _zeros, (self.hidden_size,))
        kernel = kernel[: context.shape[1]].reshape(-1, self.hidden_size)  # [n D, H]
        # As in ToHeads, the transpose is separate from the matmul.
        flat = context.swapaxes(1, 2).reshape(context.shape[0], context.shape[2], -1)  # [B, S, n D]
        return matmul("bsi,io->bso", flat, kernel, self.dtype) + bias[None, None]


def layer_norm(config: ModelConfig) -> nn.LayerNorm:
    """Layer norm over the hidden size, with a two-pass variance: the fast one loses digits that the reference keeps."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False)
