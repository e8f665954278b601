"""Matrix products: einsum in float32, and with rounded operands and sums in float32, forwards and backwards."""

import functools
import inspect
import re
from typing import Any, get_args

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dynabert_jax.config import Dtype
from dynabert_jax.model import bert, dense
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.matmul import matmul, rounded_kernels
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, GRID, by_path, random_batch, random_params

# Found in the code, so that an equation that is added there is tested here.
EQUATIONS = sorted(set(re.findall(r'"([a-z]+,[a-z]+->[a-z]+)"', inspect.getsource(bert) + inspect.getsource(dense))))
# Letters as in bert.py. Sizes of one and odd ones: some shapes are refused by XLA on a CPU, and only when they run.
SIZES = {
    "one head": {"b": 1, "s": 7, "q": 7, "k": 7, "i": 12, "o": 20, "n": 1, "d": 3},
    "three heads": {"b": 4, "s": 33, "q": 33, "k": 33, "i": 64, "o": 96, "n": 3, "d": 16},
    "to fewer, short": {"b": 3, "s": 5, "q": 5, "k": 6, "i": 24, "o": 10, "n": 2, "d": 16},
}
# An operand is rounded by at most half a unit in its 8th digit; two operands, and errors that do not conspire.
ROUNDING = 2.0 * 2.0**-9


def test_all_equations_are_found() -> None:
    assert EQUATIONS == ["bi,io->bo", "bnqd,bnkd->bnqk", "bnqk,bnkd->bnqd", "bsi,io->bso"]


def operands(equation: str, sizes: dict[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both operands and a cotangent of the result."""
    rng = np.random.default_rng(0)
    a, b, out = (
        rng.standard_normal([sizes[letter] for letter in letters], np.float32) for letters in re.split(",|->", equation)
    )
    return a, b, out


@functools.partial(jax.jit, static_argnums=(0, 4))  # what XLA cannot run shows once it has moved transpositions
def with_gradients(equation: str, a: jax.Array, b: jax.Array, g: jax.Array, dtype: Dtype) -> tuple[jax.Array, ...]:
    out, backward = jax.vjp(lambda a, b: matmul(equation, a, b, dtype), a, b)
    return out, *backward(g)


def rounded(a: np.ndarray) -> np.ndarray:
    return a.astype(ml_dtypes.bfloat16).astype(np.float64)


def assert_close(ours: jax.Array, exact: np.ndarray, relative: float) -> None:
    """Within a fraction of the norm of what is exact."""
    assert ours.dtype == jnp.float32
    assert ours.shape == exact.shape
    assert np.linalg.norm(np.asarray(ours, np.float64) - exact) <= relative * np.linalg.norm(exact)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("equation", EQUATIONS)
def test_bfloat16_rounds_operands_and_nothing_else(equation: str, sizes: dict[str, int]) -> None:
    a, b, g = operands(equation, sizes)
    out, by_a, by_b = with_gradients(equation, a, b, g, "bfloat16")

    left, right, result = re.split(",|->", equation)
    exact = np.einsum(equation, rounded(a), rounded(b))
    exact_by_a = np.einsum(f"{result},{right}->{left}", rounded(g), rounded(b))
    exact_by_b = np.einsum(f"{left},{result}->{right}", rounded(a), rounded(g))
    # Sums in float32, not in bfloat16: exact to float32's digits.
    for ours, theirs in ((out, exact), (by_a, exact_by_a), (by_b, exact_by_b)):
        assert_close(ours, theirs, 1e-6)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_bfloat16_and_float32_agree_but_for_rounding(equation: str) -> None:
    a, b, g = operands(equation, SIZES["three heads"])

    plain, fast = (with_gradients(equation, a, b, g, dtype) for dtype in get_args(Dtype))
    for exact, ours in zip(plain, fast, strict=True):
        assert_close(ours, np.asarray(exact, np.float64), ROUNDING)
        assert np.any(ours != exact)  # it did round


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("equation", EQUATIONS)
def test_float32_is_einsum_and_so_are_its_gradients(equation: str, sizes: dict[str, int]) -> None:
    a, b, g = operands(equation, sizes)
    out, by_a, by_b = with_gradients(equation, a, b, g, "float32")

    left, right, result = re.split(",|->", equation)
    assert_close(out, np.einsum(equation, a.astype(np.float64), b), 1e-6)
    assert_close(by_a, np.einsum(f"{result},{right}->{left}", g.astype(np.float64), b), 1e-6)
    assert_close(by_b, np.einsum(f"{left},{result}->{right}", a.astype(np.float64), g), 1e-6)


@pytest.mark.parametrize(
    "equation",
    [
        "bqnd,bnkd->bnqk",  # the batch does not come first
        "bsi,io->bos",  # the result's rows do not
        "bis,io->bso",
        "io,bsi->bso",
        "bsi,ijo->bso",
        "bsi,io->so",
        "bqri,bio->bqro",  # several indices of rows beside a batch
    ],
)
def test_other_forms_are_refused(equation: str) -> None:
    with pytest.raises(ValueError, match=f"^'{equation}' is not of the form 'ri,io->ro' or 'bri,bio->bro' "):
        matmul(equation, np.ones((2, 2, 2, 2)), np.ones((2, 2, 2, 2)), "float32")


def test_batches_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'bnqd,bnkd->bnqk': the batches differ: \(2, 3\) and \(3, 2\)"):
        matmul("bnqd,bnkd->bnqk", np.ones((2, 3, 4, 5)), np.ones((3, 2, 6, 5)), "float32")


# Kernels that are rounded once


def test_kernels_alone_are_rounded_and_stay_on_the_host() -> None:
    params = random_params(CONFIG)
    before, behind = by_path(params), by_path(rounded_kernels(params, "bfloat16"))
    for path, array in behind.items():
        assert isinstance(array, np.ndarray)
        assert array.dtype == (ml_dtypes.bfloat16 if path.endswith("/kernel") else np.float32), path
        np.testing.assert_array_equal(array, before[path].astype(array.dtype))


def test_float32_keeps_its_kernels() -> None:
    params = random_params(CONFIG)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (params, rounded_kernels(params, "float32"))), strict=True))


def test_a_network_answers_the_same_with_rounded_kernels() -> None:
    """Bit for bit, whatever is cut or sliced: they are the numbers that its products would have rounded."""
    params, batch = random_params(CONFIG), random_batch(CONFIG)

    @functools.partial(jax.jit, static_argnums=1)
    def answer(params: Any, sub: SubNetwork) -> Any:
        model = Bert(CONFIG, "bfloat16")
        return model.apply({"params": params}, *batch.inputs, sub)

    for sub in GRID:
        one, two = (answer(given, sub) for given in (params, rounded_kernels(params, "bfloat16")))
        jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("setting", ["highest", "bfloat16", "tensorfloat32"])
def test_the_arithmetic_does_not_depend_on_a_setting_of_jax(dtype: Dtype, setting: str) -> None:
    """The same program, forwards and backwards: on a CPU, the answers would be the same with either."""
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5))

    def program() -> str:
        loss = jax.jit(jax.grad(lambda a, b: matmul("ri,io->ro", a, b, dtype).sum(), argnums=(0, 1)))
        return str(loss.lower(a, b).as_text())

    plain = program()
    with jax.default_matmul_precision(setting):
        assert program() == plain
