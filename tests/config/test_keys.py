"""Every key of Hugging Face's configurations is read, irrelevant, or refused where it would change the answers."""

from typing import Any

import pytest

from dynabert_jax.config import ConfigError, ModelConfig
from dynabert_jax.config.keys import IRRELEVANT, ONLY_HARMLESS, READ

SIZES = {"model_type": "bert", "vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 20, "max_position_embeddings": 16, "type_vocab_size": 2}  # fmt: skip


def test_no_key_is_in_two_groups() -> None:
    assert not READ & IRRELEVANT
    assert not (READ | IRRELEVANT) & ONLY_HARMLESS.keys()


@pytest.mark.parametrize("name", ["BertConfig", "RobertaConfig"])
def test_every_key_of_the_installed_transformers_is_known(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    values = getattr(transformers, name)().to_dict()
    assert values.keys() <= READ | IRRELEVANT | ONLY_HARMLESS.keys()
    assert ModelConfig.from_hugging_face(values).num_layers == 12


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "relu"}, {"hidden_act": "gelu_new"}, {"hidden_act": None},
        {"position_embedding_type": "relative_key"}, {"is_decoder": True}, {"add_cross_attention": True},
        {"pruned_heads": {"0": [1]}}, {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"embedding_size": 6}, {"num_key_value_heads": 1}, {"head_dim": 5}, {"rope_theta": 10_000.0},
        {"layer_norm_eps": None}, {"layer_norm_eps": "1e-5"}, {"hidden_dropout_prob": None}, {"is_decoder": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_would_change_the_answers_is_refused_by_its_name(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        ModelConfig.from_hugging_face(SIZES | change)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu_python"}, {"position_embedding_type": None}, {"pruned_heads": {}},
        {"pruned_heads": {"0": []}}, {"embedding_size": 12}, {"num_key_value_heads": 3}, {"head_dim": 4},
        {"quantization_config": None}, {"chunk_size_feed_forward": 8}, {"use_cache": False}, {"dtype": "bfloat16"},
        {"anything_of_ones_own": [1, 2]},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_nothing_is_taken(change: dict[str, Any]) -> None:
    assert ModelConfig.from_hugging_face(SIZES | change) == ModelConfig.from_hugging_face(SIZES)


# Names of classes


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({"0": 1, "1": 2}, ("1", "2")),
        ({"0": False, "1": 1.5}, ("False", "1.5")),
        ({str(i): f"c{i}" for i in reversed(range(11))}, tuple(f"c{i}" for i in range(11))),
    ],
)
def test_names_are_words_in_the_order_of_the_outputs(names: dict[str, Any], labels: tuple[str, ...]) -> None:
    assert ModelConfig.from_hugging_face(SIZES | {"id2label": names}).labels == labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label has the keys '0', '2'"),
        ({"id2label": {"-1": "a", "0": "b"}}, "id2label has the keys"),
        ({"id2label": {"0": "a", "x": "b"}}, "id2label has the keys"),
        ({"id2label": {"0": "a", "1": "a"}}, "the name 'a' more than once"),
        ({"id2label": {"0": 1, "1": "1"}}, "the name '1' more than once"),
        ({"id2label": {"0": "a", "1": None}}, "id2label has None for a name"),
        ({"id2label": ["a", "b"]}, "id2label must be an object"),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "num_labels is 3, but id2label has 2 names"),
    ],
)
def test_names_that_say_nothing_are_refused_unless_others_take_their_place(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hugging_face(SIZES | change)
    assert ModelConfig.from_hugging_face(SIZES | change, labels=("no", "yes")).labels == ("no", "yes")
