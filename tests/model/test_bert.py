"""The network against transformers' own, and what may be asked of it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dynabert_jax.config import ModelConfig
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.model.bert import Bert, Block, Outputs
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.names import param_shapes
from tiny import (
    CONFIG,
    FULL,
    GRID,
    PER_LAYER,
    ROBERTA,
    by_path,
    equations,
    gradients,
    norm,
    random_batch,
    random_params,
    run,
)

BATCH = random_batch(CONFIG)
PARAMS = random_params(CONFIG)
EXACT = {"rtol": 0.0, "atol": 1e-5}


# The full network is transformers' own


def torch_model(config: ModelConfig) -> Any:
    """A random ...ForSequenceClassification of transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(**config.to_hugging_face())
    model = transformers.AutoModelForSequenceClassification.from_config(theirs, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():  # a new model's biases and norms are constant
        torch.nn.init.normal_(parameter, float(name.endswith("LayerNorm.weight")), 0.2, generator=generator)
    return model.eval()


def torch_run(model: Any, batch: Batch) -> Any:
    import torch

    with torch.no_grad():
        return model(
            input_ids=torch.tensor(batch.inputs.input_ids),
            attention_mask=torch.tensor(batch.inputs.attention_mask),
            token_type_ids=torch.tensor(batch.inputs.token_type_ids),
            output_hidden_states=True,
            output_attentions=True,
        )


def assert_same_states(ours: Outputs, theirs: Any, batch: Batch, **tolerance: float) -> None:
    """At real positions; what stands at padding is nobody's answer."""
    real = np.asarray(batch.inputs.attention_mask, bool)
    assert len(ours.hidden_states) == len(theirs.hidden_states)
    for layer, (own, other) in enumerate(zip(ours.hidden_states, theirs.hidden_states, strict=True)):
        np.testing.assert_allclose(np.asarray(own)[real], other.numpy()[real], **tolerance, err_msg=str(layer))


@pytest.mark.parametrize("config", [CONFIG, ROBERTA, CONFIG.replace(labels=("score",), head="regression")],
                         ids=["bert", "roberta", "regression"])  # fmt: skip
def test_the_full_network_is_that_of_transformers(config: ModelConfig, tmp_path: Path) -> None:
    model = torch_model(config)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    batch = random_batch(config)
    assert 0 < np.asarray(batch.inputs.attention_mask).mean() < 1
    assert np.any(batch.inputs.token_type_ids) == (config.model_type == "bert")

    ours, theirs = run(loaded.config, loaded.params, batch, FULL), torch_run(model, batch)
    np.testing.assert_allclose(ours.logits, theirs.logits.numpy(), **EXACT)
    assert_same_states(ours, theirs, batch, **EXACT)
    # Attention as transformers returns it: after the softmax.
    real = np.asarray(batch.inputs.attention_mask, bool)
    for scores, attention in zip(ours.attention_scores, theirs.attentions, strict=True):
        queries = np.broadcast_to(real[:, None, :], scores.shape[:3])  # [B, N, S]
        np.testing.assert_allclose(np.asarray(jax.nn.softmax(scores))[queries], attention.numpy()[queries], **EXACT)


SENTENCES = (
    "An utterly charming film.",
    "It is hard to believe that anybody thought this script, which forgets its own plot twice, was ready to be shot.",
    "Dull.",
    "The cast does what it can; the jokes, alas, were old when the silents were new -- and yet I laughed twice.",
)


@pytest.mark.network
def test_minilm_is_that_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from dynabert_jax.data.samples import fetch_minilm

    folder = fetch_minilm()
    encoded = transformers.AutoTokenizer.from_pretrained(folder)(
        list(SENTENCES), padding=True, return_tensors="np", return_token_type_ids=True
    )
    ids, mask, types = (encoded[name].astype(np.int32) for name in ("input_ids", "attention_mask", "token_type_ids"))
    batch = Batch(Inputs(ids, mask, types), np.zeros(len(ids), np.int32), np.ones(len(ids), np.float32))
    loaded = load_model(folder)
    ours = run(loaded.config, loaded.params, batch, SubNetwork.full(loaded.config))
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    # States reach 10, where float32 steps by 1e-6, and sums run in another order than torch's: 3e-6 after six layers.
    assert_same_states(ours, torch_run(model, batch), batch, **EXACT)


# What may be asked of it


def apply(params: Any, batch: Batch, sub: SubNetwork, config: ModelConfig = CONFIG, **options: Any) -> Outputs:
    return Bert(config).apply({"params": params}, *batch.inputs, sub, **options)


@pytest.mark.parametrize("sub", GRID, ids=lambda sub: sub.name)
def test_a_range_of_blocks_and_the_rest_are_the_whole(sub: SubNetwork) -> None:
    whole = run(CONFIG, PARAMS, BATCH, sub)

    def in_two_pieces(model: Bert, split: int) -> tuple[Outputs, Outputs, jax.Array]:
        ids, mask, types = BATCH.inputs
        hidden = model.embed(ids, mask, types)
        first = model.run_blocks(hidden, mask, sub, stop=split, with_attention=True)
        rest = model.run_blocks(first.hidden_states[-1], mask, sub, start=split, with_attention=True)
        return first, rest, model.classify(rest.hidden_states[-1])

    for split in range(len(sub.layers) + 1):
        first, rest, logits = Bert(CONFIG).apply({"params": PARAMS}, split, method=in_two_pieces)
        assert first.logits.shape == (len(BATCH.labels), 0)
        assert len(first.hidden_states) == split + 1
        states = (*first.hidden_states, *rest.hidden_states[1:])
        scores = first.attention_scores + rest.attention_scores
        for ours, expected in ((states, whole.hidden_states), (scores, whole.attention_scores)):
            for own, other in zip(ours, expected, strict=True):
                np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(logits, whole.logits, rtol=1e-6, atol=1e-6)


def test_outputs_are_those_of_the_kept_layers() -> None:
    outputs = run(CONFIG, PARAMS, BATCH, PER_LAYER)
    assert [state.shape for state in outputs.hidden_states] == [(4, 7, 12)] * 3
    assert [scores.shape for scores in outputs.attention_scores] == [(4, 3, 7, 7), (4, 1, 7, 7)]
    assert outputs.logits.shape == (4, 3)


def test_attention_scores_come_only_on_request() -> None:
    assert apply(PARAMS, BATCH, PER_LAYER).attention_scores == ()
    assert len(apply(PARAMS, BATCH, PER_LAYER, with_attention=True).attention_scores) == 2


def test_padding_is_not_attended_to() -> None:
    """Another token at a padded position changes nothing at the others."""
    real = np.asarray(BATCH.inputs.attention_mask, bool)
    other = BATCH.replace(
        inputs=BATCH.inputs._replace(input_ids=np.where(real, BATCH.inputs.input_ids, 5).astype(np.int32))
    )
    left, right = (run(CONFIG, PARAMS, batch, FULL) for batch in (BATCH, other))
    assert np.any(np.asarray(left.hidden_states[-1])[~real] != np.asarray(right.hidden_states[-1])[~real])
    np.testing.assert_array_equal(np.asarray(left.hidden_states[-1])[real], np.asarray(right.hidden_states[-1])[real])
    np.testing.assert_array_equal(left.logits, right.logits)


@pytest.mark.parametrize(("config", "longest"), [(CONFIG, 16), (ROBERTA, 14)], ids=["bert", "roberta"])
def test_a_sentence_longer_than_the_positions_is_refused(config: ModelConfig, longest: int) -> None:
    def shape(length: int) -> tuple[int, ...]:
        batch = random_batch(config, length=length)
        return jax.eval_shape(lambda: apply(random_params(config), batch, PER_LAYER, config)).logits.shape

    assert shape(longest) == (4, 3)
    with pytest.raises(ValueError, match=f"{longest + 1} tokens do not fit: the model has positions for {longest}"):
        shape(longest + 1)


def test_a_sub_network_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="5 heads and 1 neurons of layer 0, but that layer has 4 heads"):
        apply(PARAMS, BATCH, SubNetwork((0,), (5,), (1,)))


@pytest.mark.parametrize("rates", [{"hidden_dropout": 0.5}, {"attention_dropout": 0.5}], ids=["hidden", "attention"])
def test_dropout_acts_in_training_alone(rates: dict[str, float]) -> None:
    config, sub = CONFIG.replace(**rates), SubNetwork((1,), (2,), (5,))

    @jax.jit
    def logits(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        trained = apply(PARAMS, BATCH, sub, config, dropout=jax.random.split(key, 4))
        return trained.logits, apply(PARAMS, BATCH, sub, config).logits

    trained, plain = logits(jax.random.key(0))
    other, plain_again = logits(jax.random.key(1))
    np.testing.assert_array_equal(plain, plain_again)
    np.testing.assert_array_equal(trained, logits(jax.random.key(0))[0])
    assert np.all(np.asarray(trained) != plain)
    assert np.all(np.asarray(trained) != other)
    np.testing.assert_allclose(plain, run(CONFIG, PARAMS, BATCH, sub).logits, **EXACT)


@pytest.mark.parametrize("config", [CONFIG, ROBERTA], ids=["bert", "roberta"])
def test_dropout_acts_where_torchs_does(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes that are dropped from, in their order."""
    torch = pytest.importorskip("torch")
    config = config.replace(hidden_dropout=0.1, attention_dropout=0.1)
    batch, theirs = random_batch(config), []

    def record(array: Any, p: float, training: bool, *_: Any) -> Any:
        assert (p, training) == (0.1, True)
        theirs.append(tuple(array.shape))
        return array

    model = torch_model(config).train()
    monkeypatch.setattr(torch.nn.functional, "dropout", record)
    torch_run(model, batch)
    program = jax.make_jaxpr(
        lambda keys: apply(random_params(config), batch, FULL, config, dropout=keys)
    )(jax.random.split(jax.random.key(0), len(batch.labels)))  # fmt: skip
    draws = [e.invars[0].aval for e in equations(program.jaxpr) if e.primitive.name == "lt"]
    assert [draw.shape for draw in draws if draw.dtype == np.uint32] == theirs


def test_an_example_draws_alone() -> None:
    """By its key, wherever it stands in a batch."""
    config, sub = CONFIG.replace(hidden_dropout=0.5, attention_dropout=0.5), SubNetwork((0, 1), (2, 2), (5, 5))
    keys = jax.random.split(jax.random.key(0), len(BATCH.labels))
    forward = jax.jit(lambda batch, keys: apply(PARAMS, batch, sub, config, dropout=keys).logits)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(
        forward(jax.tree.map(lambda a: a[order], BATCH), keys[order]), forward(BATCH, keys)[order], **EXACT
    )
    same = jax.tree.map(lambda a: np.repeat(a[:1], 4, axis=0), BATCH)
    assert len(np.unique(np.asarray(forward(same, keys)), axis=0)) == 4


def test_two_sub_networks_answer_differently() -> None:
    logits = [np.asarray(run(CONFIG, PARAMS, BATCH, sub).logits) for sub in GRID]
    for i, left in enumerate(logits):
        for right in logits[i + 1 :]:
            assert np.abs(left - right).max() > 1e-3


# bfloat16


@pytest.mark.parametrize("sub", GRID, ids=lambda sub: sub.name)
def test_bfloat16_gradients_are_those_of_float32_but_for_rounding(sub: SubNetwork) -> None:
    """An operand is wrong by 2**-9 at most; some twenty products lie one behind the other, and as many backwards.

    Their errors are random and add up as the root of their number: sqrt(40) * 2**-9 is 1.2 %.
    """
    exact = gradients(CONFIG, PARAMS, BATCH, sub)
    rounded = gradients(CONFIG, PARAMS, BATCH, sub, "bfloat16")
    assert {leaf.dtype for leaf in by_path(rounded).values()} == {np.dtype(np.float32)}
    error = norm(jax.tree.map(np.subtract, rounded, exact)) / norm(exact)
    assert 1e-5 < error < 40**0.5 * 2.0**-9


@pytest.mark.parametrize("config", [CONFIG, ROBERTA], ids=["bert", "roberta"])
def test_flax_initialises_the_parameters_that_weights_have(config: ModelConfig) -> None:
    batch, full = random_batch(config), SubNetwork.full(config)
    inputs = batch.inputs
    made = jax.eval_shape(lambda key: Bert(config).init(key, *inputs, full), jax.random.key(0))
    shapes = {path: array.shape for path, array in flatten_dict(made["params"], sep="/").items()}
    assert shapes == param_shapes(config)


def test_layers_of_one_size_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards and backwards; it is what makes a program of many layers start soon."""
    config = CONFIG.replace(heads=(2,) * 4, neurons=(3,) * 4, layer_norm_eps=1e-5)  # another test has not traced it
    params, sub = random_params(config), SubNetwork.full(config)
    traced, attend = [], Block.attend
    monkeypatch.setattr(Block, "attend", lambda *args: traced.append(args) or attend(*args))
    jax.make_jaxpr(jax.grad(lambda params: run(config, params, BATCH, sub).logits.sum()))(params)
    assert len(traced) == 1
