"""The heads, which turn the last hidden state into answers.

Letters in shapes: B examples, S tokens, H hidden size, C labels.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from dynabert_jax.config.checked import Dtype
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.tasks import Kind
from dynabert_jax.model.dense import Dense
from dynabert_jax.model.dropout import drop, keys_at

Modules = Mapping[str, nn.Module]  # by their names in the parameter tree


@dataclasses.dataclass(frozen=True)
class Head:
    """One kind of head.

    Attributes:
        names: its modules' names, next to the embeddings and layers in the parameter tree.
        modules: creates its modules.
        answer: maps its modules, the last hidden state `[B, S, H]` and dropout keys (`[B]` or None) to `[B, C]`.
    """

    names: tuple[str, ...]
    modules: Callable[[ModelConfig, Dtype], Modules]
    answer: Callable[[ModelConfig, Modules, jax.Array, jax.Array | None], jax.Array]


def _pooled_modules(config: ModelConfig, dtype: Dtype) -> Modules:
    return {
        "pooler": Dense(config.hidden_size, config.hidden_size, dtype),
        "classifier": Dense(config.hidden_size, config.num_labels, dtype),
    }


def _pooled_answer(config: ModelConfig, modules: Modules, hidden: jax.Array, dropout: jax.Array | None) -> jax.Array:
    """The first token through the pooler and the classifier: classes, or the one number of a regression."""
    first = hidden[:, 0]  # [B, H]
    if config.model_type == "roberta":
        first = drop(first, config.head_dropout, keys_at(dropout, "first_token_dropout"))
    pooled = jnp.tanh(modules["pooler"](first))  # [B, H]
    return modules["classifier"](drop(pooled, config.head_dropout, keys_at(dropout, "pooled_dropout")))


_POOLED = Head(("pooler", "classifier"), _pooled_modules, _pooled_answer)

HEADS: Mapping[Kind, Head] = {"classification": _POOLED, "regression": _POOLED}
