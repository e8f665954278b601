"""The folder that a run writes: its configuration, logs and results.

config.json        the configuration, whole
importance.npz     the scores of heads and neurons
STAGE/last         the two newest orbax checkpoints of a stage, to resume from
STAGE/best         the one with the best mean dev score
training.jsonl     one line every few steps
evaluations.jsonl  one line for each sub-network and evaluation, the results' last
tensorboard/       the same for TensorBoard
model/             the final weights and tokenizer in Hugging Face's format
results.json, results.md  the final table
latency.json       what `dynabert bench` has measured
"""

import contextlib
import json
import logging
import os
import platform
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import filelock
import jax
import numpy as np
from flax.traverse_util import flatten_dict

from dynabert_jax import parallel
from dynabert_jax.config import RunConfig
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate import Row
from dynabert_jax.importance import Scores
from dynabert_jax.packages import PACKAGES, version
from dynabert_jax.paths import expanded, reason, whole

log = logging.getLogger(__name__)

Line = dict[str, Any]

# Settings that a run may go on with other values of: its results are the same, but for the order of sums.
CHANGEABLE = ("gradient_accumulation", "rematerialize", "data.eval_batch_size", "log_every", "checkpoint_every")


class RunFolderError(UserError, RuntimeError):
    """A run folder that cannot be used; the message says why and what to do."""


class RunFolder:
    """The files of one run. Small files are written whole or not at all; logs grow by whole lines."""

    def __init__(self, path: str | Path):
        self.path = expanded(path)

    @classmethod
    def open(cls, config: RunConfig) -> "RunFolder":
        """The run's folder, whether it has begun or not. Nothing is written: a run that is refused leaves nothing.

        Raises:
            RunFolderError: it belongs to another configuration or to no run, or cannot be written to.
        """
        folder = cls(Path(config.run_dir))
        try:
            check_writable(folder.path)
            begun, foreign = folder.config_file.exists(), folder._first_file()
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {folder.path}: {error}; set run_dir to another"
            ) from error
        if begun:
            folder._check_same(config)
        elif foreign:
            raise RunFolderError(
                f"{folder.path} is no run folder: it holds {foreign} and no config.json; set run_dir to a new or empty "
                f"folder, or bring its config.json back if it was lost"
            )
        return folder

    @contextlib.contextmanager
    def begun(self, config: RunConfig) -> Iterator[None]:
        """Makes the folder and writes the configuration that it goes on with; in the block, it is this process's alone.

        Raises:
            RunFolderError: the system refuses it, or another process works in it.
        """
        if not parallel.is_first():
            parallel.wait_for_all("the run folder is there")
            if not self.config_file.exists():
                raise RunFolderError(
                    f"{self.path} is not the folder of the first process; all need to see the same one"
                )
            yield
            return
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path):
            if not self.config_file.exists() or self.config() != config:
                write_whole(self.config_file, config.to_json())
            parallel.wait_for_all("the run folder is there")
            yield

    @classmethod
    def existing(cls, path: str | Path) -> "RunFolder":
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
        """What `write_importance` wrote.

        Raises:
            RunFolderError: the file is damaged.
        """
        try:
            with self.importance_file.open("rb") as file, np.load(file) as arrays:
                layers = range(len(arrays.files) // 2)
                return Scores(*(tuple(arrays[f"{kind}_{i}"] for i in layers) for kind in ("heads", "neurons")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RunFolderError(
                f"{self.importance_file} is damaged ({error}); remove it, and the same command makes it again"
            ) from error

    def config(self) -> RunConfig:
        """The run's configuration.

        Raises:
            RunFolderError: its file is damaged, or of another version of this program.
        """
        try:
            return RunConfig.from_json(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # a ConfigError is one, too
            raise RunFolderError(f"{self.config_file} cannot be read: {error}; name another run folder") from error

    def _first_file(self) -> str | None:
        """The name of some file in the folder; hidden ones, such as file managers leave, do not count."""
        there = self.path.iterdir() if self.path.exists() else ()
        return min((path.name for path in there if not path.name.startswith(".")), default=None)

    def _check_same(self, config: RunConfig) -> None:
        """The run_dir itself may be another: a folder can be moved."""
        old, new = (flatten_dict(json.loads(run.to_json()), sep=".") for run in (self.config(), config))
        fixed = sorted((old.keys() | new.keys()) - {"run_dir", *CHANGEABLE})
        changed = [key for key in fixed if old.get(key) != new.get(key)]
        if changed:
            shown = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in changed)
            raise RunFolderError(
                f"the run folder {self.path} belongs to another configuration: {shown}. Resume with the old values "
                f"({', '.join(CHANGEABLE)} may change), or set run_dir to a new folder"
            )

    def append_training(self, line: Line) -> None:
        _append(self.path / "training.jsonl", [line])

    def append_evaluations(self, lines: Sequence[Line]) -> None:
        _append(self.path / "evaluations.jsonl", lines)

    def replace_evaluations(self, stage: str, lines: Sequence[Line]) -> None:
        """Writes a stage's lines behind all others, and drops those that it has: the same is never told twice."""
        _keep(self.path / "evaluations.jsonl", lambda line: line["stage"] != stage)
        self.append_evaluations(lines)

    def scalars(self, stage: str, step: int) -> "Scalars":
        """TensorBoard's log of a stage that goes on behind this step."""
        return Scalars(self.path / "tensorboard" / stage, step)

    def count_evaluations(self, stage: str, step: int) -> int:
        """Lines that the log has of an evaluation."""
        lines = _read(self.path / "evaluations.jsonl")
        return sum(line["stage"] == stage and line["step"] == step for line in lines)

    def forget_evaluation(self, stage: str, step: int) -> None:
        """Drops the log lines of an evaluation that was not finished."""
        _keep(self.path / "evaluations.jsonl", lambda line: line["stage"] != stage or line["step"] != step)

    def forget_after(self, stage: str, step: int) -> None:
        """Drops log lines of a stage that were written after the checkpoint it resumes from."""
        for name in ("training.jsonl", "evaluations.jsonl"):
            _keep(self.path / name, lambda line: line["stage"] != stage or line["step"] <= step)


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def check_writable(path: Path) -> None:
    """Raises OSError where a folder cannot be made or written to."""
    nearest = nearest_existing(path)
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"{nearest} is read-only")


class Scalars:
    """A file of TensorBoard's, in a `with` block.

    tensorboardX's own SummaryWriter writes in a thread, and waits for it for ever once a full disk has ended it.

    Args:
        folder: of the stage.
        step: the last one that counts; TensorBoard drops what it has read of later ones.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.proto.event_pb2 import SessionLog  # slow to import, and needed only here

        self.path = folder / f"events.out.tfevents.{int(time.time())}.{step}"
        with _writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _writing(self.path):
            self._file.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name; a '/' in a name makes groups."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step=step, summary=scalar(name, value))
        with _writing(self.path):
            self._file.flush()

    def _write(self, **event: Any) -> None:
        """A record: the length of the event, and the event, each with a checksum behind it."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        def checked(part: bytes) -> bytes:
            return part + struct.pack("<I", masked_crc32c(part))

        data = Event(wall_time=time.time(), **event).SerializeToString()
        with _writing(self.path):
            self._file.write(checked(struct.pack("<Q", len(data))) + checked(data))


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
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def evaluation_lines(config: RunConfig, stage: str, step: int | None, rows: Sequence[Row]) -> list[Line]:
    """Rows as lines of the log; what a run ends with is of no step."""
    origin = provenance(config)
    return [{"stage": stage, "step": step, **row.model_dump(), **origin} for row in rows]


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with _writing(path), whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an .npz file whole or not at all."""
    with _writing(path), whole(path) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else has the folder in the block; the system lets go of it however this process ends."""
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RunFolderError(
            f"another process is training in {folder}; wait for it, stop it, or set run_dir to a new folder"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot write to {folder}: {error}; make it writable, or set run_dir to another"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the system refuses is the user's to cure."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {reason(error)}. Free some space, or make it writable; the same command then goes "
            f"on from the last checkpoint"
        ) from error


def _append(path: Path, lines: Sequence[Line]) -> None:
    with _writing(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def _keep(path: Path, wanted: Callable[[Line], bool]) -> None:
    """Drops the lines that are not wanted, and those that are damaged."""
    if path.exists():
        write_whole(path, "".join(json.dumps(line) + "\n" for line in _read(path) if wanted(line)))


def _read(path: Path) -> list[Line]:
    """The lines of a log that are whole; none where there is no log. A kill may leave the last one half written."""
    texts = path.read_bytes().splitlines() if path.exists() else []
    found = [_parsed(text) for text in texts]
    damaged = [number for number, line in enumerate(found[:-1], 1) if line is None]
    if damaged:
        log.warning("%s: lines %s are damaged and are dropped", path, ", ".join(map(str, damaged)))
    return [line for line in found if line is not None]


def _parsed(text: bytes) -> Line | None:
    """None where it is no line of a log of ours."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and {"stage", "step"} <= line.keys() else None
