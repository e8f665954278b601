"""Models in Hugging Face's format, to and from files."""

import dataclasses
import functools
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from dynabert_jax.config.model import ModelConfig, stored_labels
from dynabert_jax.config.tasks import Kind
from dynabert_jax.model.params import Model, Params
from dynabert_jax.system.files import expanded
from dynabert_jax.weights.hub import TOKENIZER_FILES, find_model
from dynabert_jax.weights.names import (
    Head,
    Parameter,
    check_tensors,
    from_torch_names,
    listed,
    new_parameter,
    parameters,
    standard_names,
    to_torch_names,
)
from dynabert_jax.weights.torch_file import WeightsError as WeightsError
from dynabert_jax.weights.torch_file import read_torch_file

# safetensors' names of the types that numpy, with ml_dtypes, can read.
_SAFETENSORS_KINDS = frozenset(
    ("F16", "BF16", "F32", "F64", "BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "C64")
)

_MASKED_LM_HEAD = "cls.predictions."
_LFS_POINTER = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained(Model):
    """A loaded model.

    Attributes:
        config: its shape, with the requested labels.
        params: its parameters, float32.
        folder: the folder it was loaded from; its tokenizer is there, too.
        new: newly initialised heads: the checkpoint lacks them, or has them for another number of labels.
        checkpoint_labels: the labels with the checkpoint's names, in its order.
        label_order_changed: the classifier's rows were put into the order of the requested labels.
        labels_by_position: the classifier was kept although its labels have other names than the requested ones. It is
            an assumption that its first label means the first requested one.
    """

    folder: Path
    new: tuple[Head, ...]
    checkpoint_labels: tuple[str, ...]
    label_order_changed: bool
    labels_by_position: bool

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the parameters. It changes with any number."""
        digest = hashlib.sha256()
        for name, array in sorted(flatten_dict(self.params, sep="/").items()):
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def new_classifier(self) -> bool:
        """Whether the classifier is newly initialised: without fine-tuning, the model's answers mean nothing."""
        return "classifier" in self.new


def load_model(
    folder_or_name: str | Path, labels: tuple[str, ...] | None = None, seed: int = 0, head: Kind | None = None
) -> Pretrained:
    """Loads a BERT or RoBERTa in Hugging Face's format.

    Args:
        folder_or_name: a local folder, a name on the hub or `sample:minilm`.
        labels: the requested class names, in the classifier's order; None keeps the checkpoint's.
        seed: seed of newly initialised heads: the classifier if the checkpoint has none, or one for another number of
            labels; the pooler if the checkpoint is a masked language model.
        head: the kind of head; None: one label means regression, more mean classification.

    Raises:
        ModelNotFoundError: there is no such model, or it cannot be reached.
        ConfigError: config.json is not the configuration of a BERT or RoBERTa.
        WeightsError: the weights cannot be read, are damaged or do not fit config.json.
    """
    folder = find_model(folder_or_name)
    try:
        config = ModelConfig.read(folder / "config.json", labels, head)
        found = stored_labels(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        stored = _read_tensors(folder)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read ({error}); choose a model that you can read") from error
    is_masked_lm = any(name.startswith(_MASKED_LM_HEAD) for name in stored)
    try:
        tensors = standard_names(config.model_type, stored)
        if labels is not None:
            tensors = _without_other_classifier(config, tensors)
        new = _new_heads(config, tensors, is_masked_lm)
        order = _label_order(found, config.labels)
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
        checkpoint_labels=found,
        label_order_changed=kept_with_labels and order is not None and order != tuple(range(len(order))),
        labels_by_position=kept_with_labels and order is None and config.num_labels > 1,
    )


def save_model(folder: str | Path, config: ModelConfig, params: Params, tokenizer_from: Path | None = None) -> None:
    """Writes config.json and model.safetensors, as `from_pretrained` of Hugging Face's transformers reads them.

    Files are written next to the folder first and then moved. A new folder appears atomically. In an existing folder,
    each file is replaced atomically, and other files stay.

    Args:
        folder: the folder to write to; created, with its parents, if it does not exist.
        config: the model's shape. In config.json, a cut model has keys that only this package reads.
        params: the parameters.
        tokenizer_from: a folder whose tokenizer files are copied, too.

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
            f"cannot write {folder}: {error}; free some space, or choose a folder that you can write to"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_model(folder: Path, config: ModelConfig, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    config_file.write_text(json.dumps(config.to_hugging_face(), indent=2) + "\n")
    save_file(tensors, weights_file, metadata={"format": "pt"})
    shutil.copymode(config_file, weights_file)  # safetensors creates files that only their owner can read


def _put_in_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    for file in temporary.iterdir():
        file.replace(folder / file.name)


def _tokenizer_files(folder: Path) -> list[Path]:
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    if not files:
        raise WeightsError(
            f"{folder} has no tokenizer to copy; choose a folder with one of {', '.join(TOKENIZER_FILES)}"
        )
    return files


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return _read_file(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder / f"{name}.index.json")
    raise WeightsError(
        f"{folder} holds no weights, neither model.safetensors nor pytorch_model.bin; convert weights of TensorFlow or "
        "Flax to PyTorch first, with the version of transformers that wrote them"
    )


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """The tensors of all files that an index names."""
    try:
        files = sorted({str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{index} is damaged ({error}); copy or download it again") from error
    absent = [file for file in files if not (index.parent / file).is_file()]
    if absent:
        raise WeightsError(f"{index} names files that are not there: {listed(absent)}; copy or download them")
    return {name: tensor for file in files for name, tensor in _read_file(index.parent / file).items()}


def _read_file(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise WeightsError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")
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
    """Refuses the types of at most 8 bits that quantized models have and numpy lacks."""
    strange = [f"{name} {kind}" for name, kind in kinds.items() if kind not in _SAFETENSORS_KINDS]
    if strange:
        raise WeightsError(
            f"{path} holds numbers that cannot be read: {listed(strange, limit=3)}; use the model that is not "
            "quantized, in float32, float16 or bfloat16"
        )


def _head(config: ModelConfig, head: Head) -> tuple[Parameter, ...]:
    return tuple(parameter for parameter in parameters(config) if parameter.path.startswith(f"{head}/"))


def _without_other_classifier(config: ModelConfig, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Leaves the classifier out if it has another number of labels."""
    names = {parameter.name for parameter in _head(config, "classifier")}
    rows = {tensors[name].shape[:1] for name in names if name in tensors}
    if rows <= {(config.num_labels,)}:
        return tensors
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def _new_heads(config: ModelConfig, tensors: Mapping[str, np.ndarray], is_masked_lm: bool) -> tuple[Head, ...]:
    """The heads to initialise: only complete ones, and only if such a checkpoint may lack them."""
    heads: tuple[Head, ...] = ("pooler", "classifier")
    absent = tuple(h for h in heads if not any(parameter.name in tensors for parameter in _head(config, h)))
    # RoBERTa's pooler is part of its classifier; BERT's is pretrained, but not by every masked language model.
    pooler_expected = "classifier" in absent if config.model_type == "roberta" else is_masked_lm
    return tuple(h for h in absent if h == "classifier" or pooler_expected)


def _with_new_heads(
    config: ModelConfig, tensors: dict[str, np.ndarray], heads: Iterable[Head], seed: int
) -> dict[str, np.ndarray]:
    """Adds the newly initialised heads.

    All other tensors are checked first: a wrong size in config.json could ask for heads larger than the memory.
    """
    new = {parameter.name: parameter for head in heads for parameter in _head(config, head)}
    check_tensors({p.name: p.torch_shape for p in parameters(config) if p.name not in new}, tensors)
    rng = np.random.default_rng(seed)
    return tensors | {name: parameter.to_torch(new_parameter(parameter, rng)) for name, parameter in new.items()}


def _label_order(checkpoint: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...] | None:
    """Each wanted label's index in the checkpoint, ignoring case; None if the names differ."""
    place = {name.casefold(): i for i, name in enumerate(checkpoint)}
    names = [name.casefold() for name in wanted]
    if sorted(names) != sorted(place) or len(place) != len(checkpoint):
        return None
    return tuple(place[name] for name in names)


def _reordered(config: ModelConfig, tensors: dict[str, np.ndarray], order: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Reorders the rows of the classifier's kernel [labels, hidden] and bias [labels]."""
    names = [parameter.name for parameter in _head(config, "classifier") if parameter.name in tensors]
    return tensors | {name: tensors[name][list(order)] for name in names}
