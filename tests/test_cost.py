"""Costs on paper against what is really there: the arrays of a cut model, and the products that are computed."""

import math
from typing import Any

import jax
import pytest

from dynabert_jax import cost
from dynabert_jax.config import ModelConfig
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.params import cut_model
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, FULL, GRID, ROBERTA, equations, random_batch, random_params

MODELS = pytest.mark.parametrize("config", [CONFIG, ROBERTA, CONFIG.replace(labels=("score",), head="regression")],
                                 ids=["bert", "roberta", "regression"])  # fmt: skip


def torch_model(config: ModelConfig) -> Any:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoConfig.for_model(**config.to_hugging_face())
    return transformers.AutoModelForSequenceClassification.from_config(theirs, attn_implementation="eager").eval()


@MODELS
def test_parameters_are_the_numbers_in_a_cut_model(config: ModelConfig) -> None:
    params = random_params(config)
    for sub in GRID:
        small = cut_model(config, params, sub)
        assert cost.parameters(config, sub) == sum(leaf.size for leaf in jax.tree.leaves(small.params)), sub.name
        layers = [tree for name, tree in small.params.items() if name.startswith("layer_")]
        assert cost.encoder_parameters(config, sub) == sum(leaf.size for leaf in jax.tree.leaves(layers)), sub.name


@MODELS
def test_parameters_of_the_full_network_are_transformers(config: ModelConfig) -> None:
    assert cost.parameters(config, FULL) == torch_model(config).num_parameters()


def test_bert_base_has_its_known_size() -> None:
    """109.5 million parameters with a head for two classes; 85.1 million of them in the layers."""
    transformers = pytest.importorskip("transformers")
    base = ModelConfig.from_hugging_face(transformers.BertConfig().to_dict())
    full = SubNetwork.full(base)
    assert cost.parameters(base, full) == 109_483_778
    assert cost.encoder_parameters(base, full) == 85_054_464


def flops_of_products(program: Any) -> int:
    """Two for every multiply-add of the dot_generals of a traced program."""
    total = 0
    for equation in equations(program.jaxpr):
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * inner * math.prod(equation.outvars[0].aval.shape)
    return total


@MODELS
def test_flops_are_those_of_the_products_of_the_program(config: ModelConfig) -> None:
    params, model = random_params(config), Bert(config)
    for sub in GRID:
        for length in (7, 13):
            batch = random_batch(config, rows=1, length=length)
            program = jax.make_jaxpr(lambda batch, sub=sub: model.apply({"params": params}, *batch.inputs, sub))(batch)
            assert cost.flops(config, sub, length) == flops_of_products(program), sub.name


@MODELS
def test_what_sub_networks_share_is_computed_once(config: ModelConfig) -> None:
    """Of the three depths of a width the first layer runs once; the third runs twice, on what two ways lead to it."""
    params, model, batch = random_params(config), Bert(config), random_batch(config, rows=1, length=7)
    family = tuple(SubNetwork.uniform(config, 0.5, depth) for depth in (1.0, 2 / 3, 1 / 2))
    program = jax.make_jaxpr(
        lambda batch: model.apply(
            {"params": params}, *batch.inputs, family,
            method="run_together",
        )
    )(batch)  # fmt: skip
    together = cost.flops_together(config, family, 7)
    assert together == flops_of_products(program)
    assert together < sum(cost.flops(config, sub, 7) for sub in family)


@MODELS
def test_flops_of_the_full_network_are_torchs(config: ModelConfig) -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.full((1, 9), config.pad_token_id + 1)
    model = torch_model(config)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    assert cost.flops(config, FULL, 9) == counter.get_total_flops()
