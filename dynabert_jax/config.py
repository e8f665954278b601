"""The configurations: the model's shape, and the run's settings with the paper's values as defaults."""

from typing import Annotated, Any, Literal, Self

import pydantic

from dynabert_jax.checked import Checked, ConfigError
from dynabert_jax.tasks import Task

Fraction = Annotated[float, pydantic.Field(gt=0.0, le=1.0)]
NonNegative = Annotated[float, pydantic.Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, pydantic.Field(gt=0.0, allow_inf_nan=False)]
Probability = Annotated[float, pydantic.Field(ge=0.0, lt=1.0)]
Count = Annotated[int, pydantic.Field(ge=0)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]  # what a random key of jax has room for
AtLeastOne = Annotated[int, pydantic.Field(ge=1)]
Name = Annotated[str, pydantic.Field(min_length=1)]
Dtype = Literal["float32", "bfloat16"]


def _not_empty(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("name at least one, such as (1.0,)")
    return values


# Far more than any model has, of what a Hugging Face config.json counts.
MOST = {"num_hidden_layers": 1000, "num_labels": 1_000_000}

Fractions = Annotated[tuple[Fraction, ...], pydantic.AfterValidator(_not_empty)]


class ModelConfig(Checked):
    """The shape of a BERT or RoBERTa with a sequence classification (or regression) head.

    Heads and neurons are per layer, so that a model cut out of another is described by the same class.

    Attributes:
        head_size: size of one attention head; hidden_size / heads in an uncut model.
        heads: attention heads of each layer, `[layers]`.
        neurons: feed-forward neurons of each layer, `[layers]`.
        labels: the classes' names in the classifier's order; exactly one name means regression.
        classifier_dropout: dropout around the pooler; None means hidden_dropout.
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
    classifier_dropout: Probability | None = None

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if not self.heads or len(self.heads) != len(self.neurons):
            raise ValueError(f"heads and neurons need one entry a layer; got {len(self.heads)} and {len(self.neurons)}")
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is not one of the {self.vocab_size} tokens")
        if not self.labels:
            raise ValueError("labels must name at least one output (one alone means regression)")
        return self

    @property
    def num_layers(self) -> int:
        return len(self.heads)

    @property
    def num_labels(self) -> int:
        return len(self.labels)

    @property
    def is_regression(self) -> bool:
        return self.num_labels == 1

    @property
    def head_dropout(self) -> float:
        return self.hidden_dropout if self.classifier_dropout is None else self.classifier_dropout

    @property
    def first_position(self) -> int:
        """Position id of the first token: RoBERTa's positions start behind its padding index."""
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens, that the position embeddings cover."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def from_hugging_face(cls, values: dict[str, Any]) -> Self:
        """From the contents of a Hugging Face `config.json`.

        A model that was cut carries its own shape under the key `dynabert`.

        Raises:
            ConfigError: a key is missing, the architecture or activation is another one, or heads do not divide.
        """
        cut = values.get("dynabert") or {}
        # A cut model that brings its own modelling file has a model_type of its own, too.
        model_type: Any = cut.get("model_type") or values.get("model_type") or _guess_model_type(values)
        if model_type not in ("bert", "roberta"):
            raise ConfigError(f"model_type {model_type!r} is not supported; bring a 'bert' or a 'roberta'")
        activation = values.get("hidden_act", "gelu")
        if activation != "gelu":
            raise ConfigError(f"hidden_act {activation!r} is not supported; only 'gelu' (the exact, erf one) is")
        positions = values.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise ConfigError(f"position_embedding_type {positions!r} is not supported; only 'absolute' is")
        required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                    "max_position_embeddings")  # fmt: skip
        missing = [key for key in required if key not in values]
        if missing:
            raise ConfigError(f"config.json lacks {', '.join(missing)}; is it the configuration of a BERT?")
        not_counts = [key for key in required if not isinstance(values[key], int) or values[key] < 1]
        if not_counts:
            shown = ", ".join(f"{key} = {values[key]!r}" for key in not_counts)
            raise ConfigError(f"config.json: {shown}: must be whole numbers of at least 1")
        _check_not_absurd(values)
        hidden, heads, layers = values["hidden_size"], values["num_attention_heads"], values["num_hidden_layers"]
        if hidden % heads:
            raise ConfigError(f"hidden_size {hidden} does not divide into {heads} attention heads")
        shape = {"head_size": hidden // heads, "heads": (heads,) * layers,
                 "neurons": (values["intermediate_size"],) * layers}  # fmt: skip
        if cut:
            shape = {"head_size": cut["head_size"], "heads": tuple(cut["heads"]), "neurons": tuple(cut["neurons"])}
        return cls(
            model_type=model_type,
            vocab_size=values["vocab_size"],
            hidden_size=hidden,
            **shape,
            max_position_embeddings=values["max_position_embeddings"],
            type_vocab_size=values.get("type_vocab_size", 2),
            layer_norm_eps=float(values.get("layer_norm_eps", 1e-12)),
            pad_token_id=_pad_token_id(model_type, values),
            hidden_dropout=float(values.get("hidden_dropout_prob", 0.1)),
            attention_dropout=float(values.get("attention_probs_dropout_prob", 0.1)),
            labels=_labels(values),
            classifier_dropout=values.get("classifier_dropout"),
        )

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
        if not uniform:
            values["dynabert"] = {"head_size": self.head_size, "heads": self.heads, "neurons": self.neurons}
        return values


def _check_not_absurd(values: dict[str, Any]) -> None:
    """Refuses what would fill the memory before the weights can contradict it."""
    for key, most in MOST.items():
        value = values.get(key)
        if isinstance(value, int) and value > most:
            raise ConfigError(f"config.json: {key} = {value!r}: must be at most {most}; copy or download it again")


def _guess_model_type(values: dict[str, Any]) -> str | None:
    """Checkpoints of 2019 and 2020 name no model_type; RoBERTa's have one token type and 514 positions."""
    if values.get("type_vocab_size") == 1 or any("Roberta" in name for name in values.get("architectures") or ()):
        return "roberta"
    return "bert" if "type_vocab_size" in values else None


def _pad_token_id(model_type: str, values: dict[str, Any]) -> int:
    default = 1 if model_type == "roberta" else 0
    value = values.get("pad_token_id", default)
    return default if value is None else value


def _labels(values: dict[str, Any]) -> tuple[str, ...]:
    names = values.get("id2label")
    if names:
        return tuple(names[key] for key in sorted(names, key=int))
    return tuple(f"LABEL_{i}" for i in range(values.get("num_labels", 2)))


class DataConfig(Checked):
    """Where the examples come from and how they become batches.

    Exactly one source: files of the user's own, a folder in GLUE's TSV format, a hub data set, or, where nothing is
    named, the task's own (`Task.hub`, or the sample data).

    Attributes:
        task: what the columns mean; one of `dynabert_jax.tasks` by name, or a `Task` of the user's own.
        train_file, dev_file, test_file: CSV, TSV, JSONL or Parquet. Without dev_file a tenth of train is held out.
        glue_folder: a folder with GLUE's own train.tsv and dev.tsv.
        hub: a hub data set, `path` or `path:configuration`.
        lengths: the static lengths, in tokens, that batches are padded to; texts beyond the largest are truncated.
        batch_size: examples a training step, over all devices together.
        eval_batch_size: examples a batch of an evaluation, over all devices together.
        max_train_examples, max_eval_examples: use only so many, drawn with the split's seed; 0 means all.
        split_seed: seed of a split or subset that the data set does not itself define.
    """

    task: Task
    train_file: str | None = None
    dev_file: str | None = None
    test_file: str | None = None
    glue_folder: str | None = None
    hub: str | None = None
    lengths: tuple[AtLeastOne, ...] = (32, 64, 128)
    batch_size: AtLeastOne = 32
    eval_batch_size: AtLeastOne = 32
    max_train_examples: Count = 0
    max_eval_examples: Count = 0
    split_seed: Seed = 0

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        sources = [name for name in ("train_file", "glue_folder", "hub") if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"name one source of data; got {' and '.join(sources)}")
        if (self.dev_file or self.test_file) and not self.train_file:
            raise ValueError("dev_file and test_file need a train_file beside them")
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"lengths must ascend and name each length once; got {self.lengths}")
        if self.max_length < 3:
            raise ValueError(f"lengths {self.lengths} leave no room for a token between [CLS] and [SEP]; use 3 or more")
        return self

    @property
    def max_length(self) -> int:
        """The longest sentence in tokens, special tokens included."""
        return self.lengths[-1]


class Optimizer(Checked):
    """AdamW with a linear schedule.

    Attributes:
        warmup: fraction of the stage's steps over which the learning rate rises from 0.
        clip_norm: largest global norm of the gradient that is summed over the sub-networks.
    """

    learning_rate: Positive = 2e-5
    weight_decay: NonNegative = 0.0
    warmup: Annotated[float, pydantic.Field(ge=0.0, lt=1.0)] = 0.0
    b1: Probability = 0.9
    b2: Probability = 0.999
    eps: Positive = 1e-8
    clip_norm: Positive = 1.0


class Stage(Checked):
    """What every stage has.

    Attributes:
        epochs: passes over the training data.
        evaluations: dev evaluations an epoch, evenly spread; at least one, at its end.
        keep: which weights the stage hands on: those of the best mean dev score over its sub-networks, or the last.
    """

    epochs: AtLeastOne = 3
    optimizer: Optimizer = Optimizer()
    evaluations: AtLeastOne = 1
    keep: Literal["best", "last"] = "best"


class FineTune(Stage):
    """Ordinary fine-tuning of the full network on the labels; its result is the first teacher."""


class Distillation(Stage):
    """A stage whose students learn from a teacher.

    The loss of one student is
    logit_weight * L_pred + hidden_weight * L_hidden + label_weight * the task's own loss on the labels.

    Attributes:
        widths: multipliers of heads and neurons.
        distil_regression: match the outputs of a regression task by mean squared error; the released code does not.
    """

    widths: Fractions = (1.0, 0.75, 0.5, 0.25)
    logit_weight: NonNegative = 1.0
    hidden_weight: NonNegative = 1.0
    label_weight: NonNegative = 0.0
    distil_regression: bool = True

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.logit_weight or self.hidden_weight or self.label_weight):
            raise ValueError("logit_weight, hidden_weight and label_weight are all 0; set at least one")
        return self


class WidthStage(Distillation):
    """Distil the fine-tuned model into every width at full depth (the paper, section 2.1)."""

    hidden_weight: NonNegative = 0.1


class DepthStage(Distillation):
    """Distil the width-adaptive model into every width and depth (the paper, section 2.2).

    Attributes:
        depths: multipliers of layers.
        teacher_width: run the teacher at the student's width, as the paper has it, or at full width, as the released
            code does.
    """

    depths: Fractions = (1.0, 0.75, 0.5)
    teacher_width: Literal["same", "full"] = "same"


class FinalStage(Stage):
    """Final fine-tuning of every sub-network on the labels, without a teacher (the paper, table 1)."""

    widths: Fractions = (1.0, 0.75, 0.5, 0.25)
    depths: Fractions = (1.0, 0.75, 0.5)


class Importance(Checked):
    """How heads and neurons are scored before rewiring (the paper, section 2.1).

    Attributes:
        split: the examples the scores are computed on; the released code takes the dev set.
        gradients: each batch's own, as the paper describes, or running on from batch to batch without being zeroed,
            as the released code has them.
        batch_size: examples a batch.
        max_examples: use only so many, drawn with the run's seed; 0 means all.
    """

    split: Literal["train", "dev"] = "train"
    gradients: Literal["per_batch", "running"] = "per_batch"
    batch_size: AtLeastOne = 32
    max_examples: Count = 0


class RunConfig(Checked):
    """A whole run: `train.py` goes through the stages in this order and leaves out those that are None.

    Attributes:
        model: a local folder or a hub name in Hugging Face's format, or `sample:minilm`.
        run_dir: the folder that everything is written to.
        dtype: what matrix products take as inputs; parameters, sums and everything else stay float32.
        gradient_accumulation: micro-batches that the batch of a training step is worked through in at least, one after
            the other: less memory, the same step. A CPU may take more of them.
        rematerialize: compute a layer's activations again in the backward pass instead of keeping them: less memory on
            accelerators, a third more work.
        log_every: steps between two rows of the training log.
        checkpoint_every: steps between two checkpoints to resume from; one is also written at every evaluation.
    """

    model: Name
    data: DataConfig
    run_dir: Name
    fine_tune: FineTune | None = FineTune()
    importance: Importance | None = Importance()
    width: WidthStage | None = WidthStage()
    depth: DepthStage | None = DepthStage()
    final: FinalStage | None = None
    seed: Seed = 42
    dtype: Dtype = "float32"
    gradient_accumulation: AtLeastOne = 1
    rematerialize: bool = False
    log_every: AtLeastOne = 10
    checkpoint_every: AtLeastOne = 200

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.width is not None and self.importance is None:
            raise ValueError("the width stage needs importance: without rewiring its narrow sub-networks are arbitrary")
        return self

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages of the run by name, in their order."""
        named = {"fine_tune": self.fine_tune, "width": self.width, "depth": self.depth, "final": self.final}
        return {name: stage for name, stage in named.items() if stage is not None}

    def until(self, stage: str) -> Self:
        """The same run, ending behind the stage of that name.

        Raises:
            ConfigError: the run has no such stage.
        """
        names = list(self.stages)
        if stage not in names:
            raise ConfigError(f"the run has no stage {stage!r}; it has {', '.join(names)}")
        return self.replace(**dict.fromkeys(names[names.index(stage) + 1 :]))
