"""What holds of every model, sub-network and batch, tried on random ones.

A failure shows the smallest example that hypothesis finds. Nearly all of the time goes into compiling, which every
new shape needs, so that the ordinary run tries few; `pytest tests/test_properties.py --hypothesis-profile long` tries
many more, other ones each time. Forward passes run without jit, which takes two thirds of the time that compiling them
whole does: shapes of single operations come up again. Gradients have many more operations, and are compiled whole.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynabert_jax.config import ModelConfig
from dynabert_jax.config.model import head_of
from dynabert_jax.model.bert import Bert, Outputs
from dynabert_jax.model.params import cut_model
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.files import load_model, save_model
from dynabert_jax.weights.rewire import Order, rewire
from tiny import Params, assert_trees_close, by_path, part_of, random_batch, random_params

SEEDS = st.integers(0, 2**32 - 1)
MOST = 4  # layers, heads of a layer, and labels: enough for every kind of difference between layers


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """A BERT or RoBERTa whose layers have heads and neurons of their own."""
    labels = tuple(f"label {i}" for i in range(draw(st.integers(1, MOST))))
    layers, head_size = draw(st.integers(1, MOST - 1)), draw(st.integers(1, 4))
    return ModelConfig(
        model_type=draw(st.sampled_from(("bert", "roberta"))),
        vocab_size=draw(st.integers(8, 40)),
        hidden_size=head_size * draw(st.integers(4, 6)),
        head_size=head_size,
        heads=tuple(draw(st.integers(1, MOST)) for _ in range(layers)),
        neurons=tuple(draw(st.integers(1, 24)) for _ in range(layers)),
        max_position_embeddings=draw(st.integers(16, 20)),
        type_vocab_size=draw(st.integers(1, 2)),
        layer_norm_eps=draw(st.sampled_from((1e-12, 1e-5))),
        pad_token_id=draw(st.integers(0, 3)),
        hidden_dropout=0.0,
        attention_dropout=0.0,
        labels=labels,
        head=head_of(labels),
    )


@st.composite
def uniform_subs(draw: st.DrawFn, config: ModelConfig) -> SubNetwork:
    """One of the paper's: a width and a depth that keep something of every layer and some layer."""
    width = draw(st.floats(0.51 / min(config.heads), 1.0))
    depth = draw(st.floats(0.51 / config.num_layers, 1.0))
    return SubNetwork.uniform(config, width, depth)


@st.composite
def per_layer_subs(draw: st.DrawFn, config: ModelConfig) -> SubNetwork:
    """Any at all: some of the layers, and of each of them as many heads and neurons as may be."""
    indices = st.integers(0, config.num_layers - 1)
    layers = tuple(sorted(draw(st.sets(indices, min_size=1))))
    heads = tuple(draw(st.integers(1, config.heads[i])) for i in layers)
    neurons = tuple(draw(st.integers(1, config.neurons[i])) for i in layers)
    return SubNetwork(layers, heads, neurons)


@st.composite
def models(draw: st.DrawFn) -> tuple[ModelConfig, SubNetwork, int]:
    """A model's shape, a sub-network of it, and the seed of parameters and batch."""
    config = draw(configs())
    sub = draw(st.one_of(uniform_subs(config), per_layer_subs(config)))
    return config, sub, draw(SEEDS)


def outputs(config: ModelConfig, params: Params, sub: SubNetwork, seed: int) -> Outputs:
    batch = random_batch(config, rows=3, length=5, seed=seed)
    return Bert(config).apply({"params": params}, *batch.inputs, sub)


def random_order(config: ModelConfig, seed: int) -> Order:
    rng = np.random.default_rng(seed)
    return Order(tuple(map(rng.permutation, config.heads)), tuple(map(rng.permutation, config.neurons)))


def assert_close(ours: Outputs, theirs: Outputs, tolerance: float) -> None:
    """Relative to values of order 1, or to larger ones themselves."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs)


@given(models())
def test_a_cut_model_computes_what_its_sub_network_does(model: tuple[ModelConfig, SubNetwork, int]) -> None:
    config, sub, seed = model
    params = random_params(config, seed)
    small = cut_model(config, params, sub)
    alone = outputs(small.config, small.params, SubNetwork.full(small.config), seed)
    assert_close(alone, outputs(config, params, sub, seed), tolerance=1e-6)


@given(models())
def test_what_a_sub_network_does_not_hold_gets_no_gradient_at_all(model: tuple[ModelConfig, SubNetwork, int]) -> None:
    config, sub, seed = model

    def loss(params: Params) -> jax.Array:
        return sum(jnp.square(array - 1.0).mean() for array in jax.tree.leaves(outputs(config, params, sub, seed)))

    held, gradients = part_of(config, sub), jax.jit(jax.grad(loss))(random_params(config, seed))
    for path, gradient in by_path(gradients).items():
        assert not np.any(gradient[~held[path]]), path


@given(configs(), SEEDS)
def test_rewiring_changes_no_answer_and_can_be_undone(config: ModelConfig, seed: int) -> None:
    params, order, full = random_params(config, seed), random_order(config, seed), SubNetwork.full(config)
    rewired = rewire(params, order)
    assert_close(outputs(config, rewired, full, seed), outputs(config, params, full, seed), tolerance=1e-4)
    assert_trees_close(rewire(rewired, order.inverse()), params)


@given(models())
def test_weights_come_back_from_hugging_faces_format_bit_for_bit(model: tuple[ModelConfig, SubNetwork, int]) -> None:
    config, sub, seed = model
    params = random_params(config, seed)
    small = cut_model(config, params, sub)
    for written_config, written in ((config, params), (small.config, small.params)):
        with tempfile.TemporaryDirectory() as folder:
            save_model(Path(folder), written_config, written)
            read = load_model(Path(folder))
        assert read.config == written_config
        assert read.new == ()
        assert_trees_close(read.params, written)
