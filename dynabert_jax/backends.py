"""What can run a sub-network: `BACKENDS` by name, each with the dtypes that it has.

A new one is a function here, (config, params, sub) -> a program for each shape, with its name in `BackendName` and
`BACKENDS`.
"""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.cut import cut
from dynabert_jax.export import FORMATS, onnx_file
from dynabert_jax.export.source import Source
from dynabert_jax.packages import require
from dynabert_jax.parts import make_forward
from dynabert_jax.products import rounded_kernels
from dynabert_jax.subnetwork import SubNetwork

Params = Any
BackendName = Literal["jax", "onnxruntime", "onnxruntime-int8"]


class Inputs(NamedTuple):
    """One batch on the host, `[B, S]` int32 each."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Program:
    """A sub-network that is ready to run on batches of one shape.

    Attributes:
        run: a batch on the host to logits `[B, C]` on the host: whoever has them knows that all work has ended.
        memory_bytes: what it needs on the device; None where the backend does not tell.
    """

    run: Callable[[Inputs], np.ndarray]
    memory_bytes: int | None


# Makes a sub-network ready for batches of the shape of the one that is given.
Maker = Callable[[Inputs], Program]

# Takes a sub-network out of the model, whose parameters are on the host.
Taker = Callable[[ModelConfig, Params, SubNetwork], Maker]


@dataclasses.dataclass(frozen=True)
class Backend:
    """Something that runs sub-networks.

    Attributes:
        takers: by the dtypes that it can multiply in.
        packages: what it needs beyond what this package installs.
        install: the command that installs them.
        cpu_only: it runs on the CPU, whatever jax's first device is.
    """

    takers: Mapping[str, Taker]
    packages: tuple[str, ...] = ()
    install: str = ""
    cpu_only: bool = False

    def dtypes(self, wanted: tuple[Dtype, ...]) -> tuple[str, ...]:
        """The dtypes that it is measured in: the wanted ones where it has several, or else its only one."""
        return wanted if len(self.takers) > 1 else tuple(self.takers)


def find_backend(name: BackendName) -> Backend:
    """The backend of that name, for which everything is installed.

    Raises:
        ExportError: a package that it needs is missing; the message has the command that installs it.
    """
    backend = BACKENDS[name]
    require(backend.packages, f"--backend {name}", backend.install)
    return backend


def threads() -> int:
    """The CPU cores that this process may use: as many threads as XLA starts, and as others are told to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# jax


def run_with_jax(dtype: Dtype, config: ModelConfig, params: Params, sub: SubNetwork) -> Maker:
    """Cut to arrays of its own on the first local device, and compiled ahead."""
    small = cut(config, params, sub)
    forward = jax.jit(make_forward(small.config, dtype))
    weights = jax.device_put(rounded_kernels(small.params, dtype), jax.local_devices()[0])

    def make(inputs: Inputs) -> Program:
        compiled = forward.lower(weights, *inputs).compile()
        return Program(lambda inputs: np.asarray(compiled(weights, *inputs).block_until_ready()), planned(compiled))

    return make


def planned(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of a compiled program's arguments (weights included), results and temporaries, as its compiler planned.

    A device's own peak counts all that the process has ever held and cannot be set back: it tells nothing of one size.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes


# ONNX Runtime


def run_with_onnxruntime(
    dtype: Literal["float32", "int8"], config: ModelConfig, params: Params, sub: SubNetwork
) -> Maker:
    """The file that `dynabert export --format onnx` writes, or with `--int8` the second one, on the CPU.

    Raises:
        ExportError: the sub-network is too large for one file.
    """
    with tempfile.TemporaryDirectory(prefix="dynabert-onnx-") as name:
        folder = Path(name)
        onnx_file.write(Source(config, params, (sub,)), folder)
        if dtype == "int8":
            onnx_file.quantize(folder)
        # The session holds the weights, so the file may go; it takes batches of every shape.
        session = onnx_file.open_session(folder / (onnx_file.INT8 if dtype == "int8" else onnx_file.FLOAT), threads())

    def run(inputs: Inputs) -> np.ndarray:
        return onnx_file.ask(session, inputs._asdict())

    return lambda _: Program(run, memory_bytes=None)


ONNX = FORMATS["onnx"]
BACKENDS: Mapping[BackendName, Backend] = {
    "jax": Backend(
        {
            "float32": functools.partial(run_with_jax, "float32"),
            "bfloat16": functools.partial(run_with_jax, "bfloat16"),
        }
    ),
    "onnxruntime": Backend(
        {"float32": functools.partial(run_with_onnxruntime, "float32")}, ONNX.packages, ONNX.install, cpu_only=True
    ),
    "onnxruntime-int8": Backend(
        {"int8": functools.partial(run_with_onnxruntime, "int8")}, ONNX.packages, ONNX.install, cpu_only=True
    ),
}
