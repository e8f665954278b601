"""Weights in Hugging Face's format, read and written by one table of names.

`TABLE` says for every module where it stands in our tree, what PyTorch calls it, and which sizes it has. Loading reads
a row from right to left, saving from left to right, and the shapes of a cut model follow from the same row.
"""

import dataclasses
import functools
import hashlib
import json
import math
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dynabert_jax.config import ConfigError, ModelConfig
from dynabert_jax.hub import TOKENIZER_FILES, find_model
from dynabert_jax.paths import expanded
from dynabert_jax.torch_file import WeightsError as WeightsError
from dynabert_jax.torch_file import read_torch_file

Params = dict[str, Any]
Kind = Literal["embedding", "norm", "dense"]
Head = Literal["pooler", "classifier"]


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One kind of module.

    Attributes:
        path: its place in our tree; `{i}` is the layer.
        kind: decides its parameters, `LEAVES`. PyTorch keeps a dense kernel as [out, in] and flattens heads.
        inputs, outputs: the sizes of its kernel or embedding, by name; a bias or scale has the outputs alone.
        name: what PyTorch calls it; `{model}` is bert or roberta.
        roberta: what RoBERTa calls it, where that differs.
    """

    path: str
    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    roberta: str = ""


TABLE = (
    TableRow("embeddings/word", "embedding", ("vocab",), ("hidden",), "{model}.embeddings.word_embeddings"),
    TableRow("embeddings/position", "embedding", ("positions",), ("hidden",), "{model}.embeddings.position_embeddings"),
    TableRow("embeddings/token_type", "embedding", ("types",), ("hidden",), "{model}.embeddings.token_type_embeddings"),
    TableRow("embeddings/norm", "norm", (), ("hidden",), "{model}.embeddings.LayerNorm"),
    TableRow(
        "layer_{i}/query", "dense", ("hidden",), ("heads", "head"), "{model}.encoder.layer.{i}.attention.self.query"
    ),
    TableRow("layer_{i}/key", "dense", ("hidden",), ("heads", "head"), "{model}.encoder.layer.{i}.attention.self.key"),
    TableRow(
        "layer_{i}/value", "dense", ("hidden",), ("heads", "head"), "{model}.encoder.layer.{i}.attention.self.value"
    ),
    TableRow(
        "layer_{i}/attention_output",
        "dense",
        ("heads", "head"),
        ("hidden",),
        "{model}.encoder.layer.{i}.attention.output.dense",
    ),
    TableRow(
        "layer_{i}/attention_norm", "norm", (), ("hidden",), "{model}.encoder.layer.{i}.attention.output.LayerNorm"
    ),
    TableRow("layer_{i}/up", "dense", ("hidden",), ("neurons",), "{model}.encoder.layer.{i}.intermediate.dense"),
    TableRow("layer_{i}/down", "dense", ("neurons",), ("hidden",), "{model}.encoder.layer.{i}.output.dense"),
    TableRow("layer_{i}/output_norm", "norm", (), ("hidden",), "{model}.encoder.layer.{i}.output.LayerNorm"),
    TableRow("pooler", "dense", ("hidden",), ("hidden",), "bert.pooler.dense", roberta="classifier.dense"),
    TableRow("classifier", "dense", ("hidden",), ("labels",), "classifier", roberta="classifier.out_proj"),
)
# The parameters of a module: our name and PyTorch's.
LEAVES: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    "embedding": (("embedding", "weight"),),
    "norm": (("scale", "weight"), ("bias", "bias")),
    "dense": (("kernel", "weight"), ("bias", "bias")),
}

_FLOATS = {np.dtype(kind) for kind in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)}
# What numpy, with ml_dtypes, can read, as safetensors calls it.
_SAFETENSORS_KINDS = frozenset(
    ("F16", "BF16", "F32", "F64", "BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "C64")
)
# Parts of a checkpoint that a classifier does without: a constant, and the heads of pretraining.
_NOT_USED = ("embeddings.position_ids", "cls.", "lm_head.")
_MASKED_LM_HEAD = "cls.predictions."
_LFS_POINTER = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of one model: a leaf of our tree and a tensor of PyTorch's state dict.

    Attributes:
        path: its place in our tree, such as `layer_0/query/kernel`.
        name: PyTorch's name.
        inputs, outputs: its sizes; inputs are empty for a bias or scale.
        transposed: PyTorch keeps it as [outputs, inputs].
    """

    path: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Our shape, such as [hidden, heads, head]."""
        return self.inputs + self.outputs

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """PyTorch's shape, such as [heads * head, hidden]."""
        return self._flat_shape[::-1] if self.transposed else self._flat_shape

    @property
    def _flat_shape(self) -> tuple[int, ...]:
        return tuple(math.prod(sizes) for sizes in (self.inputs, self.outputs) if sizes)

    def from_torch(self, tensor: np.ndarray) -> np.ndarray:
        """[*torch_shape] -> [*shape], a float32 copy."""
        flat = tensor.T if self.transposed else tensor
        return np.array(flat.reshape(self.shape), np.float32, order="C")

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """[*shape] -> [*torch_shape], a float32 copy."""
        flat = array.reshape(self._flat_shape)
        return np.array(flat.T if self.transposed else flat, np.float32, order="C")


def parameters(config: ModelConfig) -> tuple[Parameter, ...]:
    """Every parameter of a model, by the table."""
    return tuple(
        _parameter(config, row, layer, ours, theirs)
        for row in TABLE
        for layer in (range(config.num_layers) if "{i}" in row.path else range(1))
        for ours, theirs in LEAVES[row.kind]
    )


def _parameter(config: ModelConfig, row: TableRow, layer: int, ours: str, theirs: str) -> Parameter:
    sizes = {
        "vocab": config.vocab_size,
        "positions": config.max_position_embeddings,
        "types": config.type_vocab_size,
        "hidden": config.hidden_size,
        "heads": config.heads[layer],
        "head": config.head_size,
        "neurons": config.neurons[layer],
        "labels": config.num_labels,
    }
    name = row.roberta if row.roberta and config.model_type == "roberta" else row.name
    inputs = row.inputs if ours in ("embedding", "kernel") else ()
    return Parameter(
        path=f"{row.path}/{ours}".format(i=layer),
        name=f"{name}.{theirs}".format(model=config.model_type, i=layer),
        inputs=tuple(sizes[size] for size in inputs),
        outputs=tuple(sizes[size] for size in row.outputs),
        transposed=row.kind == "dense",
    )


def param_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by its path, such as `layer_0/query/kernel`: [hidden, heads, head]."""
    return {parameter.path: parameter.shape for parameter in parameters(config)}


def init_params(config: ModelConfig, seed: int) -> Params:
    """New parameters as BERT initialises them: kernels and embeddings N(0, 0.02), scales 1, biases 0; float32."""
    rng = np.random.default_rng(seed)
    return unflatten_dict({parameter.path: _new(parameter, rng) for parameter in parameters(config)}, sep="/")


def _new(parameter: Parameter, rng: np.random.Generator) -> np.ndarray:
    match parameter.path.rpartition("/")[2]:
        case "scale":
            return np.ones(parameter.shape, np.float32)
        case "bias":
            return np.zeros(parameter.shape, np.float32)
    return rng.standard_normal(parameter.shape, np.float32) * np.float32(0.02)


def from_torch_names(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """A PyTorch state dict -> our tree, float32.

    Names may lack the prefix `bert.` or `roberta.`, and may be of the time when LayerNorm had gamma and beta. What a
    classifier does not use (heads of pretraining, RoBERTa's own pooler) is left out.

    Raises:
        WeightsError: tensors are missing, not known, of another shape or no floating-point numbers; all are listed.
    """
    tensors = _standard_names(config.model_type, tensors)
    expected = parameters(config)
    _check_tensors({parameter.name: parameter.torch_shape for parameter in expected}, tensors)
    arrays = {parameter.path: parameter.from_torch(tensors[parameter.name]) for parameter in expected}
    return unflatten_dict(arrays, sep="/")


def to_torch_names(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Our tree -> the state dict of Hugging Face's ...ForSequenceClassification, float32, in PyTorch's layout.

    Raises:
        WeightsError: the tree is not one of this configuration; all differences are listed.
    """
    arrays = {path: np.asarray(value) for path, value in flatten_dict(params, sep="/").items()}
    _check_tensors(param_shapes(config), arrays)
    return {parameter.name: parameter.to_torch(arrays[parameter.path]) for parameter in parameters(config)}


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A model as it was loaded.

    Attributes:
        folder: where it was found; its tokenizer is there, too.
        config: its shape, with the labels that were asked for.
        params: its parameters, float32.
        new: what the checkpoint does not have (or has for another number of labels) and was initialised anew.
        checkpoint_labels: the labels by the checkpoint's own names and in its own order.
        label_order_changed: the classifier's rows were put into the order of the labels that were asked for.
        labels_by_position: the classifier was kept though its labels have other names than those asked for; that its
            first label means the first one asked for is an assumption.
    """

    folder: Path
    config: ModelConfig
    params: Params
    new: tuple[Head, ...]
    checkpoint_labels: tuple[str, ...]
    label_order_changed: bool
    labels_by_position: bool

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the parameters: another one as soon as a number changes."""
        digest = hashlib.sha256()
        for name, array in sorted(flatten_dict(self.params, sep="/").items()):
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def new_classifier(self) -> bool:
        """The classifier was initialised anew: the model has to be fine-tuned before its answers mean anything."""
        return "classifier" in self.new


def load(folder_or_name: str | Path, labels: tuple[str, ...] | None = None, seed: int = 0) -> Pretrained:
    """Loads a BERT or RoBERTa in Hugging Face's format.

    Args:
        folder_or_name: a local folder, a name on the hub or `sample:minilm`.
        labels: the classes' names in the order that the classifier shall have; None keeps the checkpoint's own.
        seed: seed of what has to be initialised anew: the classifier where the checkpoint has none or one for another
            number of labels, the pooler where the checkpoint is one of a masked language model.

    Raises:
        ModelNotFoundError: there is no such model, or it cannot be reached.
        ConfigError: config.json describes something else than a BERT or RoBERTa.
        WeightsError: the weights cannot be read, are damaged or do not fit config.json.
    """
    folder = find_model(folder_or_name)
    try:
        found = _read_config(folder / "config.json")
        stored = _read_tensors(folder)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read ({error}); name a model that you may read") from error
    config = found if labels is None else found.replace(labels=labels)
    is_masked_lm = any(name.startswith(_MASKED_LM_HEAD) for name in stored)
    try:
        tensors = _standard_names(config.model_type, stored)
        if labels is not None:
            tensors = _without_other_classifier(config, tensors)
        new = _new_heads(config, tensors, is_masked_lm)
        order = _label_order(found.labels, config.labels)
        kept_with_labels = labels is not None and "classifier" not in new
        if kept_with_labels and order is not None:
            tensors = _reordered(config, tensors, order)
        params = from_torch_names(config, _with_new_heads(config, tensors, new, seed))
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from None
    return Pretrained(
        folder=folder,
        config=config,
        params=params,
        new=new,
        checkpoint_labels=found.labels,
        label_order_changed=kept_with_labels and order is not None and order != tuple(range(len(order))),
        labels_by_position=kept_with_labels and order is None and config.num_labels > 1,
    )


def save(folder: str | Path, config: ModelConfig, params: Params, tokenizer_from: Path | None = None) -> None:
    """Writes config.json and model.safetensors, as `from_pretrained` of Hugging Face's transformers reads them.

    Everything is written beside the folder first and then moved: a new folder appears whole or not at all; in a folder
    that is there already, each file is replaced whole and other files stay.

    Args:
        folder: where to; made, with its parents, where it does not exist.
        config: the model's shape. That of a cut model has keys that only this package reads.
        params: the parameters.
        tokenizer_from: a folder whose tokenizer files are copied along.

    Raises:
        WeightsError: the tree does not fit the configuration, tokenizer_from has no tokenizer, or writing failed.
    """
    tensors = to_torch_names(config, params)
    tokenizer_files = [] if tokenizer_from is None else _tokenizer_files(tokenizer_from)
    folder = expanded(folder).absolute()
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    from safetensors import SafetensorError

    try:
        temporary.mkdir(parents=True)
        for file in tokenizer_files:
            shutil.copyfile(file, temporary / file.name)
        _write_model(temporary, config, tensors)
        _put_in_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot write {folder}: {error}; free the space, or name a folder that you may write"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_model(folder: Path, config: ModelConfig, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    config_file.write_text(json.dumps(config.to_hugging_face(), indent=2) + "\n")
    save_file(tensors, weights_file, metadata={"format": "pt"})
    shutil.copymode(config_file, weights_file)  # safetensors makes files that only their owner can read


def _put_in_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    for file in temporary.iterdir():
        file.replace(folder / file.name)


def _tokenizer_files(folder: Path) -> list[Path]:
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise WeightsError(f"{folder} has no tokenizer to copy; it would have one of {', '.join(TOKENIZER_FILES)}")
    return files


def _read_config(path: Path) -> ModelConfig:
    try:
        return ModelConfig.from_hugging_face(json.loads(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({type(error).__name__}: {error}); copy or download it again") from error


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return _read_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise WeightsError(
        f"{folder} holds no weights, neither model.safetensors nor pytorch_model.bin; weights of TensorFlow or Flax "
        "have to be converted to PyTorch's first, with the version of transformers that wrote them"
    )


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """The tensors of all files that an index names."""
    try:
        files = sorted({str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index} is damaged ({error}); copy or download it again") from error
    absent = [file for file in files if not (index.parent / file).is_file()]
    if absent:
        raise WeightsError(f"{index} names files that are not there: {_some(absent)}; copy or download them")
    return {name: tensor for file in files for name, tensor in _read_file(index.parent / file).items()}


def _read_file(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise WeightsError(f"{path} is a placeholder of Git LFS, not the weights; run `git lfs pull` there")
    if path.suffix == ".bin":
        return read_torch_file(path)
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            _check_readable(path, {name: file.get_slice(name).get_dtype() for name in names})
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or not complete ({error}); copy or download it again") from error


def _check_readable(path: Path, kinds: Mapping[str, str]) -> None:
    """Refuses the numbers of 8 bits and fewer that quantized models have and numpy has not."""
    strange = [f"{name} {kind}" for name, kind in kinds.items() if kind not in _SAFETENSORS_KINDS]
    if strange:
        raise WeightsError(
            f"{path} holds numbers that cannot be read: {_some(strange, limit=3)}; bring the model that is not "
            "quantized, in float32, float16 or bfloat16"
        )


def _standard_names(model_type: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors under the names that today's transformers gives them, without those that are not used."""
    not_used = (*_NOT_USED, "pooler.") if model_type == "roberta" else _NOT_USED
    standard: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(f"{model_type}.")
        if bare.startswith(not_used):
            continue
        bare = bare.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        is_encoder = bare.startswith(("embeddings.", "encoder.", "pooler."))
        full = f"{model_type}.{bare}" if is_encoder else bare
        if full in standard:
            raise WeightsError(f"{full} is there twice, once as {name}; remove one")
        standard[full] = tensor
    return standard


def _check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray]) -> None:
    """Raises one WeightsError that lists all that is missing, not known, of another shape or not of floats."""
    both = [name for name in expected if name in found]
    problems = {
        "missing": [name for name in expected if name not in found],
        "not known": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {list(found[name].shape)} instead of {list(expected[name])}"
            for name in both
            if found[name].shape != expected[name]
        ],
        "not floating-point": [f"{name} {found[name].dtype}" for name in both if found[name].dtype not in _FLOATS],
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)
        raise WeightsError(f"the weights do not fit the configuration; bring those that belong together. {listed}")


def _some(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _head(config: ModelConfig, head: Head) -> tuple[Parameter, ...]:
    return tuple(parameter for parameter in parameters(config) if parameter.path.startswith(f"{head}/"))


def _without_other_classifier(config: ModelConfig, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves the classifier out if it is one for another number of labels."""
    names = {parameter.name for parameter in _head(config, "classifier")}
    rows = {tensors[name].shape[:1] for name in names if name in tensors}
    if rows <= {(config.num_labels,)}:
        return tensors
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def _new_heads(config: ModelConfig, tensors: Mapping[str, np.ndarray], is_masked_lm: bool) -> tuple[Head, ...]:
    """The heads that are to be initialised anew: only whole ones, and only where that is to be expected."""
    heads: tuple[Head, ...] = ("pooler", "classifier")
    absent = tuple(h for h in heads if not any(parameter.name in tensors for parameter in _head(config, h)))
    # RoBERTa's pooler is part of its classifier; BERT's is pretrained, but not by every masked language model.
    pooler_expected = "classifier" in absent if config.model_type == "roberta" else is_masked_lm
    return tuple(h for h in absent if h == "classifier" or pooler_expected)


def _with_new_heads(
    config: ModelConfig, tensors: dict[str, np.ndarray], heads: Iterable[Head], seed: int
) -> dict[str, np.ndarray]:
    """Adds the heads that are initialised anew.

    All others are checked first: a config.json with a wrong size could ask for heads larger than the memory.
    """
    new = {parameter.name: parameter for head in heads for parameter in _head(config, head)}
    _check_tensors({p.name: p.torch_shape for p in parameters(config) if p.name not in new}, tensors)
    rng = np.random.default_rng(seed)
    return tensors | {name: parameter.to_torch(_new(parameter, rng)) for name, parameter in new.items()}


def _label_order(checkpoint: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...] | None:
    """Where each wanted label stands in the checkpoint, upper and lower case alike; None if the names differ."""
    place = {name.casefold(): i for i, name in enumerate(checkpoint)}
    names = [name.casefold() for name in wanted]
    if sorted(names) != sorted(place) or len(place) != len(checkpoint):
        return None
    return tuple(place[name] for name in names)


def _reordered(config: ModelConfig, tensors: dict[str, np.ndarray], order: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Takes the classifier's rows, of the kernel [labels, hidden] and the bias [labels], in another order."""
    names = [parameter.name for parameter in _head(config, "classifier") if parameter.name in tensors]
    return tensors | {name: tensors[name][list(order)] for name in names}
