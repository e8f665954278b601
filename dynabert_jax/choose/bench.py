"""Times the sub-networks of a finished run on this device: a run -> its latency card.

The sub-networks take turns. Every round reverses the order, so that a machine that slows down slows all of them down.
"""

import dataclasses
import functools
import json
import math
import platform
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pydantic

from dynabert_jax import cost
from dynabert_jax.choose.audit import CLEARLY_LESS, Shortfall, audit
from dynabert_jax.choose.backends import BACKENDS, BackendName, find_backend
from dynabert_jax.config.checked import AtLeastOne, Checked, Dtype
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.data.batches import Inputs
from dynabert_jax.evaluate.table import markdown
from dynabert_jax.infer.runner import Runner
from dynabert_jax.model.params import Model
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.latency_card import Card, LatencyError, Measurement, Origin, add_to_card, read_card
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.devices import local, threads
from dynabert_jax.system.files import check_writable, expanded
from dynabert_jax.system.packages import version
from dynabert_jax.system.progress import progress

WARM_UP = 3  # untimed calls before the first timed one
FEWEST = 6  # rounds for an interval: all n ratios are on one side of the true median with probability 2^(1 - n)
PACKAGES = ("dynabert_jax", "jax", "jaxlib", "flax", "numpy")  # versions that times may depend on
MEMORY = (
    "jax: arguments (weights included), results and temporaries of the compiled program, as planned by the compiler; "
    "other backends report none"
)

Case = TypeVar("Case", bound=Hashable)


class BenchSettings(Checked):
    """What is measured, and how often. Several values are a tuple or a list.

    Attributes:
        subs: names of sub-networks; empty: all. The full network is always measured, too.
        batches: sentences per batch.
        lengths: tokens per sentence; empty: the run's longest length.
        dtypes: dtypes of the matmuls, for backends that have several; empty: the dtype of the run's training.
        backends: names from `BACKENDS`. A backend with a single dtype is measured in that one.
        rounds: how often everything is timed; fewer than 6 give no interval.
    """

    subs: tuple[str, ...] = ()
    batches: Annotated[tuple[AtLeastOne, ...], pydantic.Field(min_length=1)] = (1,)
    lengths: tuple[AtLeastOne, ...] = ()
    dtypes: tuple[Dtype, ...] = ()
    backends: Annotated[tuple[BackendName, ...], pydantic.Field(min_length=1)] = ("jax",)
    rounds: AtLeastOne = 20

    @pydantic.field_validator("subs", "batches", "lengths", "dtypes", "backends", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True)
class Benched:
    """What was measured.

    Attributes:
        card: the new rows, with where and when they were measured.
        file: the card with these rows and those measured before.
        slow: the sizes that gain clearly less than their FLOPs promise.
    """

    card: Card
    file: Path
    slow: tuple[Shortfall, ...]

    @property
    def origin(self) -> Origin:
        return self.card.origins[0]

    @property
    def rows(self) -> tuple[Measurement, ...]:
        return self.card.rows

    def __str__(self) -> str:
        """The rows as a table, and the sizes that gain clearly less than their FLOPs promise."""
        origin = self.origin
        versions = ", ".join(f"{package} {number}" for package, number in origin.versions.items())
        parts = [f"{origin.device}, {origin.platform}, {origin.threads} threads; {versions}", table(self.rows)]
        if self.slow:
            parts.append(
                f"Less than {100 * CLEARLY_LESS:.0f} % of the speed-up that their FLOPs promise, beyond noise:"
            )
        for cause in dict.fromkeys(one.cause for one in self.slow):
            sizes = "\n".join(f"- {one}" for one in self.slow if one.cause == cause)
            parts.append(f"Likely cause: {cause}\n{sizes}")
        return "\n\n".join([*parts, f"written to {self.file}"])

    def to_json(self) -> str:
        """The same for programs."""
        values = {
            "card": str(self.file),
            "origin": self.origin.model_dump(),
            "rows": [row.model_dump() | {"examples_per_second": row.examples_per_second} for row in self.rows],
            "less_than_promised": [
                {"sub": one.row.sub, "backend": one.row.backend, "dtype": one.row.dtype, "batch": one.row.batch,
                 "length": one.row.length, "fixed_ms": one.fixed_ms, "cause": one.cause}
                for one in self.slow
            ],
        }  # fmt: skip
        return json.dumps(values, indent=2)


def bench_run(path: str | Path, settings: BenchSettings, out: str | Path | None = None) -> Benched:
    """Measures a finished run, and adds the rows to its latency card.

    Args:
        path: the run's folder.
        out: the card; by default `latency.json` in the run's folder. Its rows of other devices and shapes are kept.

    Raises:
        RunFolderError, WeightsError, ConfigError: the folder holds no finished run, or not those sub-networks.
        LatencyError: the card cannot be written or belongs to another model, a length exceeds the model's positions,
            no backend has a dtype, or a backend does not run on this device.
        MissingPackageError: a backend's package is not installed.
        ExportError: the model does not fit into a backend's format.
    """
    check_backends(settings)
    run = read_finished(path)
    settings = resolved(run, settings)
    subs = tuple(dict.fromkeys((*map(run.sub, settings.subs), SubNetwork.full(run.shape))))
    out = run.card_file if out is None else expanded(out)
    check_card(out, run.fingerprint)
    origin = here(settings.backends)
    rows = measure(run.model, subs, settings, origin)
    new = Card(model=run.fingerprint, origins=(origin,), rows=rows)
    add_to_card(out, new)
    return Benched(new, out, tuple(audit(run.shape, {sub.name: sub for sub in subs}, rows)))


def check_backends(settings: BenchSettings) -> None:
    """Checks the backends before anything is read or measured.

    Raises:
        MissingPackageError: a package is missing.
        LatencyError: a backend does not run on this device, or no backend has a wanted dtype.
    """
    backends = {name: find_backend(name) for name in settings.backends}
    there = {name: ", ".join(backend.opens) for name, backend in backends.items()}
    for dtype in settings.dtypes:
        if not any(dtype in backend.opens for backend in backends.values()):
            has = "; ".join(f"{name} runs in {dtypes}" for name, dtypes in there.items())
            raise LatencyError(f"no backend has --dtype {dtype}: {has}. Leave it out, or add --backend jax")
    device = local()[0]
    for name, backend in backends.items():
        if backend.cpu_only and device.platform != "cpu":
            raise LatencyError(
                f"--backend {name} runs on the CPU, and jax's first device here is {device.device_kind}: a bench "
                f"measures one device. Set JAX_PLATFORMS=cpu to measure on the CPU, or leave {name} out"
            )


def resolved(run: Finished, settings: BenchSettings) -> BenchSettings:
    """The settings, with the run's own values where none are given.

    Raises:
        LatencyError: a length exceeds the model's positions.
    """
    settings = settings.replace(
        subs=settings.subs or tuple(sub.name for sub in run.subs),
        lengths=settings.lengths or (run.config.data.max_length,),
        dtypes=settings.dtypes or (run.config.dtype,),
    )
    longest = run.shape.max_length
    if max(settings.lengths) > longest:
        raise LatencyError(f"{max(settings.lengths)} tokens do not fit: the model has positions for {longest}")
    return settings


def check_card(out: Path, model: str) -> None:
    """Raises LatencyError, before anything is measured, if rows cannot be added to the card."""
    try:
        check_writable(out.parent)
    except OSError as error:
        raise LatencyError(f"cannot write {out}: {error}; name another file with --out") from error
    if out.exists():
        read_card(out, model)


def here(backends: Sequence[BackendName] = ("jax",)) -> Origin:
    """This device, the time, and the versions of these backends' packages."""
    device, packages = local()[0], [*PACKAGES]
    for backend in backends:
        packages += [package for package in BACKENDS[backend].packages if package not in packages]
    name = f"{cpu_name()} ({threads()} threads)" if device.platform == "cpu" else device.device_kind
    return Origin(
        device=name,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        platform=device.platform,
        threads=threads(),
        versions={package: version(package) or "unknown" for package in packages},
        memory=MEMORY,
    )


def cpu_name() -> str:
    """The CPU's name, if the system reports one; jax calls every CPU `cpu`."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def measure(
    model: Model, subs: Sequence[SubNetwork], settings: BenchSettings, origin: Origin
) -> tuple[Measurement, ...]:
    """Times sub-networks on every backend, in each of its dtypes and every shape.

    Args:
        model: the model that they are cut from, on the host.
        subs: must include the full network.
        settings: with lengths and dtypes filled in.
    """
    config, rows = model.config, list[Measurement]()
    full = SubNetwork.full(config)
    kinds = [(name, dtype) for name in settings.backends for dtype in BACKENDS[name].dtypes(settings.dtypes)]
    shapes = [(batch, length) for batch in settings.batches for length in settings.lengths]
    steps = len(kinds) * len(shapes) * (len(subs) + settings.rounds)
    with progress("bench", steps, "steps", is_kept=False) as bar:
        for backend, dtype in kinds:
            runners = {sub: BACKENDS[backend].opens[dtype](model.cut(sub)) for sub in subs}
            for batch, length in shapes:
                bar.set_description(f"{backend}, {dtype}, batch {batch}, {length} tokens")
                timings = time_shape(runners, random_inputs(config, batch, length), settings.rounds, bar.update)
                rows += [
                    Measurement(
                        device=origin.device, time=origin.time, backend=backend, dtype=dtype, batch=batch,
                        length=length, sub=sub.name, rounds=settings.rounds,
                        **summary(timing.seconds, timings[full].seconds),
                        ideal_speed_up=cost.flops(config, full, length) / cost.flops(config, sub, length),
                        memory_bytes=timing.memory_bytes,
                    )
                    for sub, timing in timings.items()
                ]  # fmt: skip
    return tuple(rows)


def random_inputs(config: ModelConfig, batch: int, length: int) -> Inputs:
    """Random tokens and no padding, `[batch, length]`."""
    ids = np.random.default_rng(0).integers(config.vocab_size, size=(batch, length), dtype=np.int32)
    return Inputs(ids, np.ones_like(ids), np.zeros_like(ids))


@dataclasses.dataclass(frozen=True)
class Timing:
    """One sub-network's seconds, one value per round, and its program's memory."""

    seconds: list[float]
    memory_bytes: int | None


def time_shape(
    runners: Mapping[SubNetwork, Runner], inputs: Inputs, rounds: int, step: Callable[[], object]
) -> dict[SubNetwork, Timing]:
    """Compiles all sub-networks for one batch and times them in turn. Calls `step` after each program and round."""
    calls = {sub: functools.partial(answer_on_host, runner, inputs) for sub, runner in runners.items()}
    for call in calls.values():
        call()
        step()
    seconds = timed_in_turn(calls, rounds, after_round=step)
    return {sub: Timing(seconds[sub], runner.memory_bytes(inputs)) for sub, runner in runners.items()}


def answer_on_host(runner: Runner, inputs: Inputs) -> np.ndarray:
    """Logits `[B, C]` on the host. Once they are there, all work has ended."""
    return np.asarray(runner(inputs).logits)


def timed_in_turn(
    calls: Mapping[Case, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[], object] = lambda: None,
    before_call: Callable[[Callable[[], object]], object] = lambda _: None,
    warm_up: int = WARM_UP,
) -> dict[Case, list[float]]:
    """Times every call once per round, one after the other, in an order that every round reverses.

    Args:
        calls: each returns when its work has ended.
        rounds: at least one.
        clock: returns seconds.
        after_round, before_call: called outside of the timed part; `before_call` gets the call.
        warm_up: untimed calls of each case before the first timed one.

    Returns:
        For each case the seconds of every round.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    seconds: dict[Case, list[float]] = {case: [] for case in calls}
    order = list(calls)
    for _ in range(rounds):
        for case in order:
            before_call(calls[case])
            start = clock()
            calls[case]()
            seconds[case].append(clock() - start)
        order.reverse()
        after_round()
    return seconds


def summary(seconds: Sequence[float], full: Sequence[float]) -> dict[str, Any]:
    """The values of a measurement, from the seconds of every round and the full network's in the same rounds.

    The speed-up is the median of the ratios within a round, which a machine that slows down changes least. Its interval
    contains the true median with 95 % confidence, for any distribution: of n ratios, the number below the true median
    is binomial, with mean n / 2 and standard deviation sqrt(n) / 2. With fewer than `FEWEST` ratios, not even the
    smallest and the largest reach that confidence, so there is no interval.
    """
    ratios = np.divide(full, seconds)
    low, high = interval(ratios) if len(ratios) >= FEWEST else (None, None)
    return {
        "median_ms": 1e3 * float(np.median(seconds)),
        "p95_ms": 1e3 * float(np.quantile(seconds, 0.95)),
        "speed_up": float(np.median(ratios)),
        "speed_up_low": low,
        "speed_up_high": high,
    }


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """The 95 % confidence interval of the median; see `summary`."""
    half = 1.96 / (2 * math.sqrt(len(ratios)))
    low, high = np.quantile(ratios, (0.5 - half, 0.5 + half))
    return float(low), float(high)


def table(rows: Sequence[Measurement]) -> str:
    """One line per sub-network and shape. Memory is in MB (10^6 bytes)."""
    header = ["sub-network", "backend", "dtype", "batch", "length", "median ms", "p95 ms", "examples/s", "speed-up",
              "ideal", "memory MB"]  # fmt: skip
    return markdown(
        header,
        [
            [
                row.sub, row.backend, row.dtype, str(row.batch), str(row.length), f"{row.median_ms:.3f}",
                f"{row.p95_ms:.3f}", f"{row.examples_per_second:.1f}",
                speed_up(row), f"{row.ideal_speed_up:.2f}",
                "" if row.memory_bytes is None else f"{row.memory_bytes / 1e6:.4g}",
            ]
            for row in rows
        ],
    )  # fmt: skip


def speed_up(row: Measurement) -> str:
    """The speed-up, with its interval if it has one."""
    if row.speed_up_low is None or row.speed_up_high is None:
        return f"{row.speed_up:.2f}"
    return f"{row.speed_up:.2f} ({row.speed_up_low:.2f}-{row.speed_up_high:.2f})"
