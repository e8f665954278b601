"""The table of parameters: path in our tree, PyTorch's name, and shape; for loading and saving.

`TABLE` gives for every module its path in our tree, PyTorch's name, and its sizes. Loading maps names to paths, saving
maps paths to names, and the shapes of a cut model follow from the same row.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import ml_dtypes
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.model.params import Params
from dynabert_jax.weights.torch_file import WeightsError as WeightsError

Kind = Literal["embedding", "norm", "dense"]
Head = Literal["pooler", "classifier"]


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One kind of module.

    Attributes:
        path: its path in our tree; `{i}` is the layer.
        kind: decides its parameters, `LEAVES`. PyTorch keeps a dense kernel as [out, in] and flattens heads.
        inputs, outputs: the sizes of its kernel or embedding, by name; a bias or scale has only the outputs.
        name: PyTorch's name; `{model}` is bert or roberta.
        roberta: PyTorch's name in RoBERTa, if it differs.
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

# Prefixes of tensors that a classifier does not use: constants, and the heads of pretraining.
_NOT_USED = ("embeddings.position_ids", "embeddings.token_type_ids", "cls.", "lm_head.")
_ENCODER = ("embeddings.", "encoder.", "pooler.")
_PRETRAINING = ("cls.", "lm_head.")
WORDS = "embeddings.word_embeddings.weight"  # every model has it once
_ARCHITECTURES = ("bert", "roberta", "distilbert", "electra", "albert", "deberta", "mpnet", "longformer", "xlm")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of one model: a leaf of our tree and a tensor of PyTorch's state dict.

    Attributes:
        path: its path in our tree, such as `layer_0/query/kernel`.
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
        with np.errstate(over="ignore"):  # to infinity, which `check_finite` reports
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
    return unflatten_dict({parameter.path: new_parameter(parameter, rng) for parameter in parameters(config)}, sep="/")


def new_parameter(parameter: Parameter, rng: np.random.Generator) -> np.ndarray:
    match parameter.path.rpartition("/")[2]:
        case "scale":
            return np.ones(parameter.shape, np.float32)
        case "bias":
            return np.zeros(parameter.shape, np.float32)
    return rng.standard_normal(parameter.shape, np.float32) * np.float32(0.02)


def from_torch_names(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> Params:
    """A PyTorch state dict -> our tree, float32.

    Names may lack the prefix `bert.` or `roberta.`, and may have the older gamma and beta of LayerNorm. What a
    classifier does not use (heads of pretraining, RoBERTa's own pooler) is left out.

    Raises:
        WeightsError: tensors are missing, not known, of another shape or not floating-point; all are listed.
    """
    tensors = standard_names(config.model_type, tensors)
    expected = parameters(config)
    check_tensors({parameter.name: parameter.torch_shape for parameter in expected}, tensors)
    arrays = {parameter.path: parameter.from_torch(tensors[parameter.name]) for parameter in expected}
    return unflatten_dict(arrays, sep="/")


def to_torch_names(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Our tree -> the state dict of Hugging Face's ...ForSequenceClassification, float32, in PyTorch's layout.

    Raises:
        WeightsError: the tree is not one of this configuration; all differences are listed.
    """
    arrays = {path: np.asarray(value) for path, value in flatten_dict(params, sep="/").items()}
    check_tensors(param_shapes(config), arrays)
    return {parameter.name: parameter.to_torch(arrays[parameter.path]) for parameter in parameters(config)}


def unwrapped(model_type: str, tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """The tensors without what a wrapper, such as `module.` of DataParallel, put before all of their names.

    Returns the tensors, and what was left out; empty if there was nothing.

    Raises:
        WeightsError: there are several models, a model and other things, or a model of another architecture.
    """
    before = {name.removesuffix(WORDS) for name in tensors if name.endswith(WORDS)}
    prefixes = sorted({_without_model(model_type, prefix) for prefix in before})
    if len(prefixes) > 1:
        raise WeightsError(f"there are several models, whose names begin with {listed(prefixes)}; save one of them")
    prefix = "".join(prefixes)
    if not prefix:
        return dict(tensors), ""
    if prefix.split(".")[-2] in _ARCHITECTURES:
        raise WeightsError(
            f"the names begin with {prefix!r}, but config.json has the model_type {model_type!r}; use config.json and "
            "weights of the same model"
        )
    outside = [name for name in tensors if not name.startswith(prefix)]
    if outside:
        raise WeightsError(
            f"the model's names begin with {prefix!r}, and there are others, {listed(outside, limit=3)}; save the "
            f"model alone, under names without {prefix!r}: "
            f"{{k.removeprefix({prefix!r}): v for k, v in tensors.items() if k.startswith({prefix!r})}}"
        )
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, prefix


def _without_model(model_type: str, prefix: str) -> str:
    """`module.` of `module.bert.`."""
    inner = f"{model_type}."
    return prefix.removesuffix(inner) if f".{prefix}".endswith(f".{inner}") else prefix


def heads_of_other_tasks(config: ModelConfig, names: Iterable[str], architectures: Iterable[str]) -> tuple[str, ...]:
    """The names of tensors of heads that are not a sequence classifier's, which is left out where it is in doubt.

    A classifier of tokens, or of choices, has the names and may have the shapes of a classifier of sequences. It is one
    of those by the name of the model's class, or because its model has no pooler, or has more layers than ours.
    """
    bare = {name: name.removeprefix(f"{config.model_type}.") for name in names}
    own = {p.name for p in parameters(config) if p.path.startswith(("classifier/", "pooler/"))}
    outside = [name for name, short in bare.items() if not short.startswith(_ENCODER)]
    other = [name for name in outside if name not in own]
    not_pretraining = [name for name in other if not bare[name].startswith(_PRETRAINING)]
    has_pooler = config.model_type == "roberta" or any(short.startswith("pooler.") for short in bare.values())
    if not_pretraining or not has_pooler or _are_of_another_task(architectures):
        return tuple(outside)
    return tuple(other)


def _are_of_another_task(architectures: Iterable[str]) -> bool:
    """Whether the classes in config.json are models with a head, but none of them a sequence classifier."""
    with_heads = [name for name in map(str, architectures) if "For" in name]
    return bool(with_heads) and not any(name.endswith("ForSequenceClassification") for name in with_heads)


def modules_of(names: Iterable[str]) -> tuple[str, ...]:
    """The heads that tensors belong to, such as `cls.predictions` and `qa_outputs`."""
    parts = (name.split(".") for name in names)
    return tuple(sorted({".".join(part[: 2 if part[0] == "cls" else 1]) for part in parts}))


def standard_names(model_type: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with the names of current transformers, without those that are not used."""
    not_used = (*_NOT_USED, "pooler.") if model_type == "roberta" else _NOT_USED
    standard: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(f"{model_type}.")
        if bare.startswith(not_used):
            continue
        bare = bare.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        full = f"{model_type}.{bare}" if bare.startswith(_ENCODER) else bare
        if full in standard:
            raise WeightsError(f"{full} appears twice, once as {name}; remove one")
        standard[full] = tensor
    return standard


def check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray]) -> None:
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
        shown = "; ".join(f"{what}: {listed(names)}" for what, names in problems.items() if names)
        raise WeightsError(f"the weights do not fit the configuration; {_cause(expected, found)}. {shown}")


def check_finite(params: Params, config: ModelConfig) -> None:
    """Raises WeightsError if a parameter is NaN or infinite in float32; names the tensors and a first place."""
    arrays = flatten_dict(params, sep="/")
    # The smallest and the largest number show any NaN, without an array of the same size.
    bad = [p for p in parameters(config) if not np.isfinite([arrays[p.path].min(), arrays[p.path].max()]).all()]
    if not bad:
        return
    tensor = bad[0].to_torch(arrays[bad[0].path])
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(tensor))[0])
    raise WeightsError(
        f"the weights are not all finite numbers: {listed([p.name for p in bad])}; the first is {tensor[place]} at "
        f"{list(place)} of {bad[0].name}. Use a checkpoint from before its training failed"
    )


def _cause(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, np.ndarray]) -> str:
    """What to do, by what seems to have happened."""
    layers, there = _layers(expected), _layers(found)
    if there and layers != there:
        return f"config.json has {layers} layers and the weights have {there}; use those of the same model"
    wrong = [found[name].shape for name in expected if name in found and found[name].shape != expected[name]]
    right = [expected[name] for name in expected if name in found and found[name].shape != expected[name]]
    if wrong and all(shape == size[::-1] for shape, size in zip(wrong, right, strict=True)):
        return "they are transposed, as TensorFlow and Flax keep them; convert them to PyTorch with transformers"
    return "use config.json and weights of the same model"


def _layers(names: Iterable[str]) -> int:
    matches = (re.search(r"(?:encoder\.layer\.|^layer_)(\d+)", name) for name in names)
    return max((int(match[1]) + 1 for match in matches if match), default=0)


def listed(names: list[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
