"""Models in Hugging Face's format, to and from files."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.model import ModelConfig, stored_labels
from dynabert_jax.config.tasks import Kind, Task
from dynabert_jax.data.tokenizer_files import TOKENIZER_FILES, files_there
from dynabert_jax.model.params import Model, Params
from dynabert_jax.system.files import expanded, temporary_beside
from dynabert_jax.system.json_file import JsonError, read_object
from dynabert_jax.weights.embeddings import Stored, in_float16
from dynabert_jax.weights.hub import find_model
from dynabert_jax.weights.names import (
    WORDS,
    Head,
    Parameter,
    check_finite,
    check_tensors,
    from_torch_names,
    heads_of_other_tasks,
    listed,
    modules_of,
    new_parameter,
    parameters,
    standard_names,
    to_torch_names,
    unwrapped,
)
from dynabert_jax.weights.torch_file import WeightsError as WeightsError
from dynabert_jax.weights.torch_file import read_torch_file

# safetensors' names of the types that numpy, with ml_dtypes, can read.
_SAFETENSORS_KINDS = frozenset(
    ("F16", "BF16", "F32", "F64", "BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "C64")
)

_LFS_POINTER = b"version https://git-lfs"


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained(Model):
    """A loaded model.

    Attributes:
        config: its shape, with the requested labels.
        params: its parameters, float32.
        folder: the folder it was loaded from; its tokenizer is there, too.
        new: newly initialised heads: the checkpoint lacks them, or has them for another number of labels.
        left_out: the checkpoint's heads of other tasks, such as `qa_outputs`.
        checkpoint_labels: the labels with the checkpoint's names, in its order; empty if it has no usable ones.
        label_order_changed: the classifier's rows were put into the order of the requested labels.
        labels_by_position: the classifier was kept although its labels have other names than the requested ones. It is
            an assumption that its first label means the first requested one.
        assumed: what was taken for granted about the model, in sentences.
    """

    folder: Path
    new: tuple[Head, ...]
    left_out: tuple[str, ...]
    checkpoint_labels: tuple[str, ...]
    label_order_changed: bool
    labels_by_position: bool
    assumed: tuple[str, ...]

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
            labels or another task; the pooler if the checkpoint has none.
        head: the kind of head; None: one label means regression, more mean classification.

    Raises:
        ModelNotFoundError: there is no such model, or it cannot be reached.
        ConfigError: config.json is not the configuration of a BERT or RoBERTa.
        WeightsError: the weights cannot be read, are damaged or do not fit config.json.
    """
    folder = find_model(folder_or_name)
    try:
        config = ModelConfig.read(folder / "config.json", labels, head)
        values = read_object(folder / "config.json")
        stored = _read_tensors(folder)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read ({error}); choose a model that you can read") from error
    try:
        bare, wrapper = unwrapped(config.model_type, stored)
        classes = values.get("architectures")
        other = heads_of_other_tasks(config, bare, classes if isinstance(classes, list) else ())
        ours = {name: tensor for name, tensor in bare.items() if name not in other}
        tensors = standard_names(config.model_type, ours)
        if labels is not None:
            tensors = _without_other_classifier(config, tensors)
        new = _new_heads(config, tensors)
        found = _checkpoint_labels(values)
        order = _label_order(found, config.labels)
        kept_with_labels = labels is not None and "classifier" not in new
        if kept_with_labels and order is not None:
            tensors = _reordered(config, tensors, order)
        params = from_torch_names(config, _with_new_heads(config, tensors, new, seed))
        check_finite(params, config)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from None
    changed = kept_with_labels and order is not None and order != tuple(range(len(order)))
    by_position = kept_with_labels and order is None and config.num_labels > 1
    pretrained = Pretrained(
        folder=folder,
        config=config,
        params=params,
        new=new,
        left_out=modules_of(other),
        checkpoint_labels=found,
        label_order_changed=changed,
        labels_by_position=by_position,
        assumed=(),
    )
    return dataclasses.replace(pretrained, assumed=tuple(_assumed(pretrained, values, wrapper)))


def classes_of(folder: Path, task: Task) -> tuple[str, ...]:
    """The classes that a model's config.json names, in its order; empty if the task is a regression.

    Raises:
        ConfigError: it is not the configuration of a BERT or RoBERTa, or of one that predicts something else.
    """
    try:
        config = ModelConfig.read(folder / "config.json")
    except OSError as error:
        raise WeightsError(f"{folder} cannot be read ({error}); choose a model that you can read") from error
    if config.head != task.kind:
        raise ConfigError(
            f"{folder}: the model's config.json describes a {config.head} ({', '.join(config.labels)}), and the task "
            f"is a {task.kind}; without labels, the task is what the model does: set its kind to {config.head!r}"
        )
    return () if config.is_regression else config.labels


def _assumed(model: Pretrained, values: Mapping[str, Any], wrapper: str) -> Iterator[str]:
    """What was taken for granted, in sentences."""
    theirs, ours = ", ".join(model.checkpoint_labels) or "which have no usable names", ", ".join(model.config.labels)
    if not values.get("model_type") and not values.get("dynabert"):
        yield f"config.json has no model_type; the model is taken for a {model.config.model_type}"
    if wrapper:
        yield f"all names of the weights begin with {wrapper!r}, which was left out"
    if model.left_out:
        yield f"heads of other tasks were left out: {', '.join(model.left_out)}"
    if model.new:
        yield f"its {' and '.join(model.new)} {'are' if len(model.new) > 1 else 'is'} new, and random until trained"
    if model.label_order_changed:
        yield f"its classes, {theirs}, were put into the order of {ours}"
    if model.labels_by_position:
        yield f"its classes, {theirs}, are matched by position with {ours}"


def _checkpoint_labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the checkpoint's classes, which do not matter where others take their place."""
    try:
        return stored_labels(values)
    except ConfigError:
        return ()


def save_model(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    tokenizer_from: Path | None = None,
    stored: Stored = "float32",
) -> None:
    """Writes config.json and model.safetensors, as `from_pretrained` of Hugging Face's transformers reads them.

    Files are written next to the folder first and then moved. A new folder appears atomically. In an existing folder,
    each file is replaced atomically, and other files stay, except for those of another tokenizer.

    Args:
        folder: the folder to write to; created, with its parents, if it does not exist.
        config: the model's shape. In config.json, a cut model has keys that only this package reads.
        params: the parameters.
        tokenizer_from: a folder whose tokenizer files are copied, too.
        stored: the type of the word embeddings in the file, float32 or float16; every reader makes them float32.

    Raises:
        WeightsError: the tree does not fit the configuration, tokenizer_from has no tokenizer, or writing failed.
    """
    tensors = with_stored_words(to_torch_names(config, params), stored)
    values = config.to_hugging_face() | file_type(stored)
    tokenizer_files = [] if tokenizer_from is None else _tokenizer_files(tokenizer_from)
    folder = expanded(folder).absolute()
    from safetensors import SafetensorError

    try:
        with temporary_beside(folder) as temporary:
            temporary.mkdir(parents=True)
            for file in tokenizer_files:
                shutil.copyfile(file, temporary / file.name)
            _write_model(temporary, values, tensors)
            if tokenizer_files:
                _remove_tokenizer(folder, {file.name for file in tokenizer_files})
            _put_in_place(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot write {folder}: {error}; free some space, or choose a folder that you can write to"
        ) from error


def with_stored_words(tensors: dict[str, np.ndarray], stored: Stored) -> dict[str, np.ndarray]:
    """The tensors with word embeddings of that type; the others stay float32."""
    if stored == "float32":
        return tensors
    return {name: in_float16(tensor) if name.endswith(WORDS) else tensor for name, tensor in tensors.items()}


def file_type(stored: Stored) -> dict[str, Any]:
    """What config.json says of the type that the model is computed in, where the file's tensors have several."""
    return {} if stored == "float32" else {"dtype": "float32"}


def _write_model(folder: Path, values: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    config_file.write_text(json.dumps(values, indent=2) + "\n")
    save_file(tensors, weights_file, metadata={"format": "pt"})
    shutil.copymode(config_file, weights_file)  # safetensors creates files that only their owner can read


def _put_in_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
        return
    for file in temporary.iterdir():
        file.replace(folder / file.name)


def _remove_tokenizer(folder: Path, kept: Container[str]) -> None:
    """Removes the tokenizer's files except for those that are replaced: one more would make it another tokenizer."""
    for file in files_there(folder):
        if file.name not in kept:
            file.unlink()


def _tokenizer_files(folder: Path) -> list[Path]:
    files = files_there(folder)
    if not files:
        raise WeightsError(
            f"{folder} has no tokenizer to copy; choose a folder with one of {', '.join(TOKENIZER_FILES)}"
        )
    return files


def tokenizer_fingerprint(folder: Path) -> str:
    """A SHA-256 of the tokenizer's files."""
    digest = hashlib.sha256()
    for file in _tokenizer_files(folder):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


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
    """The tensors of all files that an index names, each from the file where the index places it.

    Raises:
        WeightsError: the index is damaged, names a file outside of its folder, or does not fit the files.
    """
    try:
        places = read_object(index)["weight_map"]
        files = sorted({str(file) for file in places.values()})
    except (JsonError, KeyError, AttributeError) as error:
        raise WeightsError(f"{index} is damaged ({error}); copy or download it again") from error
    # The names are judged, not what they lead to: in the hub's cache, every file is a link to another folder.
    elsewhere = [
        file for file in files if file in ("..", ".") or file != Path(file).name or "\\" in file or "\0" in file
    ]
    if elsewhere:
        raise WeightsError(f"{index} names files that are not in its folder: {listed(elsewhere)}; download it again")
    absent = [file for file in files if not (index.parent / file).is_file()]
    if absent:
        raise WeightsError(f"{index} names files that are not there: {listed(absent)}; copy or download them")
    tensors: dict[str, np.ndarray] = {}
    for file in files:
        for name, tensor in _read_file(index.parent / file).items():
            if name in tensors or places.get(name, file) != file:
                raise WeightsError(
                    f"{index.parent / file} holds {name}, which the index places in {places.get(name)}; the files are "
                    "of different checkpoints; copy or download all of them again"
                )
            tensors[name] = tensor
    lost = [name for name in places if name not in tensors]
    if lost:
        raise WeightsError(f"{index} names tensors that no file holds: {listed(lost)}; download all files again")
    return tensors


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


def _new_heads(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> tuple[Head, ...]:
    """The heads to initialise, which the checkpoint lacks altogether. RoBERTa's pooler is part of its classifier."""
    heads: tuple[Head, ...] = ("pooler", "classifier")
    absent = tuple(h for h in heads if not any(parameter.name in tensors for parameter in _head(config, h)))
    return absent if "classifier" in absent else ()


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
