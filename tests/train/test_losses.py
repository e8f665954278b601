"""The losses against torch.nn.functional; theirs are means over the batch of ours."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from dynabert_jax.train.losses import hidden_loss, prediction_loss, task_loss

torch = pytest.importorskip("torch")
F = torch.nn.functional

rng = np.random.default_rng(0)
STUDENT, TEACHER = 3.0 * rng.standard_normal((2, 5, 4), np.float32)  # [B, C]
LABELS = rng.integers(0, 4, 5).astype(np.int32)
SCORE, TEACHER_SCORE = rng.standard_normal((2, 5, 1), np.float32)
RATINGS = rng.standard_normal(5).astype(np.float32)
STATES, TEACHER_STATES = rng.standard_normal((2, 3, 5, 7, 6), np.float32)  # [states, B, S, H]


def assert_same(ours: Callable[[Any], jax.Array], theirs: Callable[[Any], Any], argument: np.ndarray) -> None:
    """Their mean and its gradient are those of ours, one value an example."""
    assert ours(argument).shape == (5,)
    tensor = torch.tensor(argument, requires_grad=True)
    loss = theirs(tensor)
    loss.backward()
    value, gradient = jax.value_and_grad(lambda a: ours(a).mean())(argument)
    np.testing.assert_allclose(value, loss.detach().numpy(), rtol=1e-6)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_task_loss_of_classes_is_cross_entropy() -> None:
    labels = torch.tensor(LABELS).long()
    assert_same(lambda x: task_loss("classification", x, LABELS), lambda x: F.cross_entropy(x, labels), STUDENT)


def test_task_loss_of_one_output_is_squared_error() -> None:
    ratings = torch.tensor(RATINGS)
    assert_same(lambda x: task_loss("regression", x, RATINGS), lambda x: F.mse_loss(x.view(-1), ratings), SCORE)


def test_prediction_loss_is_cross_entropy_under_the_teachers_soft_labels() -> None:
    soft = torch.tensor(TEACHER).softmax(-1)
    assert_same(lambda x: prediction_loss("classification", x, TEACHER), lambda x: F.cross_entropy(x, soft), STUDENT)


def test_prediction_loss_of_one_output_is_squared_error() -> None:
    teacher = torch.tensor(TEACHER_SCORE)
    assert_same(lambda x: prediction_loss("regression", x, TEACHER_SCORE), lambda x: F.mse_loss(x, teacher), SCORE)


def test_hidden_loss_is_the_sum_of_each_states_squared_error() -> None:
    teacher = torch.tensor(TEACHER_STATES)
    assert_same(
        lambda x: hidden_loss(tuple(x), tuple(TEACHER_STATES)),
        lambda x: sum(F.mse_loss(s, t) for s, t in zip(x, teacher, strict=True)),
        STATES,
    )


def test_states_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hidden states of the student cannot be matched with 2 of the teacher"):
        hidden_loss(tuple(STATES), tuple(TEACHER_STATES[:2]))
