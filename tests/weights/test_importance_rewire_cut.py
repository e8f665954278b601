"""The batteries of what is done to parameters: score, rewire, cut; and which of them a sub-network trains."""

from typing import Any

import jax
import numpy as np
import pytest

from dynabert_jax.config import ModelConfig
from dynabert_jax.data.batches import Batch
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.params import cut_model
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.train.importance import importance
from dynabert_jax.train.losses import task_loss
from dynabert_jax.weights.names import param_shapes, to_torch_names
from dynabert_jax.weights.rewire import Order, Scores, by_importance, rewire
from tiny import (
    CONFIG,
    FULL,
    GRID,
    PER_LAYER,
    ROBERTA,
    assert_trees_close,
    by_path,
    gradients,
    part_of,
    random_batch,
    random_params,
    run,
)

BATCH = random_batch(CONFIG)
PARAMS = random_params(CONFIG)
SUBS = pytest.mark.parametrize("sub", GRID, ids=lambda sub: sub.name)


# Gradients


@SUBS
def test_gradients_outside_a_sub_network_are_exactly_zero(sub: SubNetwork) -> None:
    held = part_of(CONFIG, sub)
    for path, gradient in by_path(gradients(CONFIG, PARAMS, BATCH, sub)).items():
        assert not np.any(gradient[~held[path]]), path
        if path.startswith("layer_") and not path.endswith("key/bias"):  # that one's is zero but for rounding
            assert np.all(gradient[held[path]]), path


@SUBS
def test_only_embeddings_that_are_used_get_a_gradient_and_the_padding_token_gets_none(sub: SubNetwork) -> None:
    """The padding token is in the batch, and its hidden states are in the loss; torch's padding_idx holds, too."""
    ids = np.asarray(BATCH.inputs.input_ids)
    assert np.any(ids == CONFIG.pad_token_id)
    embeddings = gradients(CONFIG, PARAMS, BATCH, sub)["embeddings"]

    def rows(name: str) -> set[int]:
        return set(np.flatnonzero(np.any(np.asarray(embeddings[name]["embedding"]) != 0, axis=1)).tolist())

    assert rows("word") == set(ids.flat) - {CONFIG.pad_token_id}
    assert rows("position") == set(range(ids.shape[1]))
    assert rows("token_type") == {0, 1}


# Cutting


@pytest.mark.parametrize(
    ("config", "sub"),
    [*((CONFIG, sub) for sub in GRID), (ROBERTA, PER_LAYER)],
    ids=lambda value: getattr(value, "name", None) or value.model_type,
)
def test_a_cut_model_is_the_sub_network(config: ModelConfig, sub: SubNetwork) -> None:
    params, batch = random_params(config), random_batch(config)
    small = cut_model(config, params, sub)
    shapes = {path: leaf.shape for path, leaf in by_path(small.params).items()}
    assert shapes == param_shapes(small.config)
    ours = run(small.config, small.params, batch, SubNetwork.full(small.config))
    inside = run(config, params, batch, sub)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), ours, inside)


def test_a_cut_of_a_cut_is_a_cut() -> None:
    """Layers are numbered anew, so the second cut counts within the first."""
    first = cut_model(CONFIG, PARAMS, SubNetwork((0, 2), (3, 2), (9, 17)))
    second = cut_model(first.config, first.params, SubNetwork((1,), (1,), (4,)))
    direct = cut_model(CONFIG, PARAMS, SubNetwork((2,), (1,), (4,)))
    assert second.config == direct.config
    assert_trees_close(second.params, direct.params)


def test_a_cut_leaves_the_model_as_it_was() -> None:
    before = jax.tree.map(np.copy, PARAMS)
    small = cut_model(CONFIG, PARAMS, PER_LAYER)
    assert small.config == CONFIG.replace(heads=(3, 1), neurons=(5, 17))
    assert_trees_close(PARAMS, before)


def test_a_cut_of_what_is_not_there_is_refused() -> None:
    small = cut_model(CONFIG, PARAMS, PER_LAYER)
    with pytest.raises(ValueError, match="keeps layer 2, but the model has 2 layers"):
        cut_model(small.config, small.params, FULL)


# Rewiring


def random_order(config: ModelConfig) -> Order:
    rng = np.random.default_rng(0)
    return Order(tuple(map(rng.permutation, config.heads)), tuple(map(rng.permutation, config.neurons)))


def test_rewiring_leaves_the_full_network_as_it_was() -> None:
    order = random_order(CONFIG)
    rewired = rewire(PARAMS, order)
    before, after = run(CONFIG, PARAMS, BATCH, FULL), run(CONFIG, rewired, BATCH, FULL)
    assert np.any(rewired["layer_0"]["query"]["kernel"] != PARAMS["layer_0"]["query"]["kernel"])
    for old, new in zip(before.hidden_states, after.hidden_states, strict=True):
        np.testing.assert_allclose(new, old, rtol=0.0, atol=1e-5)
    np.testing.assert_allclose(after.logits, before.logits, rtol=0.0, atol=1e-5)
    for heads, old, new in zip(order.heads, before.attention_scores, after.attention_scores, strict=True):
        np.testing.assert_allclose(new, np.asarray(old)[:, heads], rtol=1e-4, atol=1e-4)


def test_the_inverse_order_restores_the_parameters() -> None:
    order = random_order(CONFIG)
    assert_trees_close(rewire(rewire(PARAMS, order), order.inverse()), PARAMS)


def test_a_rewired_sub_network_keeps_the_chosen_heads_and_neurons() -> None:
    """The same as to silence the others: gates of 0 on heads, and rows of 0 behind neurons."""
    order = random_order(CONFIG)
    heads, neurons = 2, 7
    ours = run(CONFIG, rewire(PARAMS, order), BATCH, SubNetwork((0, 1, 2), (heads,) * 3, (neurons,) * 3))

    gates, silenced = np.zeros((3, 4), np.float32), jax.tree.map(np.copy, PARAMS)
    for i in range(3):
        gates[i, order.heads[i][:heads]] = 1.0
        silenced[f"layer_{i}"]["down"]["kernel"][order.neurons[i][neurons:]] = 0.0
    theirs = Bert(CONFIG).apply({"params": silenced}, *BATCH.inputs, FULL, head_gates=gates)
    np.testing.assert_allclose(ours.logits, theirs.logits, rtol=0.0, atol=1e-5)


def test_the_most_important_come_first_and_equals_keep_their_order() -> None:
    scores = Scores((np.array([1.0, 3.0, 1.0, 2.0]),), (np.array([0.0, 0.0, 5.0]),))
    order = by_importance(scores)
    assert order.heads[0].tolist() == [1, 3, 0, 2]
    assert order.neurons[0].tolist() == [2, 0, 1]
    assert order.inverse().heads[0].tolist() == [2, 0, 3, 1]


# Importance


def torch_importance(config: ModelConfig, params: Any, batch: Batch) -> Scores:
    """The paper's scores out of torch's autograd on transformers' model; a head's gate is a hook on its output."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(**config.to_hugging_face())
    model = transformers.AutoModelForSequenceClassification.from_config(theirs, attn_implementation="eager").eval()
    tensors = to_torch_names(config, params)
    model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()}, strict=False)
    layers = getattr(model, config.model_type).encoder.layer
    gates = torch.ones(config.num_layers, config.heads[0], requires_grad=True)
    for i, layer in enumerate(layers):
        layer.attention.output.dense.register_forward_pre_hook(
            lambda _, inputs, i=i: (inputs[0] * gates[i].repeat_interleave(config.head_size),)
        )
    model(
        input_ids=torch.tensor(batch.inputs.input_ids),
        attention_mask=torch.tensor(batch.inputs.attention_mask),
        token_type_ids=torch.tensor(batch.inputs.token_type_ids),
        labels=torch.tensor(batch.labels).long(),
    ).loss.backward()

    def changed(parameter: Any) -> Any:
        return parameter * parameter.grad  # torch's kernels are [out, in]

    neurons = [
        (changed(layer.intermediate.dense.weight).sum(1) + changed(layer.intermediate.dense.bias)).abs()
        + changed(layer.output.dense.weight).sum(0).abs()
        for layer in layers
    ]
    return Scores(tuple(gates.grad.abs().numpy()), tuple(neuron.detach().numpy() for neuron in neurons))


def assert_same_scores(ours: Scores, theirs: Scores) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def test_importance_is_torchs_and_filler_does_not_count() -> None:
    whole = random_batch(CONFIG, rows=6)
    filled = whole.replace(weights=np.array([1, 1, 1, 1, 0, 0], np.float32))
    real = jax.tree.map(lambda a: a[:4], whole)
    scores = importance(Bert(CONFIG), PARAMS, [filled])
    assert_same_scores(scores, torch_importance(CONFIG, PARAMS, real))
    with pytest.raises(AssertionError):  # what would have been missed
        assert_same_scores(scores, torch_importance(CONFIG, PARAMS, whole))


@pytest.mark.parametrize("rows_at_once", [1, 2, 4, 6, 100])
def test_importance_in_parts_is_that_of_a_whole_batch(rows_at_once: int) -> None:
    """Of a mean over the rows that count, wherever they stand."""
    filled = random_batch(CONFIG, rows=6).replace(weights=np.array([1, 0, 1, 1, 0, 1], np.float32))
    real = jax.tree.map(lambda a: a[[0, 2, 3, 5]], filled)
    scores = importance(Bert(CONFIG), PARAMS, [filled], rows_at_once=rows_at_once)
    assert_same_scores(scores, torch_importance(CONFIG, PARAMS, real))


def test_importance_of_a_cut_model_is_the_change_when_a_head_or_neuron_shrinks() -> None:
    """Central differences: layers of 3 and 1 heads, 5 and 17 neurons, and a model that is set to train with dropout."""
    config = CONFIG.replace(hidden_dropout=0.5, attention_dropout=0.5)
    small = cut_model(config, PARAMS, PER_LAYER)
    scores = importance(Bert(small.config), small.params, [BATCH])
    assert [len(heads) for heads in scores.heads] == [3, 1]
    assert [len(neurons) for neurons in scores.neurons] == [5, 17]

    step = 1e-2

    def slope(layer: int, name: str, leaf: str, where: Any) -> float:
        """Of the loss, as the parameters there are scaled by 1 + t, at t = 0."""
        losses = []
        for t in (-step, step):
            params = jax.tree.map(np.copy, small.params)
            params[f"layer_{layer}"][name][leaf][where] *= 1 + t
            logits = run(small.config, params, BATCH, SubNetwork.full(small.config)).logits
            losses.append(float(task_loss("classification", logits, BATCH.labels).mean()))
        return (losses[1] - losses[0]) / (2 * step)

    for layer in range(2):
        heads = [abs(slope(layer, "attention_output", "kernel", head)) for head in range(small.config.heads[layer])]
        np.testing.assert_allclose(scores.heads[layer], heads, rtol=2e-2, atol=1e-4)
        neurons = [
            abs(slope(layer, "up", "kernel", (slice(None), n)) + slope(layer, "up", "bias", n))
            + abs(slope(layer, "down", "kernel", n))
            for n in range(small.config.neurons[layer])
        ]
        np.testing.assert_allclose(scores.neurons[layer], neurons, rtol=2e-2, atol=1e-4)


def test_importance_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match="importance needs at least one batch of examples; got none"):
        importance(Bert(CONFIG), PARAMS, [])
