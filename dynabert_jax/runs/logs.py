"""The logs of a run: JSON lines and TensorBoard's files, with the provenance of the numbers."""

import contextlib
import json
import logging
import os
import platform
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.runs.files import RunFolderError, write_whole, writing
from dynabert_jax.system.files import reason
from dynabert_jax.system.json_file import JsonError, parse_object
from dynabert_jax.system.packages import PACKAGES, version

log = logging.getLogger(__name__)

Line = dict[str, Any]
RESULTS = "results"  # in the place of a stage: the final results, which have no step


class Scalars:
    """Writes a TensorBoard file; use in a `with` block.

    tensorboardX's own SummaryWriter writes in a thread, and waits forever for that thread after a full disk ended it.

    Args:
        folder: of the stage.
        step: the last one that counts; TensorBoard drops what it has read about later ones.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.proto.event_pb2 import SessionLog  # slow to import, and needed only here

        self.path = folder / f"events.out.tfevents.{int(time.time())}.{step}"
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with writing(self.path):
            self._file.close()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values by name; a '/' in a name makes groups."""
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step=step, summary=scalar(name, value))
        with writing(self.path):
            self._file.flush()

    def _write(self, **event: Any) -> None:
        """Writes a record: the length of the event, then the event, each followed by a checksum."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        def checked(part: bytes) -> bytes:
            return part + struct.pack("<I", masked_crc32c(part))

        data = Event(wall_time=time.time(), **event).SerializeToString()
        with writing(self.path):
            self._file.write(checked(struct.pack("<Q", len(data))) + checked(data))


def provenance(config: CompleteRun) -> Line:
    """The provenance of numbers: seed, versions, device, time."""
    import jax  # only here, because reading logs needs no jax

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


def evaluation_lines(config: CompleteRun, stage: str, step: int | None, rows: Sequence[Row]) -> list[Line]:
    """Rows as lines of the log; the final results of a run have no step."""
    origin = provenance(config)
    return [{"stage": stage, "step": step, **row.model_dump(), **origin} for row in rows]


def append_lines(path: Path, lines: Sequence[Line]) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def keep_lines(path: Path, wanted: Callable[[Line], bool]) -> None:
    """Drops unwanted and damaged lines."""
    if path.exists():
        write_whole(path, "".join(json.dumps(line) + "\n" for line in read_lines(path) if wanted(line)))


def read_lines(path: Path) -> list[Line]:
    """The intact lines of a log; none if there is no log. A kill may leave the last line incomplete.

    Raises:
        RunFolderError: it cannot be read.
    """
    try:
        texts = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({reason(error)}); restore it, or move it away") from error
    found = [_parsed(text) for text in texts]
    damaged = [number for number, line in enumerate(found[:-1], 1) if line is None]
    if damaged:
        log.warning("%s: lines %s are damaged and are dropped", path, ", ".join(map(str, damaged)))
    return [line for line in found if line is not None]


def rows_of(lines: Iterable[Line]) -> list[Row]:
    """The rows in lines of evaluations; lines that hold none are left out."""
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):  # ConfigError is one
            rows.append(Row.from_values({name: line[name] for name in Row.model_fields if name in line}))
    return rows


def _parsed(text: bytes) -> Line | None:
    """The parsed line, or None if it is not a line of our logs."""
    try:
        line = parse_object(text)
    except JsonError:
        return None
    stage, step = line.get("stage"), line.get("step")
    of_a_stage = isinstance(stage, str) and type(step) is int and 0 <= step < 2**63
    return line if of_a_stage or (stage == RESULTS and step is None) else None


def is_of(line: Line, run: str | None) -> bool:
    """Whether a stage of this run wrote the line. Older versions did not say; None: it is not known of the run."""
    return run is None or line.get("run", run) == run
