"""What the benchmarks time on the other side computes what ours does: every stage's losses and gradient."""

import jax
import numpy as np
import pytest
import torch

from benchmarks import forwards, harness, steps, torch_bert, torch_dynabert
from benchmarks.torch_dynabert import RELEASED, TODAY
from tiny import CONFIG, random_batch, random_params

SHAPE = CONFIG.replace(heads=(4, 4, 4, 4), neurons=(20, 20, 20, 20))
BATCH = random_batch(SHAPE, rows=8)  # of which some end in padding


@pytest.mark.parametrize("stage", ["fine_tune", "width", "depth"])
def test_pytorch_has_the_same_losses_and_gradients(stage: steps.StageName) -> None:
    objective, params = steps.find_objective(SHAPE, stage), random_params(SHAPE)
    theirs = steps.their_losses(torch_dynabert.Step(SHAPE, objective, params, BATCH, RELEASED))
    ours = steps.our_losses(SHAPE, objective, params, BATCH, "float32")
    assert len(theirs) == len(objective.students) + 1
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_pytorch_of_today_computes_what_the_released_way_does() -> None:
    objective, params = steps.find_objective(SHAPE, "depth"), random_params(SHAPE)
    released, today = (
        steps.their_losses(torch_dynabert.Step(SHAPE, objective, params, BATCH, style)) for style in (RELEASED, TODAY)
    )
    np.testing.assert_allclose(today, released, rtol=2e-2)  # bfloat16 has eight bits


def test_a_step_of_pytorch_moves_the_weights_and_forgets_the_gradient() -> None:
    objective, params = steps.find_objective(SHAPE, "width"), random_params(SHAPE)
    step = torch_dynabert.Step(SHAPE, objective, params, BATCH, RELEASED)
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    step()
    moved = [not torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True)]
    assert all(moved)
    assert all(parameter.grad is None for parameter in step.model.parameters())


def test_our_step_moves_the_weights_and_tells_the_hosts_time() -> None:
    objective, params = steps.find_objective(SHAPE, "fine_tune"), random_params(SHAPE)
    step = steps.OurStep(SHAPE, objective, params, BATCH, "float32")
    step()
    step()
    assert int(step.state.step) == 2
    assert len(step.host_seconds) == 2
    assert steps.host_time(step) == f"{1e3 * step.host_seconds[1]:.1f}"
    assert steps.host_time(lambda: None) == ""


def test_a_floor_counts_every_product_and_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "matmul_rate", lambda dtype: {"float32": 1e9, "bfloat16": 4e9}[dtype])
    monkeypatch.setattr(harness, "memory_rate", lambda: 1e9)
    settings = steps.Settings(length=7, batch=8)
    objective = steps.find_objective(SHAPE, "fine_tune")
    slow = steps.floor(SHAPE, objective, settings, "ours fp32")
    fast = steps.floor(SHAPE, objective, settings, "ours bf16")
    weights = sum(a.size for a in jax.tree.leaves(random_params(SHAPE)))
    update = 7 * 4 * weights / 1e9
    assert slow - update == pytest.approx(4 * (fast - update))


def test_a_short_call_runs_untimed_before_each_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "REST", 0.0)
    calls: list[None] = []
    assert len(harness.measure({"case": lambda: calls.append(None)}, 2)["case"]) == 2
    assert len(calls) == 1 + 2
    calls.clear()
    assert len(harness.measure({"case": lambda: calls.append(None)}, 2, busy=0.005)["case"]) == 2
    assert len(calls) > 1 + 2 + 2


@pytest.mark.parametrize(("device", "verdicts"), [("cpu", ["yes", "no"]), ("cuda", [""])])
def test_forward_passes_have_aims(monkeypatch: pytest.MonkeyPatch, device: str, verdicts: list[str]) -> None:
    monkeypatch.setattr(torch_bert, "DEVICE", device)
    seconds = {"torch fp32": [1.0, 2.0], "ours fp32": [0.9, 2.0], "ours bf16": [0.5, 0.9]}
    assert list(forwards.aims(seconds).values()) == verdicts
    compiled = seconds | {"torch compiled bf16": [0.6, 1.0]}
    assert list(forwards.aims(compiled).values()) == (["yes"] if device == "cuda" else verdicts)


def test_pytorch_in_bfloat16_answers_as_in_float32_nearly() -> None:
    params = random_params(SHAPE)
    exact = torch_bert.forward(SHAPE, params, BATCH, "fp32")()
    rounded = torch_bert.forward(SHAPE, params, BATCH, "bf16", "sdpa")()
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, atol=0.05)
    assert torch_bert.make_model(SHAPE, params, "sdpa").config._attn_implementation == "sdpa"
    with_sdpa = torch_bert.forward(SHAPE, params, BATCH, "fp32", "sdpa")()
    np.testing.assert_allclose(with_sdpa, exact, atol=1e-5)
