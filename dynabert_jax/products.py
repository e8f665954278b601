"""Matrix products: the one place that knows what arithmetic a dtype stands for.

`float32` is float32 everywhere: left to themselves, accelerators multiply it in fewer bits. `bfloat16` rounds both
operands to bfloat16 and sums in float32, forwards and backwards: what tensor cores, TPUs and CPUs with bfloat16
instructions are fastest at. Everything that is not a product (bias, activation, softmax, layer norm, residual) stays in
float32.
"""

import functools
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
    products again.
    """
    if dtype == "float32":
        return jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST)
    return _bfloat16_product(equation, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bfloat16_product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return _einsum(equation, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


def _forward(equation: str, a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    return _einsum(equation, a, b), (a, b)


def _backward(equation: str, operands: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Left to autodiff, the cotangent would be float32 and both backward products would run in float32.
    a, b = operands
    inputs, out = equation.split("->")
    left, right = inputs.split(",")
    g = g.astype(jnp.bfloat16)
    return _einsum(f"{out},{right}->{left}", g, b), _einsum(f"{left},{out}->{right}", a, g)


def _einsum(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


_bfloat16_product.defvjp(_forward, _backward)
