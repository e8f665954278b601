"""The shape of a model, and Hugging Face's config.json to and from it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from dynabert_jax.config.checked import AtLeastOne, Checked, ConfigError, Count, Positive, Probability
from dynabert_jax.config.keys import check_keys, number
from dynabert_jax.config.tasks import Kind
from dynabert_jax.config.unit import Unit
from dynabert_jax.system.json_file import read_object

SIZES = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings",
)  # fmt: skip
# Limits on counts in a Hugging Face config.json, far above those of any real model.
MOST = {"num_hidden_layers": 1000, "num_labels": 1_000_000}


class ModelConfig(Checked):
    """The shape of a BERT or RoBERTa with a sequence classification (or regression) head.

    Heads and neurons are per layer, so that the same class describes a model cut from another.

    Attributes:
        head_size: size of one attention head; hidden_size / heads in an uncut model.
        heads: attention heads of each layer, `[layers]`.
        neurons: feed-forward neurons of each layer, `[layers]`.
        labels: the classes' names in the classifier's order, or the one name of a regression's number.
        head: what the model answers: a class, or a number (`regression`).
        classifier_dropout: dropout around the pooler; None means hidden_dropout.
        unit: of a regression's number.
    """

    model_type: Literal["bert", "roberta"]
    vocab_size: AtLeastOne
    hidden_size: AtLeastOne
    head_size: AtLeastOne
    heads: tuple[AtLeastOne, ...]
    neurons: tuple[AtLeastOne, ...]
    max_position_embeddings: AtLeastOne
    type_vocab_size: AtLeastOne
    layer_norm_eps: Positive
    pad_token_id: Count
    hidden_dropout: Probability
    attention_dropout: Probability
    labels: tuple[str, ...]
    head: Kind = "classification"
    classifier_dropout: Probability | None = None
    unit: Unit = Unit()

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if not self.heads or len(self.heads) != len(self.neurons):
            raise ValueError(
                f"heads and neurons need one entry per layer; got {len(self.heads)} and {len(self.neurons)}"
            )
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id must be less than vocab_size, {self.vocab_size}; got {self.pad_token_id}")
        if self.head == "regression" and len(self.labels) != 1:
            raise ValueError(f"a regression head has one output, so labels must be one name; got {self.labels}")
        if self.head == "classification" and len(self.labels) < 2:
            raise ValueError(
                f"a classification head needs two or more labels; got {self.labels}; to predict a number, set "
                f"head='regression'"
            )
        return self

    @property
    def num_layers(self) -> int:
        return len(self.heads)

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @property
    def is_regression(self) -> bool:
        return self.head == "regression"

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout if self.classifier_dropout is None else self.classifier_dropout

    @property
    def first_position(self) -> int:
        """Position id of the first token: RoBERTa's positions start after its padding index."""
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the position embeddings cover."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def from_hugging_face(
        cls, values: dict[str, Any], labels: tuple[str, ...] | None = None, head: Kind | None = None
    ) -> Self:
        """From the contents of a Hugging Face `config.json`.

        A cut model has its own shape under the key `dynabert`.

        Args:
            values: the contents.
            labels: those that take the place of the stored ones, whose head then does not matter.
            head: what these labels are; None: one label is a regression's number, more are classes.

        Raises:
            ConfigError: a key is missing or invalid, or the architecture or activation is not supported.
        """
        cut = values.get("dynabert") or {}
        # A cut model with its own modelling file has its own model_type, too.
        model_type: Any = cut.get("model_type") or values.get("model_type") or _guess_model_type(values)
        if model_type not in ("bert", "roberta"):
            raise ConfigError(f"model_type {model_type!r} is not supported; use a 'bert' or 'roberta' model")
        check_keys(values)
        _check_sizes(values)
        hidden, heads, layers = values["hidden_size"], values["num_attention_heads"], values["num_hidden_layers"]
        shape = {"head_size": hidden // heads, "heads": (heads,) * layers,
                 "neurons": (values["intermediate_size"],) * layers}  # fmt: skip
        if cut:
            shape = {"head_size": cut["head_size"], "heads": tuple(cut["heads"]), "neurons": tuple(cut["neurons"])}
        if labels is None:
            _check_count(values)
        kind = _head(values) if labels is None else head or head_of(labels)
        return cls(
            model_type=model_type,
            vocab_size=values["vocab_size"],
            hidden_size=hidden,
            **shape,
            max_position_embeddings=values["max_position_embeddings"],
            type_vocab_size=values.get("type_vocab_size", 2),
            layer_norm_eps=number(values, "layer_norm_eps", 1e-12),
            pad_token_id=_pad_token_id(model_type, values),
            hidden_dropout=number(values, "hidden_dropout_prob", 0.1),
            attention_dropout=number(values, "attention_probs_dropout_prob", 0.1),
            labels=stored_labels(values) if labels is None else labels,
            head=kind,
            classifier_dropout=values.get("classifier_dropout"),
            unit=_unit(values) if kind == "regression" else Unit(),
        )

    @classmethod
    def read(cls, file: Path, labels: tuple[str, ...] | None = None, head: Kind | None = None) -> Self:
        """From a Hugging Face `config.json`; `from_hugging_face` says what the arguments are.

        Raises:
            OSError: it cannot be read.
            ConfigError: it is damaged, or not the configuration of a BERT or RoBERTa.
        """
        try:
            return cls.from_hugging_face(read_object(file), labels, head)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{file} is damaged ({type(error).__name__}: {error}); copy or download it again"
            ) from error

    def to_hugging_face(self) -> dict[str, Any]:
        """The contents of a Hugging Face `config.json`; the inverse of `from_hugging_face`."""
        uniform = (
            len(set(self.heads)) == len(set(self.neurons)) == 1 and self.heads[0] * self.head_size == self.hidden_size
        )
        values: dict[str, Any] = {
            "model_type": self.model_type,
            "architectures": [
                "BertForSequenceClassification" if self.model_type == "bert" else "RobertaForSequenceClassification"
            ],
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.hidden_size // self.head_size,
            "intermediate_size": max(self.neurons),
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.layer_norm_eps,
            "hidden_act": "gelu",
            "pad_token_id": self.pad_token_id,
            "hidden_dropout_prob": self.hidden_dropout,
            "attention_probs_dropout_prob": self.attention_dropout,
            "classifier_dropout": self.classifier_dropout,
            "id2label": {str(i): name for i, name in enumerate(self.labels)},
            "label2id": {name: i for i, name in enumerate(self.labels)},
        }
        if self.is_regression:
            values["problem_type"] = "regression"
        if self.unit != Unit():
            values |= {"label_mean": self.unit.mean, "label_deviation": self.unit.deviation}
        if not uniform:
            values["dynabert"] = {"head_size": self.head_size, "heads": self.heads, "neurons": self.neurons}
        return values


def _check_sizes(values: dict[str, Any]) -> None:
    """Raises ConfigError unless all sizes that a model needs are there, and fit together."""
    missing = [key for key in SIZES if key not in values]
    if missing:
        raise ConfigError(f"config.json has no {', '.join(missing)}; use the config.json of a BERT or RoBERTa")
    not_counts = [key for key in SIZES if not isinstance(values[key], int) or values[key] < 1]
    if not_counts:
        shown = ", ".join(f"{key} = {values[key]!r}" for key in not_counts)
        raise ConfigError(f"config.json: {shown}: each must be a whole number, at least 1")
    _check_not_absurd(values)
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    if hidden % heads:
        raise ConfigError(f"hidden_size must be a multiple of num_attention_heads; got {hidden} and {heads}")


def _check_not_absurd(values: dict[str, Any]) -> None:
    """Refuses counts that would fill the memory before they can be compared with the weights."""
    for key, most in MOST.items():
        value = values.get(key)
        if isinstance(value, int) and value > most:
            raise ConfigError(f"config.json: {key} = {value!r}: must be at most {most}; copy or download it again")


def _guess_model_type(values: dict[str, Any]) -> str | None:
    """For checkpoints of 2019 and 2020, which have no model_type. Those of RoBERTa have one token type."""
    if values.get("type_vocab_size") == 1 or any("Roberta" in name for name in values.get("architectures") or ()):
        return "roberta"
    return "bert" if "type_vocab_size" in values else None


def _unit(values: dict[str, Any]) -> Unit:
    """The unit that a regression was trained in; models of other programs, and of older versions, have none."""
    return Unit(mean=number(values, "label_mean", 0.0), deviation=number(values, "label_deviation", 1.0))


def _pad_token_id(model_type: str, values: dict[str, Any]) -> int:
    default = 1 if model_type == "roberta" else 0
    value = values.get("pad_token_id", default)
    return default if value is None else value


def head_of(labels: Sequence[str]) -> Kind:
    """The kind of head that transformers assumes without a `problem_type`: one output is a number."""
    return "regression" if len(labels) == 1 else "classification"


def _head(values: dict[str, Any]) -> Kind:
    """The kind of head by `problem_type`, or by the labels if there is none."""
    kinds: dict[Any, Kind] = {"regression": "regression", "single_label_classification": "classification"}
    problem = values.get("problem_type")
    if problem is None:
        return head_of(stored_labels(values))
    if problem not in kinds:
        raise ConfigError(f"problem_type {problem!r} is not supported; allowed: {', '.join(kinds)}, or none")
    return kinds[problem]


def stored_labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in the contents of a `config.json`, in the order of the outputs. Numbers become words, as in `str`.

    Raises:
        ConfigError: `id2label` does not give every output one name of its own.
    """
    names, count = values.get("id2label"), values.get("num_labels")
    if not names:
        return tuple(f"LABEL_{i}" for i in range(2 if count is None else count))
    return _names_in_order(names)


def _check_count(values: dict[str, Any]) -> None:
    count, names = values.get("num_labels"), values.get("id2label")
    if names and count is not None and count != len(names):
        raise ConfigError(f"num_labels is {count!r}, but id2label has {len(names)} names; correct one of them")


def _names_in_order(names: Any) -> tuple[str, ...]:
    """The names of `id2label`, whose keys must be 0, 1, 2 and so on."""
    cure = "give every output, counted from 0, one name of its own"
    if not isinstance(names, dict):
        raise ConfigError(f"id2label must be an object such as {{'0': 'bad', '1': 'good'}}; got {names!r}; {cure}")
    by_key = {str(key): name for key, name in names.items()}
    if sorted(by_key) != sorted(map(str, range(len(names)))):
        raise ConfigError(f"id2label has the keys {', '.join(map(repr, list(names)[:20]))}; {cure}")
    found = [by_key[str(i)] for i in range(len(names))]
    nameless = [name for name in found if not isinstance(name, str | int | float)]
    if nameless:
        raise ConfigError(f"id2label has {nameless[0]!r} for a name; {cure}")
    labels = tuple(map(str, found))
    twice = [name for name, times in Counter(labels).items() if times > 1]
    if twice:
        raise ConfigError(f"id2label has the name {twice[0]!r} more than once; {cure}")
    return labels
