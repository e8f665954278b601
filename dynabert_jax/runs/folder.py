"""The folder that a run writes: its configuration, logs and results.

config.json        the complete configuration
importance.npz     the scores of heads and neurons
STAGE/last         the two newest orbax checkpoints of a stage, to resume from
STAGE/best         the one with the best mean dev score
training.jsonl     one line every few steps
evaluations.jsonl  one line for each sub-network and evaluation; the lines of the results are last
tensorboard/       the same for TensorBoard
model/             the final weights and tokenizer in Hugging Face's format
results.json, results.md  the final table
latency.json       what `dynabert bench` has measured
"""

import contextlib
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from dynabert_jax.config.run import RunConfig
from dynabert_jax.runs.files import RunFolderError, write_arrays, write_whole, writing
from dynabert_jax.runs.logs import Line, Scalars, append_lines, keep_lines, read_lines
from dynabert_jax.system.files import check_writable, expanded
from dynabert_jax.weights.rewire import Scores

# Settings that may change when a run resumes: results stay the same except for the order of sums.
CHANGEABLE = ("gradient_accumulation", "rematerialize", "data.eval_batch_size", "log_every", "checkpoint_every")


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

    @contextlib.contextmanager
    def begun(self, config: RunConfig) -> Iterator[None]:
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

    @classmethod
    def existing(cls, path: str | Path) -> "RunFolder":
        """The folder of a run that has started."""
        folder = cls(path)
        if not folder.config_file.is_file():
            raise RunFolderError(f"{path} is not a run folder: it has no config.json; name the run_dir of a run")
        return folder

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def results_file(self) -> Path:
        return self.path / "results.json"

    @property
    def importance_file(self) -> Path:
        return self.path / "importance.npz"

    def write_importance(self, scores: Scores) -> None:
        named = {f"heads_{i}": np.asarray(values) for i, values in enumerate(scores.heads)}
        named |= {f"neurons_{i}": np.asarray(values) for i, values in enumerate(scores.neurons)}
        write_arrays(self.importance_file, named)

    def read_importance(self) -> Scores:
        """The scores that `write_importance` wrote.

        Raises:
            RunFolderError: the file is damaged.
        """
        try:
            with self.importance_file.open("rb") as file, np.load(file) as arrays:
                layers = range(len(arrays.files) // 2)
                return Scores(*(tuple(arrays[f"{kind}_{i}"] for i in layers) for kind in ("heads", "neurons")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunFolderError(
                f"{self.importance_file} is damaged ({error}); remove it, and the same command computes it again"
            ) from error

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            RunFolderError: its file is damaged, or was written by another version of this program.
        """
        try:
            return RunConfig.from_json(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # ConfigError is a ValueError
            raise RunFolderError(f"{self.config_file} cannot be read: {error}; name another run folder") from error

    def _first_file(self) -> str | None:
        """The first file name in the folder, or None. Hidden files do not count: file managers leave them."""
        there = self.path.iterdir() if self.path.exists() else ()
        return min((path.name for path in there if not path.name.startswith(".")), default=None)

    def _check_same(self, config: RunConfig) -> None:
        """Raises RunFolderError if fixed settings differ. run_dir may differ, because a folder can be moved."""
        old, new = (dict(_flat(json.loads(run.to_json()))) for run in (self.config(), config))
        fixed = sorted((old.keys() | new.keys()) - {"run_dir", *CHANGEABLE})
        changed = [key for key in fixed if old.get(key) != new.get(key)]
        if changed:
            shown = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in changed)
            raise RunFolderError(
                f"the run folder {self.path} belongs to another configuration: {shown}. Resume with the old values "
                f"({', '.join(CHANGEABLE)} may change), or set run_dir to a new folder"
            )

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

    def count_evaluations(self, stage: str, step: int) -> int:
        """The number of lines that the log has of an evaluation."""
        lines = read_lines(self.path / "evaluations.jsonl")
        return sum(line["stage"] == stage and line["step"] == step for line in lines)

    def forget_evaluation(self, stage: str, step: int) -> None:
        """Drops the log lines of an evaluation that was not finished."""
        keep_lines(self.path / "evaluations.jsonl", lambda line: line["stage"] != stage or line["step"] != step)

    def forget_after(self, stage: str, step: int) -> None:
        """Drops log lines of a stage that were written after the checkpoint it resumes from."""
        for name in ("training.jsonl", "evaluations.jsonl"):
            keep_lines(self.path / name, lambda line: line["stage"] != stage or line["step"] <= step)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested tables, such as `("data.batch_size", 32)`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder for the block. The system releases the lock however this process ends."""
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RunFolderError(
            f"another process is training in {folder}; wait for it, stop it, or set run_dir to a new folder"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder}: {error}; make it writable, or set run_dir to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
