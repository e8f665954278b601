"""BERT and RoBERTa for sequence classification, with a separate number of heads and neurons in every layer.

Load it with `AutoModelForSequenceClassification.from_pretrained(FOLDER, trust_remote_code=True)`. `config.dynabert`
holds the size of a head, and the numbers of heads and neurons of each layer.
"""

from typing import Any

from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)


class DynaBertConfig(BertConfig):
    """BERT's configuration, with the shape of every layer."""

    model_type = "dynabert"
    dynabert: dict[str, Any] | None = None


class DynaRobertaConfig(RobertaConfig):
    """RoBERTa's configuration, with the shape of every layer."""

    model_type = "dynaroberta"
    dynabert: dict[str, Any] | None = None


class DynaBertForSequenceClassification(BertForSequenceClassification):
    """BERT's classifier, with every layer in its own shape."""

    config_class = DynaBertConfig

    def __init__(self, config: DynaBertConfig):
        super().__init__(config)
        reshape_layers(self.bert.encoder.layer, config)


class DynaRobertaForSequenceClassification(RobertaForSequenceClassification):
    """RoBERTa's classifier, with every layer in its own shape."""

    config_class = DynaRobertaConfig

    def __init__(self, config: DynaRobertaConfig):
        super().__init__(config)
        reshape_layers(self.roberta.encoder.layer, config)


def reshape_layers(layers: Any, config: Any) -> None:
    """Replaces the linear layers by ones of the right shape for each layer."""
    shape, hidden = config.dynabert, config.hidden_size
    for layer, heads, neurons in zip(layers, shape["heads"], shape["neurons"], strict=True):
        attention, inner = layer.attention.self, heads * shape["head_size"]
        attention.num_attention_heads, attention.attention_head_size = heads, shape["head_size"]
        attention.all_head_size, attention.scaling = inner, shape["head_size"] ** -0.5
        attention.query, attention.key, attention.value = (nn.Linear(hidden, inner) for _ in range(3))
        layer.attention.output.dense = nn.Linear(inner, hidden)
        layer.intermediate.dense = nn.Linear(hidden, neurons)
        layer.output.dense = nn.Linear(neurons, hidden)
