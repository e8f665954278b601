"""Matrix products: the one place that knows what arithmetic a dtype stands for.

`float32` is float32 everywhere: left to themselves, accelerators multiply it in fewer bits. `bfloat16` rounds both
operands to bfloat16 and sums in float32, forwards and backwards: what tensor cores, TPUs and CPUs with bfloat16
instructions are fastest at. Everything that is not a product (bias, activation, softmax, layer norm, residual) stays in
float32.
"""

import functools
import math
import time

import jax
import jax.numpy as jnp

from dynabert_jax.config import Dtype


@functools.cache
def product_rate(dtype: Dtype, size: int = 2048) -> float:
    """Floating point operations a second of one device, measured on products of square matrices.

    One after the other in a single program, so that starting it costs nothing beside them; an accelerator does many.
    """
    count = 2 if jax.default_backend() == "cpu" else 200
    factor = jax.random.normal(jax.random.key(0), (1, size, size)) / size**0.5  # products keep the size of numbers

    @jax.jit
    def multiply(start: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, count, lambda _, a: product("bij,bjk->bik", a, factor, dtype), start)

    jax.block_until_ready(multiply(factor))  # compiled
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(multiply(factor))
        seconds.append(time.perf_counter() - start)
    return count * 2 * size**3 / min(seconds)


def product(equation: str, a: jax.Array, b: jax.Array, dtype: Dtype) -> jax.Array:
    """`jnp.einsum(equation, a, b)` in the arithmetic of `dtype`; the result is float32.

    Every index of an operand must stand in the other operand or in the result, so that a product's two gradients are
    products again; those in all three must come first.
    """
    return _product(equation, dtype, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(equation: str, dtype: Dtype, a: jax.Array, b: jax.Array) -> jax.Array:
    return _einsum(equation, _rounded(a, dtype), _rounded(b, dtype))


def _forward(equation: str, dtype: Dtype, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a, b = _rounded(a, dtype), _rounded(b, dtype)
    return _einsum(equation, a, b), (a, b)


def _backward(
    equation: str, dtype: Dtype, operands: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # Left to autodiff, the cotangent would be float32 and both backward products would run in float32.
    a, b = operands
    left, right, out = _indices(equation)
    g = _rounded(g, dtype)
    return _einsum(f"{out},{right}->{left}", g, b), _over_rows(f"{left},{out}->{right}", a, g)


_product.defvjp(_forward, _backward)


def _over_rows(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """The einsum of operands whose rows are summed over, a^T b, of which one has to be transposed.

    XLA for CPUs transposes the first, however large, and multiplies slowly where it does that inside of the product.
    Here it is the smaller one, and its axes are merged, which keeps XLA from moving the transposition back into the
    product.
    """
    left, right, out = _indices(equation)
    batch = _batch(left, right, out)
    if not batch and a.dtype == jnp.bfloat16:
        return _einsum(equation, a, b)  # is as fast; XLA for CPUs cannot run some of the others
    if a.size > b.size:
        left, right, a, b = right, left, b, a
    sizes = dict(zip(left + right, a.shape + b.shape, strict=True))
    summed = "".join(index for index in left if index in right and index not in out)
    rows = "".join(index for index in left if index not in right)
    columns = "".join(index for index in right if index not in left)

    def arranged(operand: jax.Array, indices: str, *axes: str) -> jax.Array:
        """With these axes, each of them one or several of the operand's."""
        moved = jnp.transpose(operand, [indices.index(index) for index in "".join(axes)])
        return moved.reshape([math.prod(sizes[index] for index in axis) for axis in axes])

    found = _einsum("zrs,zsc->zrc", arranged(a, left, batch, rows, summed), arranged(b, right, batch, summed, columns))
    found = found.reshape([sizes[index] for index in batch + rows + columns])
    return jnp.transpose(found, [(batch + rows + columns).index(index) for index in out])


def _rounded(a: jax.Array, dtype: Dtype) -> jax.Array:
    return a.astype(jnp.bfloat16) if dtype == "bfloat16" else a


def _einsum(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Batch axes are merged: with two of them, XLA for CPUs may leave bfloat16."""
    left, right, out = _indices(equation)
    batch = a.shape[: len(_batch(left, right, out))]
    n = len(batch)
    if n > 1:
        merged = f"z{left[n:]},z{right[n:]}->z{out[n:]}"
        found = _einsum(merged, a.reshape(-1, *a.shape[n:]), b.reshape(-1, *b.shape[n:]))
        return found.reshape(*batch, *found.shape[1:])
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.einsum(equation, a, b, precision=precision, preferred_element_type=jnp.float32)


def _batch(left: str, right: str, out: str) -> str:
    """The indices of both operands and the result, which all of them begin with."""
    return "".join(index for index in left if index in right and index in out)


def _indices(equation: str) -> list[str]:
    """Those of the first operand, of the second and of the result."""
    return equation.replace("->", ",").split(",")
