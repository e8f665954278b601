"""The folder that a run writes: its configuration, logs and results.

config.json        the configuration, whole
importance.npz     the scores of heads and neurons
STAGE/last         the newest orbax checkpoint of a stage, to resume from
STAGE/best         the one with the best mean dev score
training.jsonl     one line every few steps
evaluations.jsonl  one line for each sub-network and evaluation
tensorboard/       the same for TensorBoard
model/             the final weights and tokenizer in Hugging Face's format
results.json, results.md  the final table
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dynabert_jax.config import RunConfig
from dynabert_jax.evaluate import Row
from dynabert_jax.importance import Importance

Line = dict[str, Any]


class RunFolderError(RuntimeError):
    """A run folder that cannot be used; the message says why and what to do."""


class RunFolder:
    """The files of one run. Small files are written whole or not at all; logs grow by whole lines."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def open(cls, config: RunConfig) -> "RunFolder":
        """Makes the folder, or comes back to it.

        Raises:
            RunFolderError: it belongs to another configuration, or cannot be written to.
        """
        folder = cls(Path(config.run_dir))
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            if folder.config_file.exists():
                folder._check_same(config)
            else:
                write_whole(folder.config_file, config.to_json())
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {folder.path}: {error}; set run_dir to another"
            ) from error
        return folder

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """A folder that a run has made."""
        folder = cls(path)
        if not folder.config_file.is_file():
            raise RunFolderError(f"{path} is no run folder: it has no config.json; name the run_dir of a run")
        return folder

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def importance_file(self) -> Path:
        return self.path / "importance.npz"

    def write_importance(self, scores: Importance) -> None:
        named = {f"heads_{i}": np.asarray(values) for i, values in enumerate(scores.heads)}
        named |= {f"neurons_{i}": np.asarray(values) for i, values in enumerate(scores.neurons)}
        write_arrays(self.importance_file, named)

    def read_importance(self) -> Importance:
        with np.load(self.importance_file) as file:
            layers = range(len(file.files) // 2)
            return Importance(tuple(file[f"heads_{i}"] for i in layers), tuple(file[f"neurons_{i}"] for i in layers))

    def config(self) -> RunConfig:
        return RunConfig.from_json(self.config_file.read_text())

    def _check_same(self, config: RunConfig) -> None:
        """The run_dir itself may be another: a folder can be moved."""
        old, new = (_flat(json.loads(text)) for text in (self.config_file.read_text(), config.to_json()))
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key) and key != "run_dir"]
        if changed:
            shown = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in changed)
            raise RunFolderError(
                f"the run folder {self.path} belongs to another configuration: {shown}. Resume with the old values, "
                f"or set run_dir to a new folder"
            )

    def append_training(self, line: Line) -> None:
        _append(self.path / "training.jsonl", [line])

    def append_evaluations(self, lines: Sequence[Line]) -> None:
        _append(self.path / "evaluations.jsonl", lines)

    def forget_after(self, stage: str, step: int) -> None:
        """Drops log lines of a stage that were written after the checkpoint it resumes from."""
        for name in ("training.jsonl", "evaluations.jsonl"):
            _keep(self.path / name, lambda line: line["stage"] != stage or line["step"] <= step)


def provenance(config: RunConfig) -> Line:
    """Where numbers come from: seed, versions, device, time."""
    device = jax.local_devices()[0]
    return {
        "seed": config.seed,
        "dtype": config.dtype,
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.local_device_count(),
        "cpus": os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def evaluation_lines(config: RunConfig, stage: str, step: int, rows: Sequence[Row]) -> list[Line]:
    """Rows as lines of the log."""
    origin = provenance(config)
    return [{"stage": stage, "step": step, **row.model_dump(), **origin} for row in rows]


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file whole or not at all."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.npz")
    try:
        np.savez(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _append(path: Path, lines: Sequence[Line]) -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def _keep(path: Path, wanted: Callable[[Line], bool]) -> None:
    """Drops the lines that are not wanted, and one that a kill left half written."""
    if not path.exists():
        return
    kept = [text for text in path.read_text().splitlines() if (line := _parsed(text)) is not None and wanted(line)]
    write_whole(path, "".join(text + "\n" for text in kept))


def _parsed(text: str) -> Line | None:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _flat(values: Line, prefix: str = "") -> Line:
    """{'a': {'b': 1}} to {'a.b': 1}."""
    flat: Line = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
