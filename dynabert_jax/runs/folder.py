"""The folder that a run writes: its configuration, logs and results.

config.json        the complete configuration
data/SPLIT.jsonl   the rows, if a program gave them (`given.py`)
answers.npz        the teacher's answers to dev, if it has no labels
importance.npz     the scores of heads and neurons
STAGE/last         the two newest orbax checkpoints of a stage, to resume from
STAGE/best         the one with the best mean dev score
training.jsonl     one line every few steps
evaluations.jsonl  one line for each sub-network and evaluation; the lines of the results are last
tensorboard/       the same for TensorBoard
model/             the final weights and tokenizer in Hugging Face's format
model.json         what they were made from, and a checksum of each file
results.json, results.md  the final table
latency.json       what `dynabert bench` has measured
"""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import filelock
import numpy as np

from dynabert_jax.config.complete import CompleteRun, resumed
from dynabert_jax.config.run import RunConfig
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.runs.files import RunFolderError, sealed, write_arrays, write_whole, writing
from dynabert_jax.runs.given import moved
from dynabert_jax.runs.logs import Line, Scalars, append_lines, is_of, keep_lines, read_lines, rows_of
from dynabert_jax.runs.older import read_config
from dynabert_jax.runs.origin import CHANGEABLE, Origin, changed_settings
from dynabert_jax.system.files import check_writable, expanded, file_checksum, remove
from dynabert_jax.system.json_file import JsonError, parse_object, read_object
from dynabert_jax.weights.rewire import Scores

AGAIN = "remove it, and the same command computes it again"


class RunFolder:
    """The files of one run. Small files are written atomically; logs grow by whole lines."""

    def __init__(self, path: str | Path):
        self.path = expanded(path)

    @classmethod
    def open(cls, config: RunConfig) -> "RunFolder":
        """The run's folder, new or existing. Nothing is written, so a run that is refused leaves no files.

        Raises:
            RunFolderError: it belongs to another configuration, is not a run folder, or cannot be written to.
        """
        folder = cls(Path(config.run_dir))
        try:
            check_writable(folder.path)
            begun, foreign = folder.config_file.exists(), folder._first_file()
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {folder.path}: {error}; set run_dir to another folder"
            ) from error
        if begun:
            folder._check_same(config)
        elif foreign:
            raise RunFolderError(
                f"{folder.path} is not a run folder: it holds {foreign} and no config.json; set run_dir to a new or "
                f"empty folder, or restore its config.json if it was lost"
            )
        return folder

    def resumed(self, config: RunConfig) -> RunConfig:
        """The configuration with what it leaves open taken from the run in this folder, if one has begun."""
        return resumed(config, self.config()) if self.config_file.exists() else config

    @contextlib.contextmanager
    def begun(self, config: CompleteRun) -> Iterator[None]:
        """Makes the folder, writes its configuration, and locks the folder for the `with` block.

        Raises:
            RunFolderError: the folder cannot be written, another process is training in it, or by now it belongs to
                another configuration.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            if self.config_file.exists():
                self._check_same(config)  # again: another run may have started here since `open`
            if not self.config_file.exists() or self.config() != config:
                write_whole(self.config_file, config.to_json())
            yield

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Locks the existing folder for a `with` block; raises RunFolderError as `begun` does."""
        return _locked(self.path)

    @classmethod
    def existing(cls, path: str | Path) -> "RunFolder":
        """The folder of a run that has started."""
        folder = cls(path)
        if not folder.config_file.is_file():
            raise RunFolderError(f"{path} is not a run folder: it has no config.json; name the run_dir of a run")
        folder._check_no_model()
        return folder

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def model_file(self) -> Path:
        """The record of what the model was made from."""
        return self.path / "model.json"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    @property
    def importance_file(self) -> Path:
        return self.path / "importance.npz"

    @property
    def answers_file(self) -> Path:
        return self.path / "answers.npz"

    def write_answers(self, answers: Mapping[str, np.ndarray], origin: Origin) -> None:
        """The teacher's answers `[n]` to dev splits, by name."""
        write_arrays(self.answers_file, {f"split_{name}": array for name, array in answers.items()} | _of(origin))

    def read_answers(self, origin: Origin) -> dict[str, np.ndarray]:
        """What `write_answers` wrote; raises RunFolderError as `read_importance` does."""
        arrays = _read_arrays(self.answers_file, origin)
        return {name.removeprefix("split_"): array for name, array in arrays.items() if name.startswith("split_")}

    def write_importance(self, scores: Scores, origin: Origin) -> None:
        named = {f"heads_{i}": np.asarray(values) for i, values in enumerate(scores.heads)}
        named |= {f"neurons_{i}": np.asarray(values) for i, values in enumerate(scores.neurons)}
        write_arrays(self.importance_file, named | _of(origin))

    def read_importance(self, origin: Origin) -> Scores:
        """The scores that `write_importance` wrote.

        Raises:
            RunFolderError: the file is missing, damaged, or of another origin. An older version recorded none.
        """
        arrays = _read_arrays(self.importance_file, origin)
        layers = range(sum(name.startswith("heads_") for name in arrays))
        try:
            return Scores(*(tuple(arrays[f"{kind}_{i}"] for i in layers) for kind in ("heads", "neurons")))
        except KeyError as error:
            raise RunFolderError(f"{self.importance_file} is damaged ({error}); {AGAIN}") from error

    def config(self) -> CompleteRun:
        """The run's configuration. Rows that are kept in the folder are named where they are now.

        Raises:
            RunFolderError: its file is damaged, was written by another version of this program, or is a model's.
        """
        self._check_no_model()
        try:
            return moved(read_config(read_object(self.config_file)), self.path)
        except (OSError, ValueError) as error:  # ConfigError is a ValueError
            raise RunFolderError(f"{self.config_file} cannot be read: {error}; name another run folder") from error

    def _check_no_model(self) -> None:
        """Raises RunFolderError, which says what to name instead, if the config.json is that of a model or an export.

        What else may be wrong with the file is found when it is read.
        """
        try:
            if "model_type" not in read_object(self.config_file):
                return
        except (OSError, JsonError):
            return
        above = RunFolder(self.path.absolute().parent)
        if self.path.absolute() == above.model and above.config_file.is_file():
            raise RunFolderError(f"{self.path} is the model of a run; name the run's folder, {above.path}")
        raise RunFolderError(
            f"{self.path} is a model or an export, and not a run: its config.json is in Hugging Face's format; name "
            "the run_dir of a run, or a new folder to train in"
        )

    def _first_file(self) -> str | None:
        """The first file name in the folder, or None. Hidden files do not count: file managers leave them."""
        there = self.path.iterdir() if self.path.exists() else ()
        return min((path.name for path in there if not path.name.startswith(".")), default=None)

    def _check_same(self, config: RunConfig) -> None:
        """Raises RunFolderError if fixed settings differ. run_dir may differ, because a folder can be moved.

        What the configuration leaves open does not differ: a run keeps the recipe that it began with.
        """
        stored = self.config()
        changed = list(changed_settings(stored, resumed(config, stored), free=("run_dir", *CHANGEABLE)))
        if changed:
            raise RunFolderError(
                f"the run folder {self.path} belongs to another configuration: {'; '.join(changed)}. Resume with the "
                f"old values "
                f"({', '.join(CHANGEABLE)} may change), or set run_dir to a new folder"
            )

    def write_model_record(self, origin: Origin) -> None:
        """Records what the files in the model's folder are."""
        files = {path.name: file_checksum(path) for path in sorted(self.model.iterdir()) if path.is_file()}
        write_whole(self.model_file, sealed(origin.record() | {"files": files}) + "\n")

    def append_training(self, line: Line) -> None:
        append_lines(self.path / "training.jsonl", [line])

    def append_evaluations(self, lines: Sequence[Line]) -> None:
        append_lines(self.path / "evaluations.jsonl", lines)

    def replace_evaluations(self, stage: str, lines: Sequence[Line]) -> None:
        """Replaces a stage's lines with new ones, at the end of the log."""
        keep_lines(self.path / "evaluations.jsonl", lambda line: line["stage"] != stage)
        self.append_evaluations(lines)

    def scalars(self, stage: str, step: int) -> "Scalars":
        """TensorBoard's log of a stage that resumes after this step."""
        return Scalars(self.path / "tensorboard" / stage, step)

    def evaluation(self, stage: str, step: int) -> list[Row]:
        """The rows that the log has of an evaluation."""
        lines = read_lines(self.path / "evaluations.jsonl")
        return rows_of(line for line in lines if line["stage"] == stage and line["step"] == step)

    def forget_evaluation(self, stage: str, step: int) -> None:
        """Drops the log lines of an evaluation that was not finished."""
        keep_lines(self.path / "evaluations.jsonl", lambda line: line["stage"] != stage or line["step"] != step)

    def take_logs(self, source: "RunFolder", stage: str, run: str | None) -> None:
        """Replaces a stage's log lines and TensorBoard's files by another run's, as if this one had written them."""
        for name in ("training.jsonl", "evaluations.jsonl"):
            taken = [line | {"run": run} for line in read_lines(source.path / name) if line["stage"] == stage]
            keep_lines(self.path / name, lambda line: line["stage"] != stage)
            append_lines(self.path / name, taken)
        here, there = self.path / "tensorboard" / stage, source.path / "tensorboard" / stage
        with writing(here):
            remove(here)
            if there.is_dir():
                shutil.copytree(there, here)

    def forget_after(self, stage: str, step: int, run: str | None) -> None:
        """Drops log lines of a stage that were written after the checkpoint it resumes from, or by another run."""
        for name in ("training.jsonl", "evaluations.jsonl"):
            keep_lines(
                self.path / name, lambda line: line["stage"] != stage or (line["step"] <= step and is_of(line, run))
            )


def is_run(path: Path) -> bool:
    """Whether the folder's config.json is a run's; a model's has a model_type."""
    try:
        values = read_object(path / "config.json")
    except (OSError, JsonError):
        return False
    return "run_dir" in values and "model_type" not in values


def _of(origin: Origin) -> dict[str, np.ndarray]:
    """What an .npz file is of, for `_read_arrays`."""
    return {"origin": np.array(json.dumps(origin.record()).encode())}


def _read_arrays(path: Path, origin: Origin) -> dict[str, np.ndarray]:
    """The arrays of an .npz file of a run, which is of this origin. An older version recorded none.

    Raises:
        RunFolderError: the file is missing, damaged, or of another origin.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            read = {name: arrays[name] for name in arrays.files}
            record = parse_object(read.pop("origin").item()) if "origin" in read else {}
    except FileNotFoundError:
        raise RunFolderError(
            f"{path} is missing; restore it, or run the training command again to compute it again"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{path} is damaged ({error}); {AGAIN}") from error
    origin.check(record, path, f"To keep it, restore what it belongs to; else {AGAIN}")
    return read


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder for the block. The system releases the lock however this process ends."""
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RunFolderError(
            f"another process is training or evaluating in {folder}; wait for it, stop it, or set run_dir to a new "
            f"folder"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder}: {error}; make it writable, or set run_dir to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
