"""Matmuls: the only place that defines the arithmetic of a dtype.

`float32` is float32 everywhere; by default, accelerators would use fewer bits. `bfloat16` rounds both operands to
bfloat16 and sums in float32, forwards and backwards, which is fastest on tensor cores, TPUs and CPUs with bfloat16
instructions. Everything that is not a matmul (bias, activation, softmax, layer norm, residual) stays in float32.
"""

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp

from dynabert_jax.config.checked import Dtype


@functools.cache
def matmul_rate(dtype: Dtype, size: int = 2048) -> float:
    """Floating point operations per second of one device, measured on matmuls of square matrices.

    They run one after the other in a single program, so that its start does not count; an accelerator runs many.
    """
    count = 2 if jax.default_backend() == "cpu" else 200
    factor = jax.random.normal(jax.random.key(0), (1, size, size)) / size**0.5  # keeps the numbers' size

    @jax.jit
    def multiply(start: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, count, lambda _, a: matmul("bij,bjk->bik", a, factor, dtype), start)

    jax.block_until_ready(multiply(factor))  # compiled
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(multiply(factor))
        seconds.append(time.perf_counter() - start)
    return count * 2 * size**3 / min(seconds)


def matmul(equation: str, a: jax.Array, b: jax.Array, dtype: Dtype) -> jax.Array:
    """`jnp.einsum(equation, a, b)` in the arithmetic of `dtype`; the result is float32.

    It has only reverse-mode gradients: no jvp, no hessian.

    Args:
        equation: `[*rows, i]` times `[i, o]` or `[o, i]`, to `[*rows, o]`; or with a batch, whose indices are in all
            three, `[*batch, row, i]` times `[*batch, i, o]` or `[*batch, o, i]`, to `[*batch, row, o]`.

    Raises:
        ValueError: the equation has another form, or the operands have batches of different sizes.
    """
    if not _is_product(*_indices(equation)):
        raise ValueError(
            f"{equation!r} is not of the form 'ri,io->ro' or 'bri,bio->bro' (or with oi instead of io); b are the "
            f"batch's indices, which must be in all three, and r those of the rows: exactly one with a batch, any "
            f"number without"
        )
    batch = len(_batch_indices(*_indices(equation)))
    if a.shape[:batch] != b.shape[:batch]:
        raise ValueError(f"{equation!r}: the batches differ: {a.shape[:batch]} and {b.shape[:batch]}")
    return _product(equation, dtype, a, b)


def rounded_kernels(params: Any, dtype: Dtype) -> Any:
    """Parameters for forward passes only, with the kernels rounded as `matmul` rounds them.

    The network's answers are the same at less cost: otherwise every call reads all kernels to round them again. Arrays
    on the host stay there.
    """

    def rounded(path: tuple[jax.tree_util.DictKey, ...], a: jax.Array) -> jax.Array:
        return _rounded(a, dtype) if path[-1].key == "kernel" else a

    return jax.tree_util.tree_map_with_path(rounded, params)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(equation: str, dtype: Dtype, a: jax.Array, b: jax.Array) -> jax.Array:
    return _einsum(equation, _rounded(a, dtype), _rounded(b, dtype))


def _forward(equation: str, dtype: Dtype, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a, b = _rounded(a, dtype), _rounded(b, dtype)
    return _einsum(equation, a, b), (a, b)


def _backward(
    equation: str, dtype: Dtype, operands: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # With autodiff, the cotangent would be float32. Both backward matmuls would then run in float32, and XLA for CPUs
    # would transpose the larger operand of the second.
    a, b = operands
    left, right, out = _indices(equation)
    g = _rounded(g, dtype)
    by_a = _einsum(f"{out},{right}->{left}", g, b)
    batch = len(_batch_indices(left, right, out))
    if dtype == "bfloat16" and not batch:
        # As fast in this order. In another, XLA for CPUs may transpose the result, and fails with UNIMPLEMENTED.
        return by_a, _einsum(f"{left},{out}->{right}", a, g)
    first, second = (a, g) if left[-1] == right[-2] else (g, a)
    return by_a, _transposed_product(first, second, batch)


_product.defvjp(_forward, _backward)


def _transposed_product(a: jax.Array, b: jax.Array, batch: int) -> jax.Array:
    """a^T b: `[*batch, *rows, i]` and `[*batch, *rows, o]` to `[*batch, i, o]`; `batch` is the number of its axes."""
    if a.size > b.size:
        return _transposed_product(b, a, batch).swapaxes(-1, -2)  # transpose the smaller one
    sizes, i, o = a.shape[:batch], a.shape[-1], b.shape[-1]
    # Transpose before axes are merged: otherwise XLA would move it into the matmul, where it is slow.
    columns = jnp.moveaxis(a, -1, batch).reshape(math.prod(sizes), i, -1)
    rows = b.reshape(math.prod(sizes), -1, o)
    return _einsum("zir,zro->zio", columns, rows).reshape(*sizes, i, o)


def _is_product(left: str, right: str, out: str) -> bool:
    """Whether the equation has one of the forms that `matmul` takes."""
    batch, i, o = _batch_indices(left, right, out), left[-1:], out[-1:]
    rows = left[len(batch) : -1]
    is_result = left == f"{batch}{rows}{i}" and out == f"{batch}{rows}{o}"
    return is_result and right in (f"{batch}{i}{o}", f"{batch}{o}{i}") and (not batch or len(rows) == 1)


def _rounded(a: jax.Array, dtype: Dtype) -> jax.Array:
    return a.astype(jnp.bfloat16) if dtype == "bfloat16" else a


def _einsum(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` into float32, with batch axes merged: with several, XLA for CPUs may not use bfloat16."""
    left, right, out = _indices(equation)
    batch = a.shape[: len(_batch_indices(left, right, out))]
    n = len(batch)
    if n > 1:
        merged = f"z{left[n:]},z{right[n:]}->z{out[n:]}"
        result = _einsum(merged, a.reshape(-1, *a.shape[n:]), b.reshape(-1, *b.shape[n:]))
        return result.reshape(*batch, *result.shape[1:])
    # Named for both, because without a name jax's setting jax_default_matmul_precision would decide.
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jnp.einsum(equation, a, b, precision=precision, preferred_element_type=jnp.float32)


def _batch_indices(left: str, right: str, out: str) -> str:
    """The indices that both operands and the result have."""
    return "".join(index for index in left if index in right and index in out)


def _indices(equation: str) -> list[str]:
    """The indices of the first operand, of the second, and of the result."""
    return equation.replace("->", ",").split(",")
