"""Opens the network that predicts: a sub-network of a run, a model, or an export.

Letters in shapes: B texts per batch, S tokens, C labels.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.data.batches import Inputs
from dynabert_jax.data.tokenizer import Tokenizer, load_tokenizer
from dynabert_jax.errors import UserError
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.folder import truncation_of
from dynabert_jax.export.formats import FORMATS
from dynabert_jax.export.manifest import Manifest, check_files, read_manifest
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.in_onnxruntime import FLOAT, INT8, open_file
from dynabert_jax.infer.in_stablehlo import open_program
from dynabert_jax.infer.run_stablehlo import ENDING, WEIGHTS, ProgramError, read_longest
from dynabert_jax.infer.runner import Answers, Runner
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import is_run
from dynabert_jax.system.files import expanded, first_line
from dynabert_jax.system.memory import is_out_of_memory
from dynabert_jax.system.packages import require
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.hub import find_model

LENGTHS = (16, 32, 64, 128, 256, 512)  # of a model without a run, up to its number of positions


class PredictError(UserError, ValueError):
    """Input that cannot be predicted; the message says what was given, what is allowed and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """One network that is ready to run.

    Attributes:
        name: what it is, for messages.
        config: its labels, vocabulary and positions. For StableHLO, of the model that the program was cut from.
        tokenizer: turns texts into tokens.
        lengths: padded lengths in tokens, shortest first; longer texts are truncated.
        text_columns: the names of the run's text columns, one or two; empty without a run.
        runner: runs batches.
    """

    name: str
    config: ModelConfig
    tokenizer: Tokenizer
    lengths: tuple[int, ...]
    text_columns: tuple[str, ...]
    runner: Runner


def open_network(path: str | Path, sub: str | None = None) -> Network:
    """Opens a network.

    Args:
        path: a finished run, the folder of an export, or a fine-tuned model (a folder, or a name on the hub).
        sub: the sub-network of a run or of a StableHLO export. None: the run's largest, or the export's only one.

    Raises:
        PredictError: there is no such sub-network, or the model has no classifier.
        ExportError: the export is damaged.
        MissingPackageError: a package that runs it is not installed.
        RunFolderError, ModelNotFoundError, ConfigError, WeightsError, DataError: the run or the model cannot be read.
    """
    if sub is not None and not isinstance(sub, str):
        raise PredictError(f"a sub-network is named by a string, such as 'w0.5_d0.5'; got {sub!r}")
    if is_run(expanded(path)):
        return _open_run(expanded(path), sub)
    folder = find_model(path)
    manifest = read_manifest(folder)
    if manifest is not None:
        check_files(folder, manifest)
    format = _format_without_manifest(folder) if manifest is None else _known_format(folder, manifest)
    if format == "stablehlo":
        return _open_stablehlo(folder, manifest, sub)
    if sub is not None:
        raise PredictError(
            f"{path} is a single network, not a run, so it has no sub-network {sub!r}; name the run's folder, or leave "
            "the sub-network out"
        )
    return _open_onnx(folder, manifest) if format == "onnx" else _open_model(path, folder, manifest)


def _known_format(folder: Path, manifest: Manifest) -> str:
    if manifest.format not in FORMATS:
        raise ExportError(
            f"{folder} was exported by {manifest.written_by} in the format {manifest.format!r}; this version reads "
            f"{', '.join(FORMATS)}; install {manifest.written_by}"
        )
    return manifest.format


def _format_without_manifest(folder: Path) -> str:
    """The format of an older export, by its files; empty for a model."""
    if (folder / WEIGHTS).exists() or any(folder.glob(f"*{ENDING}")):
        return "stablehlo"
    return "onnx" if (folder / FLOAT).exists() or (folder / INT8).exists() else ""


# Runs and models, in jax


def _open_run(path: Path, name: str | None) -> Network:
    run = read_finished(path)
    sub = run.subs[0] if name is None else run.sub(name)
    model, data = run.model, run.config.data
    return Network(
        name=f"sub-network {sub.name}",
        config=model.config,
        tokenizer=load_tokenizer(model.folder, model.config),
        lengths=data.lengths,
        text_columns=data.task.text_columns,
        runner=in_jax.open_model(model.cut(sub), run.config.dtype),
    )


def _open_model(path: str | Path, folder: Path, manifest: Manifest | None) -> Network:
    """A model in Hugging Face's format, from another program or from one of three export formats."""
    model = load_model(folder)
    if model.new:
        other = f" (it has heads of other tasks: {', '.join(model.left_out)})" if model.left_out else ""
        raise PredictError(
            f"{path} has no {' and no '.join(model.new)}{other}, so its answers would be random; fine-tune it first, "
            "then name the folder of that run"
        )
    return _alone(folder, manifest, model.config, in_jax.open_model(model))


def _alone(folder: Path, manifest: Manifest | None, config: ModelConfig, runner: Runner) -> Network:
    """The network of a folder without a run."""
    if manifest is not None and (manifest.labels, manifest.head) != (config.labels, config.head):
        raise ExportError(
            f"{folder}: manifest.json has the labels {', '.join(manifest.labels)} and config.json has "
            f"{', '.join(config.labels)}; export it again"
        )
    tokenizer = load_tokenizer(folder, config)
    name, lengths = f"the network in {folder}", _lengths(folder, manifest, config, tokenizer)
    return Network(name, config, tokenizer, lengths, () if manifest is None else manifest.text_columns, runner)


def _lengths(folder: Path, manifest: Manifest | None, config: ModelConfig, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The run's lengths, from the manifest. Without one, usual lengths up to the limit of model and tokenizer."""
    if manifest is not None:
        return manifest.lengths
    longest = min(LENGTHS[-1], config.max_length, tokenizer.base.model_max_length, truncation_of(folder))
    return (*(length for length in LENGTHS if length < longest), longest)


# Exports that run outside of this package


def _open_onnx(folder: Path, manifest: Manifest | None) -> Network:
    """The export in ONNX Runtime. Only model.onnx is used, because model_int8.onnx gives other answers than the run."""
    require(("onnxruntime",), f"predicting from {folder / FLOAT}", FORMATS["onnx"].extra)
    config = _read_config(folder)
    if not (folder / FLOAT).exists():
        raise ExportError(f"{folder / FLOAT} does not exist, and {INT8} is not used instead; export it again")
    with _damage_reported(folder / FLOAT):
        runner = open_file(folder / FLOAT, config.num_layers)
    return _alone(folder, manifest, config, _guarded(folder / FLOAT, config, runner))


def _open_stablehlo(folder: Path, manifest: Manifest | None, name: str | None) -> Network:
    """One program of the export, on the first device."""
    config, name = _read_config(folder), _program_name(folder, name)
    file = folder / f"{name}{ENDING}"
    with _damage_reported(folder / WEIGHTS):
        read_longest(folder)
    with _damage_reported(file):
        runner = open_program(folder, name)
    return _alone(folder, manifest, config, _guarded(file, config, runner))


def _program_name(folder: Path, wanted: str | None) -> str:
    """The wanted sub-network, or the only one."""
    there = sorted(path.name.removesuffix(ENDING) for path in folder.glob(f"*{ENDING}"))
    if wanted is None and len(there) == 1:
        return there[0]
    if not there:
        raise ExportError(f"{folder} is incomplete: it has weights, but no *{ENDING}; export it again")
    if wanted is None:
        raise PredictError(f"{folder} holds several sub-networks; name one with --sub: {', '.join(there)}")
    if wanted not in there:
        raise PredictError(f"{folder} holds no sub-network {wanted!r}; it holds {', '.join(there)}")
    return wanted


def _read_config(folder: Path) -> ModelConfig:
    try:
        return ModelConfig.read(folder / "config.json")
    except (OSError, ConfigError) as error:
        raise ExportError(f"{error}; export it again") from error


def _guarded(file: Path, config: ModelConfig, runner: Runner) -> Runner:
    """Checks every answer: some damage shows only at run time, and config.json may belong to another network."""

    def answer(inputs: Inputs) -> Answers:
        with _damage_reported(file):
            answers = runner(inputs)
            if answers.logits.shape != (inputs.shape[0], config.num_labels):
                raise ValueError(
                    f"its answers have the shape {answers.logits.shape}, but config.json has {config.num_labels} labels"
                )
            return answers

    return dataclasses.replace(runner, answer=answer)


@contextlib.contextmanager
def _damage_reported(file: Path) -> Iterator[None]:
    """Turns any error into an ExportError: readers of damaged files raise errors of many types."""
    try:
        yield
    except ProgramError as error:
        raise ExportError(str(error)) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ExportError(
            f"{file} is damaged or not complete ({first_line(error)}); copy it again, or export it again"
        ) from error
