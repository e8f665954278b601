"""What the benchmarks share: the models and batches to time, interleaved rounds, the machine, and the results."""

import dataclasses
import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from dynabert_jax.choose.bench import cpu_name, timed_in_turn
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.evaluate.table import markdown
from dynabert_jax.model.matmul import matmul_rate
from dynabert_jax.system.devices import threads
from dynabert_jax.system.packages import version

RESULTS = Path(__file__).parent / "results"
REST = 0.3  # seconds before every measurement, so that another library's threads stop spinning
BUSY = 0.1  # seconds of calls after that rest, so that the system spreads the threads over the cores again
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "onnxruntime", "numpy")

Seconds = dict[str, list[float]]
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often."""

    length: int = 128
    """tokens per sentence, none of them padding"""
    batch: int = 32
    """sentences per batch"""
    rounds: int = 10
    """how often everything is timed, in turn"""


def minilm() -> ModelConfig:
    """The shape of MiniLM-L6-H384: 22.7 million parameters."""
    return ModelConfig(
        model_type="bert",
        vocab_size=30522,
        hidden_size=384,
        head_size=32,
        heads=(12,) * 6,
        neurons=(1536,) * 6,
        max_position_embeddings=512,
        type_vocab_size=2,
        layer_norm_eps=1e-12,
        pad_token_id=0,
        hidden_dropout=0.1,
        attention_dropout=0.1,
        labels=("negative", "positive"),
    )


def bert_base() -> ModelConfig:
    """The shape of BERT-base: 110 million parameters."""
    return minilm().replace(hidden_size=768, head_size=64, heads=(12,) * 12, neurons=(3072,) * 12)


MODELS: Mapping[str, Callable[[], ModelConfig]] = {"minilm": minilm, "bert-base": bert_base}


def random_batch(config: ModelConfig, batch: int, length: int) -> Batch:
    """Random tokens and labels, `[batch, length]`, on the host."""
    rng = np.random.default_rng(0)
    shape = (batch, length)
    return Batch(
        inputs=Inputs(
            rng.integers(1, config.vocab_size, shape, np.int32), np.ones(shape, np.int32), np.zeros(shape, np.int32)
        ),
        labels=rng.integers(config.num_labels, size=batch, dtype=np.int32),
        weights=np.ones(batch, np.float32),
    )


def share_the_accelerator() -> None:
    """Keeps jax from reserving most of a GPU's memory, which PyTorch needs too. Call before jax first uses a device."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def measure(cases: Mapping[str, Callable[[], object]], rounds: int, busy: float = 0.0) -> Seconds:
    """Times every case once per round, one after the other, in an order that is reversed every round.

    Args:
        cases: each does its work and waits for its end. The first call of each, which compiles, is not timed.
        rounds: at least one.
        busy: seconds that a case runs, untimed, before each of its timed calls. Use `BUSY` for calls that are shorter
            than that; otherwise they are timed while the machine is still slow after the rest.
    """

    def prepare(case: Callable[[], object]) -> None:
        time.sleep(REST)
        end = time.perf_counter() + busy
        while time.perf_counter() < end:
            case()

    return timed_in_turn(cases, rounds, before_call=prepare, warm_up=1)


def timed(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratio(seconds: Sequence[float], to: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round, which changes least if the machine slows down."""
    return statistics.median(a / b for a, b in zip(seconds, to, strict=True))


def comparison(seconds: Seconds, base: str, targets: Mapping[str, float]) -> list[Row]:
    """A row for each case: its times, its ratio to `base`, and the target for that ratio."""
    return [
        {
            "case": name,
            "median ms": round(1e3 * statistics.median(times), 1),
            "fastest ms": round(1e3 * min(times), 1),
            f"ratio to {base}": round(ratio(times, seconds[base]), 2),
            "target": f"<= {targets[name]:.3g}" if name in targets else "",
            "holds": verdict(ratio(times, seconds[base]) <= targets[name]) if name in targets else "",
        }
        for name, times in seconds.items()
    ]


def verdict(holds: bool) -> str:
    return "yes" if holds else "no"


def publish(
    name: str, settings: Any, tables: Mapping[str, Sequence[Row]], seconds: Seconds, about: Mapping[str, str]
) -> None:
    """Prints the machine and the tables as Markdown, and writes them with all times to `results/NAME.json`.

    Args:
        settings: a dataclass.
    """
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    for title, rows in tables.items():
        print(f"\n### {title}\n\n{markdown(list(rows[0]), [list(map(str, row.values())) for row in rows])}")
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    values = {"settings": dataclasses.asdict(settings), "machine": about, "tables": tables, "seconds": seconds}
    file.write_text(json.dumps(values, indent=2) + "\n")
    print(f"\nwritten to {file}")


def machine() -> dict[str, str]:
    """The hardware and the versions that the figures come from."""
    flags, device = cpu_flags(), jax.local_devices()[0]
    return {
        "CPU": cpu_name(),
        "CPU flags": ", ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of " + ", ".join(CPU_FLAGS),
        "threads": str(threads()),
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()) + " (over 1, 5 and 15 minutes)",
        "jax devices": f"{jax.local_device_count()} x {device.device_kind} ({device.platform})",
        "memory": os.environ.get("GLIBC_TUNABLES", "GLIBC_TUNABLES is not set"),
        "Python": platform.python_version(),
        "versions": ", ".join(f"{package} {version(package) or 'not installed'}" for package in PACKAGES),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def product_rates() -> dict[str, str]:
    """The measured limits of this device: for large matmuls, and for reading and writing large arrays."""
    rates = ", ".join(f"{dtype} {matmul_rate(dtype) / 1e9:.0f}" for dtype in get_args(Dtype))
    return {"product rate": f"{rates} GFLOP/s", "memory rate": f"{memory_rate() / 1e9:.1f} GB/s"}


def percent_of_floor(floor: float, seconds: Sequence[float]) -> str:
    """The least seconds that this device needs, as a percentage of the median."""
    return f"{100 * floor / statistics.median(seconds):.0f}"


@functools.cache
def memory_rate() -> float:
    """Bytes per second, read and written, for adding one to 256 MiB; the fastest of five runs."""
    numbers, add = jnp.zeros(2**26, jnp.float32), jax.jit(lambda a: a + 1.0)
    jax.block_until_ready(add(numbers))
    return 2 * numbers.nbytes / min(timed(lambda: jax.block_until_ready(add(numbers))) for _ in range(5))


def cpu_flags() -> set[str]:
    """The CPU's feature flags, if the system reports them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return set(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
