"""A batch is worked through in equal parts on a CPU alone, and they answer what the whole answers."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_jax.choose.backends import BACKENDS
from dynabert_jax.config.complete import CompleteDepthStage, CompleteFineTune
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.in_jax import forward_program
from dynabert_jax.model import microbatch
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.microbatch import TOKENS_PER_MICROBATCH, count_microbatches, in_microbatches, micro_batches
from dynabert_jax.model.params import Model, Params
from dynabert_jax.plan import StagePlan, depth, fine_tune
from dynabert_jax.system import devices
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.step import Programs, gradients
from tiny import CONFIG, FULL, assert_trees_close, norm, random_batch, random_params, run
from tiny_run import cpu_devices

LENGTH = 7
DROPPING = CONFIG.replace(hidden_dropout=0.5, attention_dropout=0.5)


@pytest.fixture
def _one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on one CPU device, of which there are several here."""
    monkeypatch.setattr("dynabert_jax.model.microbatch.is_one_cpu", lambda: True)


@pytest.fixture
def _one_row_each(_one_cpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.model.microbatch.TOKENS_PER_MICROBATCH", LENGTH)


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
    assert count_microbatches(rows, length, least) == expected


@pytest.mark.usefixtures("_one_cpu")
@given(st.integers(1, 64), st.integers(1, 512), st.integers(1, 8))
def test_they_are_equal_and_no_other_number_of_them_is_nearer(share: int, length: int, least: int) -> None:
    rows = share * least
    chosen = count_microbatches(rows, length, least)
    assert rows % chosen == 0
    assert chosen >= least

    def ratio(parts: int) -> float:
        tokens = rows / parts * length
        return max(tokens / TOKENS_PER_MICROBATCH, TOKENS_PER_MICROBATCH / tokens)

    assert all(ratio(chosen) <= ratio(other) * (1 + 1e-9) for other in range(least, rows + 1) if rows % other == 0)


def test_rows_that_do_not_divide_are_reported() -> None:
    with pytest.raises(ValueError, match="7 rows do not divide into 2 equal microbatches; use a multiple of 2"):
        count_microbatches(7, 128, at_least=2)


@pytest.mark.skipif(jax.local_device_count() == 1, reason="needs several devices")
def test_several_devices_take_the_batch_at_once() -> None:
    assert count_microbatches(32, 128) == 1
    assert count_microbatches(32, 128, at_least=2) == 2


@pytest.mark.usefixtures("_one_row_each")
def test_an_answer_of_parts_is_that_of_the_whole() -> None:
    rows = np.arange(5 * LENGTH).reshape(5, LENGTH)
    seen: list[tuple[int, ...]] = []

    def answer(a: jax.Array, b: jax.Array) -> jax.Array:
        seen.append(a.shape)
        return a.sum(axis=1, keepdims=True) - b[:, :1]

    np.testing.assert_array_equal(in_microbatches(answer, rows, rows), rows.sum(axis=1, keepdims=True) - rows[:, :1])
    assert seen == [(1, LENGTH)]


@pytest.fixture
def _no_kept_programs() -> Iterator[None]:
    """Neither those of other tests nor for them."""
    forward_program.cache_clear()
    yield
    forward_program.cache_clear()


def on_one_device(params: Params, inputs: Inputs) -> np.ndarray:
    return np.asarray(BACKENDS["jax"].opens["float32"](Model(CONFIG, params))(inputs).logits)


def on_all_devices(params: Params, inputs: Inputs) -> np.ndarray:
    return np.asarray(in_jax.open_model(Model(CONFIG, params))(inputs).logits)


@pytest.mark.usefixtures("_one_row_each", "_no_kept_programs")
@pytest.mark.parametrize("answer", [on_one_device, on_all_devices])
def test_programs_that_answer_do_so_in_parts(
    answer: Callable[[Any, Inputs], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows for each device, so that there is something to divide on every one."""
    seen: list[int] = []
    whole = Bert.__call__

    def watched(self: Bert, ids: jax.Array, *rest: Any, **options: Any) -> Any:
        seen.append(len(ids))
        return whole(self, ids, *rest, **options)

    params, batch = jax.device_get(random_params(CONFIG)), random_batch(CONFIG, 2 * devices.num_devices(), LENGTH)
    expected = run(CONFIG, params, batch, FULL).logits
    monkeypatch.setattr(Bert, "__call__", watched)
    logits = answer(params, batch.inputs)
    assert set(seen) == {1}
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def summed(objective: StagePlan, programs: Programs, batch: Batch) -> Any:
    params, teacher = (devices.replicate(random_params(DROPPING, seed)) for seed in range(2))
    found = gradients(programs, Distillation(objective), params, teacher, batch, jax.random.key(0))
    return jax.tree.map(lambda g: np.asarray(g).sum(0), found.grads)


def test_gradients_are_summed_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part with its own teacher's answers, and its own dropout."""
    objective = depth(DROPPING, CompleteDepthStage(widths=(0.5,), depths=(1.0,)))
    programs = Programs(Bert(DROPPING))
    batch = random_batch(DROPPING, 2 * devices.num_devices(), LENGTH)
    sizes: list[int] = []
    accumulate = programs.accumulate

    def watched(*arguments: Any) -> Any:
        sizes.append(arguments[2].inputs.input_ids.shape[1])  # [devices, B, S]
        return accumulate(*arguments)

    monkeypatch.setattr(programs, "accumulate", watched)
    whole = summed(objective, programs, batch)
    monkeypatch.setattr("dynabert_jax.model.microbatch.is_one_cpu", lambda: True)
    monkeypatch.setattr("dynabert_jax.model.microbatch.TOKENS_PER_MICROBATCH", LENGTH)
    parted = summed(objective, programs, batch)
    assert sizes == [2, 1, 1]
    assert_trees_close(parted, whole, atol=1e-6 * norm(whole))


def test_one_cpu_device_takes_parts() -> None:
    """As a user's process has it: nothing is replaced, and the batch is large enough."""
    settings = cpu_devices(1) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = "import test_microbatch; test_microbatch.compare_on_one_cpu()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, env=os.environ | settings, text=True,
        capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def compare_on_one_cpu() -> None:
    """Gradients and answers of 512 x 7 tokens in parts, and of the batch at once."""
    objective, batch = fine_tune(DROPPING, CompleteFineTune()), random_batch(DROPPING, 512, LENGTH)
    params = jax.device_get(random_params(DROPPING))
    assert len(list(micro_batches(batch))) == 4
    in_parts, answers = summed(objective, Programs(Bert(DROPPING)), batch), on_one_device(params, batch.inputs)
    microbatch.is_one_cpu = lambda: False
    forward_program.cache_clear()
    assert len(list(micro_batches(batch))) == 1
    whole = summed(objective, Programs(Bert(DROPPING)), batch)
    assert_trees_close(in_parts, whole, atol=1e-6 * norm(whole))
    np.testing.assert_allclose(answers, on_one_device(params, batch.inputs), rtol=0, atol=1e-5)
