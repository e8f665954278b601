"""Runs that are disturbed at random: killed, stopped, damaged, mixed up. They must end as if they never were.

    python -m tests.faults --faults 200 --seed 0

Every chain starts one small run of all four stages again and again, with one fault a start, until it ends by itself.
Then its logs, checkpoints and weights must be, bit for bit, those of a run that nothing disturbed.
"""

import collections
import dataclasses
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tyro

import conftest  # noqa: F401  (sets how jax compiles here, before it is imported)
import same_runs
import tiny_run
from dynabert_jax.cli.train import main as train_main
from dynabert_jax.config import RunConfig

# What a run imports when it needs it; imported here, it is there in every process that is forked off.
IMPORTED_LATE = ("datasets", "safetensors.numpy", "sklearn.metrics", "tensorboardX.summary", "transformers")
STAGES = ("fine_tune", "width", "depth", "final")
CRASHED = 70  # what a process ends with that something unforeseen has ended
FULL_DISK = (4_000, 60_000)  # bytes beyond which no file can be written: of this range; the log fits in the least


class FaultError(AssertionError):
    """A run that did not stand a fault."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many faults, and which."""

    faults: int = 200
    """faults in all; the chain that the last one is in still ends"""
    seed: int = 0
    """of everything random"""


def main(settings: Settings) -> collections.Counter[str]:
    """Chains of faults until there are enough; counts them by kind and by stage."""
    for module in IMPORTED_LATE:
        importlib.import_module(module)
    draw = random.Random(settings.seed)
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="dynabert-faults-") as name:
        bench = Bench(Path(name))
        print(f"a run that nothing disturbs takes {bench.seconds:.1f} s")
        chains = 0
        while counts["faults"] < settings.faults:
            chains += 1
            counts += chain(bench, draw, chains)
    print(f"{counts['faults']} faults in {chains} chains, every one of which ended like the undisturbed run:")
    print("  " + ", ".join(f"{kind} {counts[kind]}" for kind in FAULTS))
    print("  " + ", ".join(f"in {stage} {counts[stage]}" for stage in ("before", *STAGES, "behind")))
    return counts


class Bench:
    """A run that nothing disturbed, and how to start others like it, which use what it has compiled.

    Attributes:
        foreign: a run of another seed, whose files belong to no other.
        seconds: that a run takes.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.materials = tiny_run.write_materials(folder / "materials")
        self.whole, self.foreign = self.config("whole"), self.config("foreign").replace(seed=7)
        finish(self.start(self.foreign), self.log)
        for _ in range(2):  # the first one compiles
            shutil.rmtree(self.whole.run_dir, ignore_errors=True)
            start = time.monotonic()
            finish(self.start(self.whole), self.log)
            self.seconds = time.monotonic() - start

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def config(self, name: str) -> RunConfig:
        return self.materials.few_students(self.folder / name, checkpoint_every=2)

    def start(self, config: RunConfig, limit: int = resource.RLIM_INFINITY, log: Path | None = None) -> int:
        """The number of a process that trains, and can write no file beyond so many bytes."""
        log = log or self.log
        file = tiny_run.write_config(log.with_name(f"{log.stem}_config.py"), config)
        return apart(lambda: self.train(file, limit), log)

    def compare(self, config: RunConfig) -> None:
        """Raises FaultError where a run has not ended like the undisturbed one."""
        finish(apart(lambda: same_runs.assert_same_runs(self.whole, config), self.log), self.log)

    def train(self, file: Path, limit: int) -> int:
        import jax

        for name, value in tiny_run.cache_settings(self.folder / "programs").items():
            jax.config.update(name.lower(), value)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        return train_main([str(file)])


def apart(work: Callable[[], int | None], log: Path) -> int:
    """The number of a process that does the work, writes to the log, and ends with the work's exit code.

    It is forked off: this process has imported everything, and started nothing of jax.
    """
    process = os.fork()
    if process:
        return process
    code = CRASHED
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def chain(bench: Bench, draw: random.Random, number: int) -> collections.Counter[str]:
    """One run, with a fault at every start, until one of them comes too late."""
    config = bench.config(f"chain{number}")
    counts: collections.Counter[str] = collections.Counter()
    while True:
        kind = draw.choice(list(FAULTS))
        did = FAULTS[kind](bench, config, draw)
        if did is None:
            break
        stage = stage_of(Path(config.run_dir))
        counts.update(("faults", did, stage))
        print(f"chain {number}, fault {counts['faults']}: {did} in stage {stage}", flush=True)
    bench.compare(config)
    shutil.rmtree(config.run_dir)
    return counts


def stage_of(run: Path) -> str:
    """The last one that has begun."""
    if (run / "results.json").exists():
        return "behind"
    return next((stage for stage in reversed(STAGES) if (run / stage).exists()), "before")


# Faults: each starts the run, disturbs it, and names what it did; None where the run had ended before.


def kill(bench: Bench, config: RunConfig, draw: random.Random) -> str | None:
    """No process can answer this signal."""
    return "kill" if end_by(signal.SIGKILL, bench, config, draw) == -signal.SIGKILL else None


def terminate(bench: Bench, config: RunConfig, draw: random.Random) -> str | None:
    """As clusters do; the process saves, and says so."""
    code = end_by(signal.SIGTERM, bench, config, draw)
    if code not in (0, 128 + signal.SIGTERM, -signal.SIGTERM):  # the last: before it had begun to listen
        raise FaultError(f"SIGTERM ended in {code}: {bench.log.read_text()}")
    return "terminate" if code else None


def interrupt(bench: Bench, config: RunConfig, draw: random.Random) -> str | None:
    """Ctrl-C; before and after the process listens, Python's own KeyboardInterrupt comes."""
    code = end_by(signal.SIGINT, bench, config, draw)
    printed = bench.log.read_text()
    if code not in (0, 128 + signal.SIGINT) and not (code == CRASHED and "in train_stage" not in printed):
        raise FaultError(f"Ctrl-C ended in {code}: {printed}")
    return "interrupt" if code else None


def damage(bench: Bench, config: RunConfig, draw: random.Random) -> str | None:
    """A kill, and then a file of the newest checkpoint is cut off, changed or lost, where there is one before it."""
    if not kill(bench, config, draw):
        return None
    stage = Path(config.run_dir) / stage_of(Path(config.run_dir)) / "last"
    steps = sorted(int(path.name) for path in stage.glob("*") if path.name.isdecimal())
    if len(steps) < 2:
        return "kill"
    files = sorted(path for item in ("tree", "record") for path in (stage / str(steps[-1]) / item).rglob("*"))
    file = draw.choice([path for path in files if path.is_file() and path.stat().st_size])
    draw.choice([flip_a_bit, cut_off, remove])(file, draw)
    return "damage"


def misplace(bench: Bench, config: RunConfig, draw: random.Random) -> str | None:
    """A kill, and then a part of the run is lost, of another place, or of another run.

    The run refuses it in plain words, and goes on once the part is back; or it makes the part again.
    """
    if not kill(bench, config, draw):
        return None
    run, foreign, kept = Path(config.run_dir), Path(bench.foreign.run_dir), bench.folder / "kept"
    parts = [part for part in misplaceable(run) if (run / part).exists()]
    if not parts:
        return "kill"
    shutil.copytree(run, kept)
    part = draw.choice(parts)
    source = draw.choice([foreign / part, *(run / other for other in parts if alike(part, other))])
    delete(run / part)
    if draw.random() < 0.8:
        copy(kept / source.relative_to(run) if source.is_relative_to(run) else source, run / part)
    code = os.waitstatus_to_exitcode(os.waitpid(bench.start(config), 0)[1])
    printed = bench.log.read_text()
    if code and (code != 2 or "error: " not in printed or "Traceback" in printed):
        raise FaultError(f"{part}, lost or from {source}, ended in {code}: {printed}")
    if code:
        delete(run)
        kept.rename(run)
    else:
        delete(kept)
    return "misplace"


def misplaceable(run: Path) -> list[str]:
    """The parts of a run that are read again. Of a stage that is lost, the log would be written in another order."""
    begun = [stage for stage in STAGES if (run / stage).exists()]
    return [*(f"{stage}/{part}" for stage in begun[-1:] for part in ("last", "best")), "importance.npz"]


def alike(part: str, other: str) -> bool:
    return part != other and "/" in part and "/" in other


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def start_twice(bench: Bench, config: RunConfig, _: random.Random) -> str | None:
    """The same command at once in two processes: one trains, and the other says so."""
    logs = [bench.folder / f"log{number}.txt" for number in range(2)]
    processes = [bench.start(config, log=log) for log in logs]
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    printed = [log.read_text() for log in logs]
    refused = [text for code, text in zip(codes, printed, strict=True) if code]
    if sorted(codes) not in ([0, 0], [0, 2]) or any("another process is training" not in text for text in refused):
        raise FaultError(f"two processes at once ended in {codes}: {printed}")
    return "twice" if refused else None


def fill_the_disk(bench: Bench, config: RunConfig, draw: random.Random) -> str | None:
    """The process can write nothing but small files, which a full disk is like, and must say so in plain words."""
    process = bench.start(config, limit=draw.randrange(*FULL_DISK))
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    printed = bench.log.read_text()
    if code and (code != 2 or "error: cannot write" not in printed or "Traceback" in printed):
        raise FaultError(f"a full disk ended in {code}: {printed}")
    return "full disk" if code else None


FAULTS: dict[str, Callable[[Bench, RunConfig, random.Random], str | None]] = {
    "kill": kill,
    "terminate": terminate,
    "interrupt": interrupt,
    "damage": damage,
    "full disk": fill_the_disk,
    "misplace": misplace,
    "twice": start_twice,
}


def end_by(number: int, bench: Bench, config: RunConfig, draw: random.Random) -> int:
    """The exit code of a process that gets a signal at a random moment."""
    moment = time.monotonic() + draw.uniform(0.0, bench.seconds)
    process = bench.start(config)
    while time.monotonic() < moment:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return checked(os.waitstatus_to_exitcode(status), bench.log)
        time.sleep(0.005)
    os.kill(process, number)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return code if code < 0 or code >= 128 else checked(code, bench.log)


def finish(process: int, log: Path) -> None:
    checked(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), log)


def checked(code: int, log: Path) -> int:
    if code:
        raise FaultError(f"an undisturbed run ended in {code}: {log.read_text()}")
    return code


def flip_a_bit(file: Path, draw: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def cut_off(file: Path, draw: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def remove(file: Path, _: random.Random) -> None:
    file.unlink()


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
