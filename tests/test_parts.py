"""A batch is worked through in equal parts on a CPU alone, and they answer what the whole answers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_jax import evaluate, networks, parallel, parts, stages
from dynabert_jax.backends import BACKENDS, Inputs
from dynabert_jax.batches import Batch
from dynabert_jax.bert import Bert
from dynabert_jax.config import FineTune
from dynabert_jax.parts import TOKENS, count_parts, in_parts
from tiny import CONFIG, FULL, assert_trees_close, norm, random_batch, random_params, run

LENGTH = 7


@pytest.fixture
def _one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on one CPU device, of which there are several here."""
    monkeypatch.setattr(parts, "is_one_cpu", lambda: True)


@pytest.fixture
def _one_row_each(_one_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TOKENS", LENGTH)


@pytest.mark.usefixtures("_one_cpu")
@pytest.mark.parametrize(
    ("rows", "length", "least", "expected"),
    [
        (1, 512, 1, 1),
        (8, 128, 1, 1),
        (32, 16, 1, 1),
        (32, 40, 1, 1),  # 1,280 tokens are nearer to 1,024 than 640
        (32, 48, 1, 2),
        (32, 128, 1, 4),
        (24, 128, 1, 3),
        (31, 128, 1, 1),  # one row each would be further off than all at once
        (8, 128, 2, 2),
        (12, 16, 4, 4),
    ],
)
def test_how_many(rows: int, length: int, least: int, expected: int) -> None:
    assert count_parts(rows, length, least) == expected


@pytest.mark.usefixtures("_one_cpu")
@given(st.integers(1, 64), st.integers(1, 512), st.integers(1, 8))
def test_they_are_equal_and_no_other_number_of_them_is_nearer(share: int, length: int, least: int) -> None:
    rows = share * least
    chosen = count_parts(rows, length, least)
    assert rows % chosen == 0
    assert chosen >= least

    def ratio(parts: int) -> float:
        tokens = rows / parts * length
        return max(tokens / TOKENS, TOKENS / tokens)

    assert all(ratio(chosen) <= ratio(other) * (1 + 1e-9) for other in range(least, rows + 1) if rows % other == 0)


@pytest.mark.skipif(jax.local_device_count() == 1, reason="needs several devices")
def test_several_devices_take_the_batch_at_once() -> None:
    assert count_parts(32, 128) == 1
    assert count_parts(32, 128, least=2) == 2


@pytest.mark.usefixtures("_one_row_each")
def test_an_answer_of_parts_is_that_of_the_whole() -> None:
    rows = np.arange(5 * LENGTH).reshape(5, LENGTH)
    seen: list[tuple[int, ...]] = []

    def answer(a: jax.Array, b: jax.Array) -> jax.Array:
        seen.append(a.shape)
        return a.sum(axis=1, keepdims=True) - b[:, :1]

    np.testing.assert_array_equal(in_parts(answer, rows, rows), rows.sum(axis=1, keepdims=True) - rows[:, :1])
    assert seen == [(1, LENGTH)]


def by_backend(params: Any, inputs: Inputs) -> np.ndarray:
    return BACKENDS["jax"].takers["float32"](CONFIG, params, FULL)(inputs).run(inputs)


def by_network(params: Any, inputs: Inputs) -> jax.Array:
    networks.answer_program.cache_clear()
    return networks.answer_program(CONFIG, "float32")(params, *inputs)


def by_evaluation(params: Any, inputs: Inputs) -> np.ndarray:
    evaluate.forward_program.cache_clear()
    batch = Batch(*inputs, labels=np.zeros(len(inputs.input_ids)), weights=np.ones(len(inputs.input_ids)))
    return parallel.join(evaluate.forward_program(CONFIG, "float32")(params, parallel.split(batch)))


@pytest.mark.usefixtures("_one_row_each")
@pytest.mark.parametrize("answer", [by_backend, by_network, by_evaluation])
def test_programs_that_answer_do_so_in_parts(
    answer: Callable[[Any, Inputs], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows for each device, so that there is something to divide on every one."""
    seen: list[int] = []
    whole = Bert.__call__

    def watched(self: Bert, ids: jax.Array, *rest: Any, **options: Any) -> Any:
        seen.append(len(ids))
        return whole(self, ids, *rest, **options)

    params, batch = jax.device_get(random_params(CONFIG)), random_batch(CONFIG, 2 * parallel.num_devices(), LENGTH)
    expected = run(CONFIG, params, batch, FULL).logits
    monkeypatch.setattr(Bert, "__call__", watched)
    logits = answer(params, Inputs(batch.input_ids, batch.attention_mask, batch.token_type_ids))
    assert set(seen) == {1}
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_gradients_are_summed_over_parts(request: pytest.FixtureRequest) -> None:
    params, batch = parallel.replicate(random_params(CONFIG)), random_batch(CONFIG, 2 * parallel.num_devices(), LENGTH)
    objective, programs = stages.fine_tune(CONFIG, FineTune()), stages.Programs(Bert(CONFIG))
    sizes: list[int] = []
    accumulate = programs.accumulate

    def watched(*arguments: Any) -> Any:
        sizes.append(arguments[2].input_ids.shape[1])  # [devices, B, S]
        return accumulate(*arguments)

    def gradients() -> Any:
        found = stages.gradients(programs, objective, params, None, batch, jax.random.key(0))
        return jax.tree.map(lambda g: np.asarray(g).sum(0), found.grads)

    programs.accumulate = watched
    whole = gradients()
    request.getfixturevalue("_one_row_each")
    summed = gradients()
    assert sizes == [2, 1, 1]
    assert_trees_close(summed, whole, rtol=1e-5, atol=1e-6 * norm(whole))
