"""The configurations: what Hugging Face's own describe, and what is refused with which words."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from dynabert_jax.config import (
    ConfigError,
    DataConfig,
    DepthStage,
    FinalStage,
    FineTune,
    Importance,
    ModelConfig,
    Optimizer,
    RunConfig,
    Stage,
    WidthStage,
)
from dynabert_jax.config.complete import CompleteOptimizer, CompleteRun
from dynabert_jax.config.tasks import task

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))
SIZES = {"vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 20, "max_position_embeddings": 16}  # fmt: skip
MODEL = ModelConfig.from_hugging_face({"model_type": "bert", **SIZES})
DATA = DataConfig(task=task("movie_reviews"))
RUN = RunConfig(model="some/folder", data=DATA, run_dir="runs/some")


# The model


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_a_default_model_of_transformers_is_the_papers(model_type: str) -> None:
    """BERT-base and RoBERTa-base: 12 layers, 12 heads, 3072 neurons."""
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, {"bert": "BertConfig", "roberta": "RobertaConfig"}[model_type])()
    ours = ModelConfig.from_hugging_face(theirs.to_dict())
    assert (ours.model_type, ours.heads, ours.neurons) == (model_type, (12,) * 12, (3072,) * 12)
    assert (ours.hidden_size, ours.head_size, ours.num_layers) == (768, 64, 12)
    assert (ours.vocab_size, ours.max_position_embeddings) == (theirs.vocab_size, theirs.max_position_embeddings)
    assert (ours.type_vocab_size, ours.layer_norm_eps) == (theirs.type_vocab_size, theirs.layer_norm_eps)
    assert (ours.hidden_dropout, ours.attention_dropout) == (0.1, 0.1)
    assert (ours.pad_token_id, ours.labels) == (theirs.pad_token_id, ("LABEL_0", "LABEL_1"))


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_transformers_reads_what_is_written(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    ours = MODEL.replace(model_type=model_type, pad_token_id=1, labels=("a", "b", "c"), hidden_dropout=0.3)
    theirs = transformers.AutoConfig.for_model(**ours.to_hugging_face())
    assert theirs.id2label == {0: "a", 1: "b", 2: "c"}
    assert ModelConfig.from_hugging_face(theirs.to_dict()) == ours


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": ("score",), "head": "regression"},
        {"labels": tuple(f"class {i}" for i in range(12))},  # as words, 10 comes before 2
        {"heads": (1, 3, 2), "neurons": (7, 20, 1)},
        {"heads": (2, 2), "neurons": (20, 20)},  # even, but fewer heads than the hidden size has room for
    ],
)
def test_hugging_faces_form_returns_the_same_model(changes: dict[str, Any]) -> None:
    config = MODEL.replace(**changes)
    assert ModelConfig.from_hugging_face(config.to_hugging_face()) == config
    assert ModelConfig.from_json(config.to_json()) == config


def test_an_uncut_model_needs_no_key_of_ours() -> None:
    assert "dynabert" not in MODEL.to_hugging_face()
    assert "dynabert" in MODEL.replace(heads=(3, 2)).to_hugging_face()


def test_the_head_says_what_answers_are() -> None:
    assert MODEL.replace(labels=("score",), head="regression").is_regression
    assert not MODEL.is_regression


@pytest.mark.parametrize(
    ("change", "head"),
    [
        ({}, "classification"),
        ({"problem_type": "single_label_classification"}, "classification"),
        ({"id2label": {"0": "LABEL_0"}}, "regression"),  # transformers' own rule
        ({"id2label": {"0": "LABEL_0"}, "problem_type": "regression"}, "regression"),
    ],
)
def test_hugging_faces_problem_type_is_the_head(change: dict[str, Any], head: str) -> None:
    values = MODEL.to_hugging_face() | change
    assert ModelConfig.from_hugging_face(values).head == head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type 'multi_label_classification' is not supported"),
        ({"problem_type": "regression"}, "a regression head has one output"),
        ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"}, "needs two or more labels"),
    ],
)
def test_a_problem_type_that_would_change_the_answers_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hugging_face(MODEL.to_hugging_face() | change)


def test_robertas_positions_start_behind_its_padding_token() -> None:
    assert (MODEL.first_position, MODEL.max_length) == (0, 16)
    roberta = MODEL.replace(model_type="roberta", pad_token_id=1, max_position_embeddings=514)
    assert (roberta.first_position, roberta.max_length) == (2, 512)


def test_checkpoints_without_a_model_type_are_reported_apart() -> None:
    """What the first checkpoints have: the authors' BERT and RoBERTa name no model_type."""
    bert = {**SIZES, "type_vocab_size": 2}
    assert ModelConfig.from_hugging_face(bert).model_type == "bert"
    assert ModelConfig.from_hugging_face({**SIZES, "type_vocab_size": 1}).model_type == "roberta"
    named = {**bert, "architectures": ["RobertaForMaskedLM"]}
    assert ModelConfig.from_hugging_face(named).model_type == "roberta"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; use a 'bert' or 'roberta' model"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported; use a model with 'gelu'"),
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new' is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not supported"),
        ({"num_attention_heads": 5}, "must be a multiple of num_attention_heads; got 12 and 5"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0: each must be a whole number, at least 1"),
        ({"hidden_size": 12.0, "vocab_size": "31"}, "vocab_size = '31', hidden_size = 12.0: each must be"),
        ({"pad_token_id": 31}, "pad_token_id must be less than vocab_size, 31; got 31"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout = 1.0: should be less than 1"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps = 0.0: should be greater than 0"),
        ({"type_vocab_size": 0}, "type_vocab_size = 0"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1000000000000: must be at most 1000; copy or download"),
        ({"num_labels": 10**12}, "num_labels = 1000000000000: must be at most 1000000; copy or download"),
    ],
)
def test_a_model_that_is_not_supported_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_hugging_face({"model_type": "bert", **SIZES, **changes})


def test_all_missing_keys_are_named() -> None:
    values = {key: value for key, value in SIZES.items() if key not in ("hidden_size", "intermediate_size")}
    with pytest.raises(ConfigError, match=r"config\.json has no hidden_size, intermediate_size; use"):
        ModelConfig.from_hugging_face({"model_type": "bert", **values})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": (3,)}, "heads and neurons need one entry per layer; got 1 and 2"),
        ({"heads": (), "neurons": ()}, "need one entry per layer; got 0 and 0"),
        ({"heads": (3, 0)}, r"heads\.1 = 0: should be greater than or equal to 1"),
        ({"labels": ()}, "a classification head needs two or more labels"),
        ({"labels": ("score",)}, "to predict a number, set head='regression'"),
        ({"head": "regression"}, "a regression head has one output, so labels must be one name"),
        ({"hidden_dropout": float("nan")}, "hidden_dropout = nan"),
    ],
)
def test_a_shape_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODEL.replace(**changes)


# The run


def test_there_are_configuration_files() -> None:
    assert CONFIGS


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_configuration_file_returns_the_same_from_json(file: Path) -> None:
    config = runpy.run_path(str(file))["config"]
    assert isinstance(config, RunConfig)
    again = RunConfig.from_json(config.to_json())
    assert again == config
    assert hash(again) == hash(config)


def test_every_setting_returns_from_json() -> None:
    config = RUN.replace(
        data=DATA.replace(train_file="a.csv", dev_file="b.csv", lengths=(5, 9)),
        fine_tune=None,
        width=WidthStage(widths=(1.0, 1 / 3), optimizer=Optimizer(learning_rate=1e-30, eps=1e-300), keep="last"),
        depth=DepthStage(depths=(0.1,), teacher_width="full"),
        final=FinalStage(epochs=1),
        importance=Importance(split="dev", gradients="running"),
        dtype="bfloat16",
    )
    assert RunConfig.from_json(config.to_json()) == config


def test_the_defaults_are_the_papers() -> None:
    """Its sections 2.1 and 2.2, and the hyperparameters in its appendix."""
    assert RUN.width == WidthStage(widths=(1.0, 0.75, 0.5, 0.25), logit_weight=1.0, hidden_weight=0.1)
    assert RUN.depth == DepthStage(depths=(1.0, 0.75, 0.5), logit_weight=1.0, hidden_weight=1.0, teacher_width="same")
    assert RUN.importance == Importance(split="train", gradients="per_batch")
    assert (RUN.fine_tune, RUN.final) == (FineTune(), None)
    assert RUN.depth is not None
    assert RUN.depth.optimizer == Optimizer(weight_decay=0.0, b1=0.9, b2=0.999, eps=1e-8)


def test_what_older_versions_left_out_was_the_papers() -> None:
    """What runs wrote before there was a recipe is read as they meant it."""
    run = CompleteRun.from_values(
        {"model": "some/folder", "run_dir": "runs/some", "data": {"task": DATA.task.to_values()}}
    )
    assert (run.data.lengths, run.data.batch_size) == ((32, 64, 128), 32)
    for stage in run.stages.values():
        assert (stage.epochs, stage.evaluations) == (3, 1)
        assert stage.optimizer == CompleteOptimizer(learning_rate=2e-5, warmup=0.0)


def test_the_stages_of_a_run_stand_in_their_order() -> None:
    assert list(RUN.stages) == ["fine_tune", "width", "depth"]
    assert list(RUN.replace(width=None, final=FinalStage()).stages) == ["fine_tune", "depth", "final"]
    assert list(RUN.until("width").stages) == ["fine_tune", "width"]
    assert RUN.until("depth") == RUN
    with pytest.raises(ConfigError, match="no stage 'final'; it has fine_tune, width, depth"):
        RUN.until("final")


def test_the_width_stage_needs_importance() -> None:
    with pytest.raises(ConfigError, match="the width stage needs importance"):
        RUN.replace(importance=None)
    assert RUN.replace(importance=None, width=None).width is None


@pytest.mark.parametrize("stage", [WidthStage, DepthStage, FinalStage])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, float("nan")])
def test_widths_and_depths_lie_between_0_and_1(stage: type[Stage], value: float) -> None:
    with pytest.raises(ConfigError, match=rf"widths\.1 = {value!r}: should be "):
        stage(widths=(1.0, value))
    if stage is not WidthStage:
        with pytest.raises(ConfigError, match=rf"depths\.0 = {value!r}: should be "):
            stage(depths=(value,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate = 0.0: should be greater than 0"),
        ({"learning_rate": float("inf")}, "learning_rate = inf: should be a finite number"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"warmup": 1.0}, "warmup = 1.0: should be less than 1"),
        ({"b2": 1.0}, "b2 = 1.0"),
        ({"weight_decay": -0.1}, "weight_decay = -0.1"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"learning_rat": 1e-5}, "unknown key 'learning_rat'; did you mean 'learning_rate'"),
    ],
)
def test_an_optimizer_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Optimizer(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs = 0: should be greater than or equal to 1"),
        ({"epochs": "3"}, "epochs = '3': should be a valid integer"),
        ({"evaluations": 0}, "evaluations = 0"),
        ({"keep": "all"}, "keep = 'all': should be 'best' or 'last'"),
        ({"teacher_width": "half"}, "teacher_width = 'half': should be 'same' or 'full'"),
        ({"hidden_weight": -1.0}, "hidden_weight = -1.0"),
    ],
)
def test_a_stage_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DepthStage(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_file": "a.csv", "hub": "b"}, "name only one source of data; got train_file and hub"),
        ({"dev_file": "a.csv"}, "dev_file and test_file need a train_file"),
        ({"test_file": "a.csv"}, "dev_file and test_file need a train_file"),
        ({"lengths": (64, 32)}, r"lengths must be .+ in ascending order, without repeats; got \(64, 32\)"),
        ({"lengths": (32, 32)}, "in ascending order"),
        ({"lengths": ()}, "lengths must be one or more numbers"),
        ({"lengths": (2,)}, r"lengths \(2,\) leave no room for a token"),
        (
            {"max_length": 64},
            "unknown key 'max_length'; that is a name of Hugging Face's Trainer; here it is data.lengths of",
        ),
        ({"batch_size": 0}, "batch_size = 0"),
    ],
)
def test_data_that_cannot_be_used_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(task=task("movie_reviews"), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "float16"}, "dtype = 'float16': should be 'float32' or 'bfloat16'"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, "seed = 4294967296: should be less than 4294967296"),
        ({"log_every": 0}, "log_every = 0"),
        ({"run_dirr": "x"}, "unknown key 'run_dirr'; did you mean 'run_dir'"),
        ({"depth": {"optimizer": {"ep": 1.0}}}, "unknown key 'ep'; did you mean 'eps'"),
    ],
)
def test_a_run_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RUN.replace(**values)
