"""What the batteries run over: a tiny model, a grid of its sub-networks, and a batch.

Compiling takes nearly all of the tests' time, so compiled functions are shared between test files.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.model.bert import Bert, Outputs
from dynabert_jax.model.params import Params
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.names import init_params, param_shapes

CONFIG = ModelConfig(
    model_type="bert",
    vocab_size=31,
    hidden_size=12,
    head_size=3,
    heads=(4, 4, 4),
    neurons=(20, 20, 20),
    max_position_embeddings=16,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    pad_token_id=0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    labels=("no", "maybe", "yes"),
)
# RoBERTa's positions start behind its padding token, which is not the first of its vocabulary.
ROBERTA = CONFIG.replace(model_type="roberta", pad_token_id=1, type_vocab_size=1)

FULL = SubNetwork.full(CONFIG)
# Whatever a search may come up with: another number of heads and neurons in each layer, and a layer left out.
PER_LAYER = SubNetwork(layers=(0, 2), heads=(3, 1), neurons=(5, 17))
GRID = (FULL, SubNetwork.uniform(CONFIG, 0.5, 2 / 3), SubNetwork.uniform(CONFIG, 0.75, 1 / 3), PER_LAYER)


def random_params(config: ModelConfig, seed: int = 0, scale: float = 0.2) -> Params:
    """Parameters far from their initial values, so that every one of them makes a difference; norms stay near 1."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: a + scale * rng.standard_normal(a.shape, np.float32), init_params(config, seed))


def random_batch(config: ModelConfig, rows: int = 4, length: int = 7, seed: int = 0) -> Batch:
    """Sentences, or pairs of them where the model knows two token types, of 3 to `length` tokens and padding behind."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, length + 1, rows)
    sizes[0], sizes[-1] = length, 3  # at least one without padding and one with
    real = np.arange(length) < sizes[:, None]  # [B, L]
    ids = np.where(real, rng.integers(config.pad_token_id + 1, config.vocab_size, (rows, length)), config.pad_token_id)
    second = real & (np.arange(length) >= sizes[:, None] // 2) & (config.type_vocab_size > 1)
    if config.is_regression:
        labels = rng.standard_normal(rows).astype(np.float32)
    else:
        labels = rng.integers(0, config.num_labels, rows).astype(np.int32)
    inputs = Inputs(ids.astype(np.int32), real.astype(np.int32), second.astype(np.int32))
    return Batch(inputs, labels, np.ones(rows, np.float32))


def run(config: ModelConfig, params: Params, batch: Batch, sub: SubNetwork, dtype: Dtype = "float32") -> Outputs:
    """A forward pass with everything that can be asked for."""
    return _compiled_run(config, dtype)(params, batch, sub)


@functools.cache
def _compiled_run(config: ModelConfig, dtype: Dtype) -> Any:
    def forward(params: Params, batch: Batch, sub: SubNetwork) -> Outputs:
        return Bert(config, dtype).apply(
            {"params": params},
            *batch.inputs,
            sub,
            with_attention=True,
        )

    return jax.jit(forward, static_argnums=2)


def gradients(config: ModelConfig, params: Params, batch: Batch, sub: SubNetwork, dtype: Dtype = "float32") -> Params:
    """Of a function of the logits and of every hidden state, at padding, too."""
    return _compiled_gradients(config, dtype)(params, batch, sub)


@functools.cache
def _compiled_gradients(config: ModelConfig, dtype: Dtype) -> Any:
    def loss(params: Params, batch: Batch, sub: SubNetwork) -> jax.Array:
        outputs = Bert(config, dtype).apply({"params": params}, *batch.inputs, sub)
        # Squares: the plain sum of a normalised state does not depend on what was normalised.
        return sum(jnp.square(array - 1.0).mean() for array in (outputs.logits, *outputs.hidden_states))

    return jax.jit(jax.grad(loss), static_argnums=2)


def part_of(config: ModelConfig, *subs: SubNetwork) -> Params:
    """For every number of the parameters whether one of the sub-networks holds it; everything but layers is shared."""
    held = {path: np.full(shape, not path.startswith("layer_")) for path, shape in param_shapes(config).items()}
    for sub in subs:
        for layer, heads, neurons in zip(sub.layers, sub.heads, sub.neurons, strict=True):
            for name in ("query", "key", "value"):
                held[f"layer_{layer}/{name}/kernel"][:, :heads] = True  # [H, N, D]
                held[f"layer_{layer}/{name}/bias"][:heads] = True  # [N, D]
            held[f"layer_{layer}/attention_output/kernel"][:heads] = True  # [N, D, H]
            held[f"layer_{layer}/up/kernel"][:, :neurons] = True  # [H, F]
            held[f"layer_{layer}/up/bias"][:neurons] = True  # [F]
            held[f"layer_{layer}/down/kernel"][:neurons] = True  # [F, H]
            for name in ("attention_output/bias", "down/bias", "attention_norm/scale", "attention_norm/bias",
                         "output_norm/scale", "output_norm/bias"):  # fmt: skip
                held[f"layer_{layer}/{name}"][:] = True
    return held


def equations(jaxpr: Any) -> Iterator[Any]:
    """Of a traced program and of the programs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def by_path(tree: Params) -> dict[str, np.ndarray]:
    """{'a': {'b': x}} to {'a/b': x}, as numpy arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def norm(tree: Params) -> float:
    """Of all numbers of a tree together."""
    return float(np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for leaf in jax.tree.leaves(tree))))


def assert_trees_close(ours: Params, theirs: Params, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    ours, theirs = by_path(ours), by_path(theirs)
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        np.testing.assert_allclose(array, theirs[path], rtol=rtol, atol=atol, err_msg=path)
