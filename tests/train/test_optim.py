"""The optimizer against torch's AdamW, transformers' schedule and the formula of BERT's own AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynabert_jax.config import ModelConfig
from dynabert_jax.config.complete import CompleteOptimizer
from dynabert_jax.train.optim import adamw, linear_schedule
from dynabert_jax.weights.names import to_torch_names
from tiny import CONFIG, ROBERTA, random_params

STEPS = 6
rng = np.random.default_rng(0)
START = rng.standard_normal((3, 4), np.float32)
GRADIENTS = [rng.standard_normal((3, 4), np.float32) * scale for scale in (1.0, 0.1, 1e-3, 2.0, 1e-8, 0.5)]


def train(settings: CompleteOptimizer, gradients: list[np.ndarray]) -> np.ndarray:
    """`START` as a kernel, after one step for each gradient of a schedule of STEPS steps."""
    optimizer = adamw(settings, STEPS)
    params = {"kernel": jnp.asarray(START)}
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params["kernel"])


@pytest.mark.parametrize(("warmup", "total"), [(0.0, 7), (0.1, 30), (0.3, 10), (0.5, 2), (0.99, 100), (0.0, 1)])
def test_the_schedule_is_that_of_transformers(warmup: float, total: int) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.get_linear_schedule_with_warmup(
        torch.optim.SGD([torch.zeros(1)], lr=3e-5), int(warmup * total), total
    )
    ours = linear_schedule(CompleteOptimizer(learning_rate=3e-5, warmup=warmup), total)
    # lr_lambdas: torch's own loop would have to call the optimizer between two steps.
    expected = [3e-5 * theirs.lr_lambdas[0](step) for step in range(total + 1)]
    np.testing.assert_allclose([ours(step) for step in range(total + 1)], expected, rtol=1e-5, atol=1e-12)


def test_the_schedule_at_chosen_steps() -> None:
    schedule = linear_schedule(CompleteOptimizer(learning_rate=1.0, warmup=0.2), 10)
    assert [float(schedule(step)) for step in (0, 1, 2, 6, 10)] == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_one_step_in_ten_of_warmup_is_none() -> None:
    """A fraction of a step is dropped."""
    assert float(linear_schedule(CompleteOptimizer(learning_rate=1.0, warmup=0.1), 9)(0)) == 1.0


def test_a_fraction_made_of_a_number_of_steps_gives_that_number() -> None:
    """3 / 47 * 47 is a hair below 3."""
    assert float(linear_schedule(CompleteOptimizer(learning_rate=1.0, warmup=3 / 47), 47)(3)) == 1.0
    assert float(linear_schedule(CompleteOptimizer(learning_rate=1.0, warmup=3 / 47), 47)(2)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("eps", [1e-8, 1e-3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_that_of_bert(eps: float, weight_decay: float) -> None:
    """The AdamW of transformers 2.1, in float64: eps before the bias correction, decay after the update."""
    rate, b1, b2 = 1e-2, 0.8, 0.99
    settings = CompleteOptimizer(learning_rate=rate, weight_decay=weight_decay, b1=b1, b2=b2, eps=eps, clip_norm=1e9)
    p, m, v = START.astype(np.float64), 0.0, 0.0
    for step, g in enumerate(GRADIENTS):
        lr = rate * (1 - step / STEPS)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * np.float64(g) ** 2
        step_size = lr * np.sqrt(1 - b2 ** (step + 1)) / (1 - b1 ** (step + 1))
        p = p - step_size * m / (np.sqrt(v) + eps)
        p = p - lr * weight_decay * p
    np.testing.assert_allclose(train(settings, GRADIENTS), p, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [0.1, 1.0, 1e9])
def test_adam_and_clipping_are_torchs(clip_norm: float) -> None:
    """With an eps that does nothing and without decay, where the two differ."""
    torch = pytest.importorskip("torch")
    settings = CompleteOptimizer(learning_rate=1e-2, eps=1e-30, clip_norm=clip_norm)
    parameter = torch.nn.Parameter(torch.tensor(START))
    optimizer = torch.optim.AdamW([parameter], lr=1e-2, eps=1e-30, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    for gradient in GRADIENTS:
        parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([parameter], clip_norm)
        optimizer.step()
        schedule.step()
    # torch divides by norm + 1e-6: the norms that are clipped here are above 0.3.
    np.testing.assert_allclose(train(settings, GRADIENTS), parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_norm_is_of_all_gradients_together() -> None:
    optimizer = adamw(CompleteOptimizer(learning_rate=1.0, clip_norm=1.0, b1=0.0, b2=0.0, eps=1.0), 1)
    params = {"a": {"kernel": jnp.zeros(1)}, "b": {"bias": jnp.zeros(1)}}
    gradients = {"a": {"kernel": jnp.full(1, 3.0)}, "b": {"bias": jnp.full(1, 4.0)}}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # Clipped by 5 to 0.6 and 0.8; with b1 = b2 = 0 and eps = 1 Adam's step is g / (|g| + 1).
    np.testing.assert_allclose(updates["a"]["kernel"], -0.6 / 1.6, rtol=1e-6)
    np.testing.assert_allclose(updates["b"]["bias"], -0.8 / 1.8, rtol=1e-6)


@pytest.mark.parametrize("config", [CONFIG, ROBERTA], ids=["bert", "roberta"])
def test_biases_and_norms_do_not_decay(config: ModelConfig) -> None:
    """By PyTorch's names, as BERT's fine-tuning scripts tell them apart."""
    optimizer = adamw(CompleteOptimizer(learning_rate=0.5, weight_decay=0.5), 10)
    config = config.replace(heads=(4,), neurons=(20,))
    params = random_params(config)
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    before = to_torch_names(config, params)
    after = to_torch_names(config, optax.apply_updates(params, updates))
    kept = [name for name in before if name.endswith("bias") or "LayerNorm.weight" in name]
    assert 0 < len(kept) < len(before)
    for name, value in before.items():
        factor = 1.0 if name in kept else 0.75
        np.testing.assert_allclose(after[name], factor * value, rtol=1e-6, err_msg=name)
