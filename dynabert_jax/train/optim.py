"""Clip, AdamW and the linear schedule, as an optax chain.

Two details follow the optimizer that BERT and the reference were trained with, not `optax.adamw`: eps is added to the
square root of the second moment before bias correction, and weights decay after the update. Biases and layer norms do
not decay.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dynabert_jax.config.complete import CompleteOptimizer
from dynabert_jax.model.params import Params


def linear_schedule(settings: CompleteOptimizer, total_steps: int) -> optax.Schedule:
    """From 0 to the learning rate over the warm-up, then down to 0 at `total_steps`.

    Source: `WarmupLinearSchedule` of transformers 2.1, which the reference uses.
    """
    warmup_steps = int(settings.warmup * total_steps + 1e-9)  # 3/47 * 47 is slightly below 3
    rise = optax.linear_schedule(0.0, settings.learning_rate, warmup_steps)
    fall = optax.linear_schedule(settings.learning_rate, 0.0, max(1, total_steps - warmup_steps))
    return optax.join_schedules([rise, fall], [warmup_steps])


def adamw(settings: CompleteOptimizer, total_steps: int) -> optax.GradientTransformation:
    """The chain: clip by global norm, Adam, learning rate, decay."""
    schedule = linear_schedule(settings, total_steps)

    def corrected_eps(count: jax.Array) -> jax.Array:
        return settings.eps / jnp.sqrt(1.0 - settings.b2 ** (count.astype(jnp.float32) + 1.0))

    adam = optax.inject_hyperparams(optax.scale_by_adam)(b1=settings.b1, b2=settings.b2, eps=corrected_eps)
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        adam,
        optax.scale_by_learning_rate(schedule),
        decay_after_update(schedule, settings.weight_decay),
    )


def decay_after_update(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Shrinks the updated weights by the factor 1 - learning rate * weight decay."""

    def update(updates: Params, state: optax.ScaleByScheduleState, params: Params) -> tuple[Params, Any]:
        factor = schedule(state.count) * weight_decay

        def decay(path: tuple[Any, ...], update: jax.Array, param: jax.Array) -> jax.Array:
            return update - factor * (param + update) if decays(path) else update

        decayed = jax.tree_util.tree_map_with_path(decay, updates, params)
        return decayed, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    def init(_: Params) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    return optax.GradientTransformation(init, update)


def decays(path: tuple[Any, ...]) -> bool:
    """Whether the parameter at this path of the tree is subject to weight decay."""
    return path[-1].key not in ("bias", "scale")
