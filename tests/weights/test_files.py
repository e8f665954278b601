"""Loading and saving in Hugging Face's format, against transformers' own models and the golden values."""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

from dynabert_jax.config import ConfigError, ModelConfig
from dynabert_jax.config.model import head_of
from dynabert_jax.weights.files import Params, load_model, save_model
from dynabert_jax.weights.names import from_torch_names, init_params, param_shapes, parameters, to_torch_names
from dynabert_jax.weights.torch_file import WeightsError
from full_disk import files_up_to
from golden_cases import cases

MNLI = ("contradiction", "entailment", "neutral")
SIZES = {"vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
         "intermediate_size": 20, "max_position_embeddings": 16, "type_vocab_size": 2}  # fmt: skip

Tensors = dict[str, np.ndarray]


def small_config(model_type: str = "bert", **changes: Any) -> ModelConfig:
    values = SIZES | {"model_type": model_type, "id2label": {"0": "no", "1": "yes"}} | changes
    return ModelConfig.from_hugging_face(values)


def cut_config(model_type: str = "bert") -> ModelConfig:
    """As different from layer to layer as a cut model can be, and fewer heads than the hidden size has room for."""
    return small_config(model_type).replace(heads=(1, 3, 2), neurons=(7, 20, 1))


def random_params(config: ModelConfig, seed: int = 0) -> Params:
    """Parameters of which no two numbers are equal, biases and scales included."""
    rng = np.random.default_rng(seed)
    arrays = {path: rng.standard_normal(shape, np.float32) for path, shape in param_shapes(config).items()}
    return unflatten_dict(arrays, sep="/")


def random_tensors(config: ModelConfig, seed: int = 0) -> Tensors:
    return to_torch_names(config, random_params(config, seed))


def write_folder(folder: Path, config: ModelConfig, tensors: Tensors, **changes: Any) -> Path:
    """A checkpoint with exactly these tensors; a change of None removes the key from config.json."""
    values = {k: v for k, v in (config.to_hugging_face() | changes).items() if v is not None}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    save_file(tensors, folder / "model.safetensors")
    return folder


def assert_same(left: Params, right: Params) -> None:
    flat_left, flat_right = flatten_dict(left, sep="/"), flatten_dict(right, sep="/")
    assert set(flat_left) == set(flat_right)
    for path, array in flat_left.items():
        assert array.dtype == np.float32, path
        np.testing.assert_array_equal(array, flat_right[path], err_msg=path)


@pytest.fixture(params=["bert", "roberta"])
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def torch_model(model_type: str) -> Callable[..., Any]:
    """Makes a small random model of transformers; `head` is the end of its class's name."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(head: str = "ForSequenceClassification", **changes: Any) -> Any:
        prefix, config_class = {
            "bert": ("Bert", transformers.BertConfig),
            "roberta": ("Roberta", transformers.RobertaConfig),
        }[model_type]
        model = getattr(transformers, prefix + head)(config_class(**SIZES | changes))
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():  # norms and biases are constant when new
            torch.nn.init.normal_(parameter, generator=generator)
        return model

    return make


def state_of(model: Any) -> Tensors:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items() if "position_ids" not in name}


# The table


def test_shapes_are_those_of_the_agreed_tree() -> None:
    shapes = param_shapes(small_config(id2label={"0": "a", "1": "b", "2": "c"}))
    assert shapes["embeddings/word/embedding"] == (31, 12)
    assert shapes["embeddings/position/embedding"] == (16, 12)
    assert shapes["embeddings/token_type/embedding"] == (2, 12)
    assert shapes["embeddings/norm/scale"] == (12,)
    assert shapes["layer_1/query/kernel"] == (12, 3, 4)
    assert shapes["layer_1/query/bias"] == (3, 4)
    assert shapes["layer_0/attention_output/kernel"] == (3, 4, 12)
    assert shapes["layer_0/attention_output/bias"] == (12,)
    assert shapes["layer_0/up/kernel"] == (12, 20)
    assert shapes["layer_0/down/kernel"] == (20, 12)
    assert shapes["pooler/kernel"] == (12, 12)
    assert shapes["classifier/kernel"] == (12, 3)
    assert len(shapes) == 5 + 2 * 16 + 4


def test_names_and_shapes_are_those_of_transformers(torch_model: Callable[..., Any], model_type: str) -> None:
    state = state_of(torch_model())
    config = small_config(model_type)
    assert {p.name: p.torch_shape for p in parameters(config)} == {n: t.shape for n, t in state.items()}


def test_layout_is_heads_of_rows() -> None:
    """PyTorch's [out, in] kernel of heads: rows 4 to 7 of the query's weight are head 1 of ours."""
    config = small_config()
    tensors = random_tensors(config)
    params = from_torch_names(config, tensors)
    layer, name = params["layer_0"], "bert.encoder.layer.0"
    np.testing.assert_array_equal(
        layer["query"]["kernel"][:, 1, :], tensors[f"{name}.attention.self.query.weight"][4:8].T
    )
    np.testing.assert_array_equal(layer["value"]["bias"][2], tensors[f"{name}.attention.self.value.bias"][8:])
    output = tensors[f"{name}.attention.output.dense.weight"]
    np.testing.assert_array_equal(layer["attention_output"]["kernel"][1], output[:, 4:8].T)
    np.testing.assert_array_equal(layer["up"]["kernel"], tensors[f"{name}.intermediate.dense.weight"].T)


@pytest.mark.parity
@pytest.mark.parametrize("case", cases())
def test_golden_weights_return_exactly(case: Path) -> None:
    config = ModelConfig.from_hugging_face(json.loads(case.read_text())["config"])
    with np.load(case.with_suffix(".npz")) as arrays:
        for group in ("weights/", "teacher/", "after/"):
            tensors = {name.removeprefix(group): arrays[name] for name in arrays if name.startswith(group)}
            if tensors:
                back = to_torch_names(config, from_torch_names(config, tensors))
                assert {name for name in tensors if "roberta.pooler" not in name} == set(back)  # it is not used
                for name, tensor in back.items():
                    np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


@pytest.mark.parametrize("make_config", [small_config, cut_config])
def test_params_return_exactly(make_config: Callable[[str], ModelConfig], model_type: str) -> None:
    config = make_config(model_type)
    params = random_params(config)
    assert_same(from_torch_names(config, to_torch_names(config, params)), params)


def test_init_params_is_berts() -> None:
    config = small_config(vocab_size=5000)
    params = flatten_dict(init_params(config, seed=1), sep="/")
    assert {path: array.shape for path, array in params.items()} == param_shapes(config)
    for path, array in params.items():
        leaf = path.rpartition("/")[2]
        if leaf in ("scale", "bias"):
            assert np.all(array == (leaf == "scale")), path
        else:
            assert abs(array.std() - 0.02) < 0.02 * 4 / math.sqrt(array.size), path
            assert abs(array.mean()) < 0.02 * 4 / math.sqrt(array.size), path
    assert_same(init_params(config, seed=1), init_params(config, seed=1))
    different = init_params(config, seed=2)["pooler"]["kernel"]
    assert not np.array_equal(init_params(config, seed=1)["pooler"]["kernel"], different)


# Loading what transformers and PyTorch write


def test_loads_what_transformers_saves(torch_model: Callable[..., Any], model_type: str, tmp_path: Path) -> None:
    model = torch_model(id2label=dict(enumerate(MNLI)), label2id={name: i for i, name in enumerate(MNLI)})
    model.save_pretrained(tmp_path)
    pretrained = load_model(tmp_path)
    assert pretrained.config.model_type == model_type
    assert pretrained.config.labels == MNLI
    assert (pretrained.new, pretrained.new_classifier) == ((), False)
    assert not pretrained.label_order_changed
    assert not pretrained.labels_by_position
    assert pretrained.folder == tmp_path
    back = to_torch_names(pretrained.config, pretrained.params)
    for name, tensor in state_of(model).items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_loads_shards(torch_model: Callable[..., Any], tmp_path: Path) -> None:
    model = torch_model()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 1
    assert_same(load_model(tmp_path / "shards").params, load_model(tmp_path / "whole").params)


def test_a_missing_shard_is_named(torch_model: Callable[..., Any], tmp_path: Path) -> None:
    torch_model().save_pretrained(tmp_path, max_shard_size="4KB")
    next(tmp_path.glob("model-00002-*")).unlink()
    with pytest.raises(WeightsError, match=r"not there: model-00002-of"):
        load_model(tmp_path)


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
def test_loads_pytorch_files(torch_model: Callable[..., Any], tmp_path: Path, new_format: bool) -> None:
    import torch

    model = torch_model()
    model.save_pretrained(tmp_path)
    expected = load_model(tmp_path).params
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new_format)
    assert_same(load_model(tmp_path).params, expected)


def test_loads_sharded_pytorch_files(torch_model: Callable[..., Any], tmp_path: Path) -> None:
    import torch

    model = torch_model()
    model.save_pretrained(tmp_path)
    expected = load_model(tmp_path).params
    (tmp_path / "model.safetensors").unlink()
    state = list(model.state_dict().items())
    files = {"pytorch_model-00001-of-00002.bin": dict(state[:9]), "pytorch_model-00002-of-00002.bin": dict(state[9:])}
    for file, part in files.items():
        torch.save(part, tmp_path / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_same(load_model(tmp_path).params, expected)


def test_the_authors_checkpoints_load(torch_model: Callable[..., Any], model_type: str, tmp_path: Path) -> None:
    """Their config.json of 2020 names no model_type and has keys of its time; the weights are a legacy pickle."""
    import torch

    model = torch_model(num_labels=3, **({"type_vocab_size": 1} if model_type == "roberta" else {}))
    values = {key: getattr(model.config, key) for key in (*SIZES, "layer_norm_eps", "hidden_act")} | {
        "finetuning_task": "mnli",
        "num_labels": 3,
        "output_attentions": False,
        "output_hidden_states": False,
        "pruned_heads": {},
        "torchscript": False,
        "use_bfloat16": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    pretrained = load_model(tmp_path, labels=MNLI)
    assert pretrained.config.model_type == model_type
    assert pretrained.config.labels == MNLI
    assert pretrained.labels_by_position
    assert not pretrained.new
    back = to_torch_names(pretrained.config, pretrained.params)
    for name, tensor in state_of(model).items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_become_float32(tmp_path: Path, kind: Any) -> None:
    config = small_config()
    tensors = {name: tensor.astype(kind) for name, tensor in random_tensors(config).items()}
    params = load_model(write_folder(tmp_path, config, tensors)).params
    assert_same(params, from_torch_names(config, {n: t.astype(np.float32) for n, t in tensors.items()}))


# Names of other times and other heads


def test_prefixes_and_old_names_make_no_difference(model_type: str) -> None:
    config = small_config(model_type)
    tensors = random_tensors(config)
    expected = from_torch_names(config, tensors)
    bare = {name.removeprefix(f"{model_type}."): tensor for name, tensor in tensors.items()}
    assert bare.keys() != tensors.keys()
    assert_same(from_torch_names(config, bare), expected)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    assert_same(from_torch_names(config, old), expected)


def test_a_tensor_that_is_there_twice_is_an_error() -> None:
    tensors = random_tensors(small_config())
    twice = tensors | {"pooler.dense.bias": tensors["bert.pooler.dense.bias"]}
    with pytest.raises(WeightsError, match=r"bert\.pooler\.dense\.bias appears twice"):
        from_torch_names(small_config(), twice)


@pytest.mark.parametrize(
    ("model_type", "head", "pooler_is_new"),
    [
        ("bert", "Model", False),
        ("bert", "ForPreTraining", False),
        ("bert", "ForMaskedLM", True),
        ("roberta", "Model", True),
        ("roberta", "ForMaskedLM", True),
    ],
    indirect=["model_type"],
)
def test_pretrained_models_get_new_heads(
    torch_model: Callable[..., Any], model_type: str, head: str, pooler_is_new: bool, tmp_path: Path
) -> None:
    model = torch_model(head)
    model.save_pretrained(tmp_path)
    pretrained = load_model(tmp_path, labels=MNLI, seed=3)
    assert pretrained.new == (("pooler", "classifier") if pooler_is_new else ("classifier",))
    assert pretrained.new_classifier
    assert not pretrained.labels_by_position
    base = {name.removeprefix(f"{model_type}."): tensor for name, tensor in state_of(model).items()}
    loaded = to_torch_names(pretrained.config, pretrained.params)
    for name, tensor in loaded.items():
        bare = name.removeprefix(f"{model_type}.")
        if bare.startswith(("embeddings.", "encoder.", *(() if pooler_is_new else ("pooler.",)))):
            np.testing.assert_array_equal(tensor, base[bare], err_msg=name)
    assert pretrained.params["classifier"]["kernel"].shape == (12, 3)
    assert np.all(pretrained.params["classifier"]["bias"] == 0)
    assert_same(load_model(tmp_path, labels=MNLI, seed=3).params, pretrained.params)
    other = load_model(tmp_path, labels=MNLI, seed=4).params
    assert not np.array_equal(other["classifier"]["kernel"], pretrained.params["classifier"]["kernel"])


def test_a_new_classifier_is_small_and_random(tmp_path: Path) -> None:
    config = small_config(hidden_size=300)
    tensors = {n: t for n, t in random_tensors(config).items() if not n.startswith("classifier")}
    pretrained = load_model(write_folder(tmp_path, config, tensors), labels=MNLI)
    kernel = pretrained.params["classifier"]["kernel"]
    assert abs(kernel.std() - 0.02) < 0.02 * 4 / math.sqrt(kernel.size)


def test_a_classifier_for_another_number_of_labels_is_new(model_type: str, tmp_path: Path) -> None:
    config = small_config(model_type)
    params = random_params(config)
    save_model(tmp_path, config, params)
    pretrained = load_model(tmp_path, labels=MNLI)
    assert pretrained.new == ("classifier",)  # RoBERTa's other dense layer is kept
    assert_same({**pretrained.params, "classifier": {}}, {**params, "classifier": {}})
    assert pretrained.params["classifier"]["kernel"].shape == (12, 3)


def test_without_labels_another_classifier_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, small_config(), random_tensors(small_config().replace(labels=MNLI)))
    with pytest.raises(WeightsError, match=r"classifier\.weight \[3, 12\] instead of \[2, 12\]"):
        load_model(folder)


# Heads of other tasks


@pytest.mark.parametrize("model_type", ["bert"], indirect=True)
def test_an_encoder_without_a_pooler_gets_a_new_one(torch_model: Callable[..., Any], tmp_path: Path) -> None:
    """Whatever it was saved for, and whatever the names of its class."""
    model = torch_model("Model")
    tensors = {name: tensor for name, tensor in state_of(model).items() if "pooler" not in name}
    folder = write_folder(tmp_path, small_config(), tensors, architectures=["BertModel"])
    pretrained = load_model(folder, labels=MNLI)
    assert pretrained.new == ("pooler", "classifier")
    assert pretrained.assumed == ("its pooler and classifier are new, and random until trained",)


@pytest.mark.parametrize(
    ("head", "new", "left_out"),
    [
        ("ForTokenClassification", ("pooler", "classifier"), ("classifier",)),
        ("ForMultipleChoice", ("classifier",), ("classifier",)),
        ("ForQuestionAnswering", ("pooler", "classifier"), ("qa_outputs",)),
        ("ForMaskedLM", ("pooler", "classifier"), ("cls.predictions",)),
        ("ForNextSentencePrediction", ("classifier",), ("cls.seq_relationship",)),
        ("ForPreTraining", ("classifier",), ("cls.predictions", "cls.seq_relationship")),
    ],
)
@pytest.mark.parametrize("model_type", ["bert", "roberta"], indirect=True)
def test_heads_of_other_tasks_are_left_out_and_named(
    torch_model: Callable[..., Any], model_type: str, head: str, new: Any, left_out: Any, tmp_path: Path
) -> None:
    """Their classifiers may have the name and the shape of ours. What they answered means nothing here."""
    if model_type == "roberta":
        if head in ("ForNextSentencePrediction", "ForPreTraining"):
            pytest.skip("transformers has no such model")
        new, left_out = ("pooler", "classifier"), ("lm_head",) if head == "ForMaskedLM" else left_out
    torch_model(head, id2label=dict(enumerate(MNLI))).save_pretrained(tmp_path)
    for labels in (MNLI, None):
        pretrained = load_model(tmp_path, labels=labels)
        assert pretrained.new == new
        assert pretrained.left_out == left_out
        assert f"heads of other tasks were left out: {', '.join(left_out)}" in pretrained.assumed
        assert not pretrained.labels_by_position


def test_a_classifier_of_another_task_is_told_by_its_class_alone(tmp_path: Path) -> None:
    """With a pooler, nothing else tells a multiple choice, or a class of one's own, from ours."""
    config = small_config()
    folder = write_folder(tmp_path, config, random_tensors(config), architectures=["BertForTokenClassification"])
    assert load_model(folder).new == ("classifier",)
    write_folder(tmp_path, config, random_tensors(config), architectures=None)
    assert load_model(folder).new == ()


@pytest.mark.parametrize("name", ["pre_classifier.weight", "classifier.0.weight", "dense.weight"])
def test_a_head_with_more_layers_is_not_taken_for_ours(name: str, tmp_path: Path) -> None:
    config = small_config()
    tensors = random_tensors(config) | {name: np.zeros((12, 12), np.float32)}
    pretrained = load_model(write_folder(tmp_path, config, tensors))
    assert pretrained.new == ("classifier",)
    assert name.split(".")[0] in pretrained.left_out


def test_what_is_not_known_within_the_layers_is_refused(tmp_path: Path) -> None:
    config = small_config()
    name = "bert.encoder.layer.0.attention.self.query.lora_A.weight"
    tensors = random_tensors(config) | {name: np.zeros((2, 12), np.float32)}
    with pytest.raises(WeightsError, match=rf"not known: {name}"):
        load_model(write_folder(tmp_path, config, tensors), labels=MNLI)


# Names that a wrapper changed


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "student."])
@pytest.mark.parametrize("with_model", [True, False])
def test_what_a_wrapper_put_before_all_names_is_left_out(
    prefix: str, with_model: bool, model_type: str, tmp_path: Path
) -> None:
    config = small_config(model_type)
    tensors = random_tensors(config)
    wrapped = {prefix + (name if with_model else name.removeprefix(f"{model_type}.")): t for name, t in tensors.items()}
    pretrained = load_model(write_folder(tmp_path, config, wrapped))
    assert_same(pretrained.params, from_torch_names(config, tensors))
    assert pretrained.assumed == (f"all names of the weights begin with {prefix!r}, which was left out",)


def test_a_model_within_another_is_not_guessed_at(tmp_path: Path) -> None:
    config = small_config()
    tensors = random_tensors(config)
    inside = {f"backbone.{name}": tensor for name, tensor in tensors.items() if not name.startswith("classifier")}
    other = {name: tensor for name, tensor in tensors.items() if name.startswith("classifier")}
    with pytest.raises(WeightsError, match=r"names begin with 'backbone\.', and there are others, classifier\.\w+"):
        load_model(write_folder(tmp_path, config, inside | other))
    two = {f"{prefix}.{name}": tensor for prefix in ("student", "teacher") for name, tensor in tensors.items()}
    with pytest.raises(WeightsError, match=r"several models, whose names begin with student\., teacher\.; save one"):
        load_model(write_folder(tmp_path, config, two))
    roberta = {name.replace("bert.", "roberta."): tensor for name, tensor in tensors.items()}
    with pytest.raises(WeightsError, match=r"begin with 'roberta\.', but config\.json has the model_type 'bert'"):
        load_model(write_folder(tmp_path, config, roberta))


def test_causes_of_a_misfit_are_named(tmp_path: Path) -> None:
    config = small_config()
    tensors = random_tensors(config)
    with pytest.raises(WeightsError, match=r"config\.json has 1 layers and the weights have 2"):
        load_model(write_folder(tmp_path, config, tensors, num_hidden_layers=1))
    turned = {name: tensor.T.copy() if "intermediate" in name else tensor for name, tensor in tensors.items()}
    with pytest.raises(WeightsError, match="they are transposed, as TensorFlow and Flax keep them"):
        load_model(write_folder(tmp_path, config, turned))


# Numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_no_numbers_are_named(value: float, kind: Any, tmp_path: Path) -> None:
    config = small_config()
    tensors = {name: tensor.astype(kind) for name, tensor in random_tensors(config).items()}
    tensors["bert.encoder.layer.1.output.dense.weight"][3, 7] = value
    tensors["classifier.bias"][1] = value
    with pytest.raises(WeightsError) as caught:
        load_model(write_folder(tmp_path, config, tensors))
    assert (
        "not all finite numbers: bert.encoder.layer.1.output.dense.weight, classifier.bias; the first is "
        f"{np.float32(value)} at [3, 7] of bert.encoder.layer.1.output.dense.weight"
    ) in str(caught.value)


def test_numbers_too_large_for_float32_are_infinite(tmp_path: Path) -> None:
    tensors = {name: tensor.astype(np.float64) for name, tensor in random_tensors(small_config()).items()}
    tensors["classifier.bias"][0] = 1e300
    with pytest.raises(WeightsError, match=r"the first is inf at \[0\] of classifier\.bias"):
        load_model(write_folder(tmp_path, small_config(), tensors))


# Labels


def test_the_classifier_is_put_into_the_order_of_the_labels(model_type: str, tmp_path: Path) -> None:
    config = small_config(model_type).replace(labels=("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))
    params = random_params(config)
    save_model(tmp_path, config, params)
    wanted = ("entailment", "neutral", "contradiction")
    pretrained = load_model(tmp_path, labels=wanted)
    assert pretrained.label_order_changed
    assert not pretrained.labels_by_position
    assert not pretrained.new
    assert pretrained.config.labels == wanted
    assert pretrained.checkpoint_labels == ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    for leaf in ("kernel", "bias"):
        ours, theirs = pretrained.params["classifier"][leaf], params["classifier"][leaf]
        for new, old in enumerate((2, 1, 0)):
            np.testing.assert_array_equal(ours[..., new], theirs[..., old])
    assert_same({**pretrained.params, "classifier": {}}, {**params, "classifier": {}})


def test_a_cycle_of_labels_goes_the_right_way(tmp_path: Path) -> None:
    """With three labels in a circle, a permutation and its inverse differ."""
    config = small_config().replace(labels=("a", "b", "c"))
    params = random_params(config)
    save_model(tmp_path, config, params)
    bias = load_model(tmp_path, labels=("b", "c", "a")).params["classifier"]["bias"]
    np.testing.assert_array_equal(bias, params["classifier"]["bias"][[1, 2, 0]])


@pytest.mark.parametrize(
    ("checkpoint", "wanted", "by_position"),
    [
        (("no", "yes"), ("no", "yes"), False),
        (("No", "YES"), ("no", "yes"), False),
        (("LABEL_0", "LABEL_1"), ("no", "yes"), True),
        (("no", "yes"), ("no", "maybe"), True),
        (("LABEL_0",), ("score",), False),
    ],
)
def test_labels_with_other_names_keep_their_position(
    tmp_path: Path, checkpoint: tuple[str, ...], wanted: tuple[str, ...], by_position: bool
) -> None:
    config = small_config().replace(labels=checkpoint, head=head_of(checkpoint))
    params = random_params(config)
    save_model(tmp_path, config, params)
    pretrained = load_model(tmp_path, labels=wanted)
    assert pretrained.labels_by_position == by_position
    assert not pretrained.label_order_changed
    assert pretrained.config.labels == wanted
    assert_same(pretrained.params, params)


# Weights that do not fit


def test_all_that_does_not_fit_is_in_one_message(tmp_path: Path) -> None:
    config = small_config()
    tensors = random_tensors(config)
    del tensors["bert.embeddings.word_embeddings.weight"]
    del tensors["bert.encoder.layer.1.output.LayerNorm.bias"]
    tensors["bert.encoder.layer.2.output.dense.bias"] = np.zeros(12, np.float32)
    tensors["bert.pooler.dense.weight"] = np.zeros((12, 13), np.float32)
    tensors["bert.pooler.dense.bias"] = np.zeros(12, np.int8)
    with pytest.raises(WeightsError) as caught:
        load_model(write_folder(tmp_path, config, tensors))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: ")
    for part in (
        "missing: bert.embeddings.word_embeddings.weight, bert.encoder.layer.1.output.LayerNorm.bias;",
        "not known: bert.encoder.layer.2.output.dense.bias;",
        "of another shape: bert.pooler.dense.weight [12, 13] instead of [12, 12];",
        "not floating-point: bert.pooler.dense.bias int8",
    ):
        assert part in message


@pytest.mark.parametrize("labels", [None, ("no", "maybe", "yes")])
def test_sizes_are_checked_before_a_head_of_that_size_is_made(tmp_path: Path, labels: tuple[str, ...] | None) -> None:
    """The classifier would need terabytes."""
    config = small_config()
    tensors = {name: tensor for name, tensor in random_tensors(config).items() if not name.startswith("classifier")}
    write_folder(tmp_path, config, tensors, hidden_size=3 * 10**12)
    with pytest.raises(WeightsError, match=r"of another shape: bert\.embeddings\.word_embeddings"):
        load_model(tmp_path, labels=labels)


def test_a_long_list_is_shortened() -> None:
    with pytest.raises(WeightsError, match=r"missing: bert\.embeddings\S+(, \S+){19} and 21 more$"):
        from_torch_names(small_config(), {})


def test_a_classifier_without_its_other_layer_is_not_whole(tmp_path: Path) -> None:
    config = small_config("roberta")
    tensors = {n: t for n, t in random_tensors(config).items() if not n.startswith("classifier.dense")}
    with pytest.raises(WeightsError, match=r"missing: classifier\.dense\.weight, classifier\.dense\.bias$"):
        load_model(write_folder(tmp_path, config, tensors))


def test_half_a_classifier_is_not_made_whole(tmp_path: Path) -> None:
    tensors = random_tensors(small_config())
    del tensors["classifier.bias"]
    with pytest.raises(WeightsError, match=r"missing: classifier\.bias$"):
        load_model(write_folder(tmp_path, small_config(), tensors))


def test_a_tree_of_another_model_is_not_saved(tmp_path: Path) -> None:
    params = random_params(cut_config())
    with pytest.raises(WeightsError, match=r"not known: layer_2/.*of another shape: layer_0/query/kernel \[12, 1, 4\]"):
        save_model(tmp_path / "model", small_config(), params)
    assert list(tmp_path.iterdir()) == []


# Damaged folders


def test_truncated_safetensors_are_named_with_the_cure(tmp_path: Path) -> None:
    save_model(tmp_path, small_config(), random_params(small_config()))
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"model\.safetensors is damaged or not complete .*download it again"):
            load_model(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"), [("float8_e4m3fn", "F8_E4M3"), ("float8_e5m2", "F8_E5M2"), ("float4_e2m1fn_x2", "F4")]
)
def test_numbers_that_numpy_does_not_know_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch_file

    folder = write_folder(tmp_path, small_config(), {})
    save_torch_file(
        {"classifier.weight": torch.zeros(2, 12, dtype=torch.uint8).view(getattr(torch, kind))},
        folder / "model.safetensors",
    )
    with pytest.raises(
        WeightsError, match=rf"model\.safetensors holds numbers .*: classifier\.weight {name}; use .* not quantized"
    ):
        load_model(folder)


def test_truncated_pytorch_files_are_named_with_the_cure(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = write_folder(tmp_path, small_config(), {})
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    torch.save({"classifier.bias": torch.ones(2)}, file)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin: the file is damaged.*download it again"):
        load_model(folder)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, small_config(), {})
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print, 2))
    with pytest.raises(
        WeightsError, match=r"pytorch_model\.bin: this file wants to run \S+print; only tensors are read"
    ):
        load_model(folder)


def test_a_git_lfs_placeholder_is_named_as_such(tmp_path: Path) -> None:
    save_model(tmp_path, small_config(), random_params(small_config()))
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(WeightsError, match="git lfs pull"):
        load_model(tmp_path)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, small_config(), {})
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_model(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weight_map": 3}', "{}", "[" * 100_000])
def test_a_damaged_index_is_named(tmp_path: Path, content: str) -> None:
    folder = write_folder(tmp_path, small_config(), {})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json is damaged"):
        load_model(folder)


@pytest.mark.parametrize(
    ("value", "shown"), [("3", "3"), ('"other.safetensors"', r"other\.safetensors"), ("null", "None")]
)
def test_a_shard_that_is_not_there_is_named(tmp_path: Path, value: str, shown: str) -> None:
    folder = write_folder(tmp_path, small_config(), {})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"classifier.bias": {value}}}}}')
    with pytest.raises(WeightsError, match=rf"index\.json names files that are not there: {shown};"):
        load_model(folder)


def write_shards(folder: Path, places: dict[str, str], files: dict[str, Tensors]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, tensors in files.items():
        save_file(tensors, folder / file)
    (folder / "config.json").write_text(json.dumps(small_config().to_hugging_face()))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


@pytest.mark.parametrize("name", ["../x.safetensors", "/tmp/x.safetensors", "a/x.safetensors", "..", "."])
def test_an_index_names_files_of_its_folder_alone(name: str, tmp_path: Path) -> None:
    tensors = random_tensors(small_config())
    save_file(tensors, tmp_path / "x.safetensors")
    folder = write_shards(tmp_path / "model", dict.fromkeys(tensors, name), {})
    with pytest.raises(WeightsError, match=r"names files that are not in its folder"):
        load_model(folder)


def test_links_as_in_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    tensors = random_tensors(small_config())
    (tmp_path / "blobs").mkdir()
    save_file(tensors, tmp_path / "blobs" / "1234")
    folder = write_shards(tmp_path / "snapshots" / "1", dict.fromkeys(tensors, "model-00001-of-00001.safetensors"), {})
    (folder / "model-00001-of-00001.safetensors").symlink_to("../../blobs/1234")
    assert_same(load_model(folder).params, from_torch_names(small_config(), tensors))


def test_shards_of_different_checkpoints_are_refused(tmp_path: Path) -> None:
    tensors = random_tensors(small_config())
    names = sorted(tensors)
    one = {name: tensors[name] for name in names[:9]}
    two = {name: tensors[name] for name in names[9:]}
    places = dict.fromkeys(one, "1.safetensors") | dict.fromkeys(two, "2.safetensors")
    sound = write_shards(tmp_path / "sound", places, {"1.safetensors": one, "2.safetensors": two})
    assert_same(load_model(sound).params, from_torch_names(small_config(), tensors))
    stale = write_shards(
        tmp_path / "stale", places, {"1.safetensors": one, "2.safetensors": two | {names[0]: one[names[0]]}}
    )
    with pytest.raises(
        WeightsError, match=rf"2\.safetensors holds {names[0]}, which the index places in 1\.safetensors"
    ):
        load_model(stale)
    lost = write_shards(
        tmp_path / "lost", places | {"more": "1.safetensors"}, {"1.safetensors": one, "2.safetensors": two}
    )
    with pytest.raises(WeightsError, match="names tensors that no file holds: more"):
        load_model(lost)


def test_files_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path, small_config(), random_params(small_config()))

    def forbidden(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(WeightsError, match=rf"{tmp_path} cannot be read \(.*Permission denied.*\); choose a model"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "gpt2"}', "[" * 100_000])
def test_an_unusable_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(tmp_path)


# Saving


def test_transformers_loads_what_is_saved(model_type: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = small_config(model_type)
    params = random_params(config)
    save_model(tmp_path / "model", config, params)
    model_class = getattr(
        transformers, {"bert": "Bert", "roberta": "Roberta"}[model_type] + "ForSequenceClassification"
    )
    model, info = model_class.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info
    assert model.config.id2label == {0: "no", 1: "yes"}
    state = state_of(model)
    expected = to_torch_names(config, params)
    assert set(state) == set(expected)
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_transformers_loads_a_shallower_model(tmp_path: Path) -> None:
    """Fewer layers, and fewer neurons in all of them alike, need no code of ours."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = small_config().replace(heads=(3,), neurons=(8,))
    save_model(tmp_path / "model", config, random_params(config))
    _, info = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not any(info.values()), info


@pytest.mark.parametrize("make_config", [small_config, cut_config])
def test_saved_models_load_again(make_config: Callable[[str], ModelConfig], model_type: str, tmp_path: Path) -> None:
    config = make_config(model_type)
    params = random_params(config)
    save_model(tmp_path / "new" / "model", config, params)
    pretrained = load_model(tmp_path / "new" / "model")
    assert pretrained.config == config
    assert_same(pretrained.params, params)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["model"]


def test_jax_arrays_are_saved_like_numpys(tmp_path: Path) -> None:
    import jax

    config = small_config()
    params = random_params(config)
    save_model(tmp_path / "model", config, jax.tree.map(jax.numpy.asarray, params))
    assert_same(load_model(tmp_path / "model").params, params)


def test_saving_again_replaces_the_model_and_keeps_other_files(tmp_path: Path) -> None:
    save_model(tmp_path / "model", small_config(), random_params(small_config()))
    (tmp_path / "model" / "notes.txt").write_text("mine")
    config = cut_config()
    params = random_params(config, seed=5)
    save_model(tmp_path / "model", config, params)
    assert load_model(tmp_path / "model").config == config
    assert_same(load_model(tmp_path / "model").params, params)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_home_folder_is_saved_to_as_it_is_loaded_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model("~/half", small_config(), random_params(small_config()))
    assert load_model("~/half").folder == tmp_path / "half"


def test_saved_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    save_model(tmp_path / "model", small_config(), random_params(small_config()))
    (tmp_path / "any").write_text("")
    for path in (tmp_path / "model").iterdir():
        assert path.stat().st_mode == (tmp_path / "any").stat().st_mode, path


def test_tokenizer_files_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, text in {"vocab.txt": "[PAD]", "tokenizer_config.json": "{}", "README.md": "words"}.items():
        (source / name).write_text(text)
    save_model(tmp_path / "model", small_config(), random_params(small_config()), tokenizer_from=source)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
    assert (tmp_path / "model" / "vocab.txt").read_text() == "[PAD]"


def test_a_folder_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(WeightsError, match="has no tokenizer to copy"):
        save_model(
            tmp_path / "model", small_config(), random_params(small_config()), tokenizer_from=tmp_path / "source"
        )
    assert not (tmp_path / "model").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    with (
        pytest.raises(WeightsError, match=rf"cannot write {tmp_path / 'model'}: .*free some space"),
        files_up_to(8000),
    ):
        save_model(tmp_path / "model", small_config(), random_params(small_config()))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_model_before_as_it_was(tmp_path: Path) -> None:
    params = random_params(small_config())
    save_model(tmp_path / "model", small_config(), params)
    with pytest.raises(WeightsError, match="cannot write"), files_up_to(8000):
        save_model(tmp_path / "model", cut_config(), random_params(cut_config()))
    assert load_model(tmp_path / "model").config == small_config()
    assert_same(load_model(tmp_path / "model").params, params)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(WeightsError, match=f"cannot write {folder}"):
            save_model(folder, small_config(), random_params(small_config()))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_metadata_says_that_the_tensors_are_pytorchs(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_model(tmp_path, small_config(), random_params(small_config()))
    with safe_open(tmp_path / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}
    assert set(load_file(tmp_path / "model.safetensors")) == {p.name for p in parameters(small_config())}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type 'multi_label_classification' is not supported"),
        ({"problem_type": "regression"}, "a regression head has one output"),
    ],
)
def test_a_head_that_is_not_supported_may_be_trained_anew(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = small_config()
    save_model(tmp_path, config, random_params(config))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        load_model(tmp_path)
    mine = load_model(tmp_path, labels=("mine", "yours", "theirs", "ours"))
    assert mine.config.head == "classification"
    assert mine.new_classifier
