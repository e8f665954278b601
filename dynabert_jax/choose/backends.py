"""The backends that can run a sub-network: `BACKENDS` by name, each with its dtypes.

To add one, write a function from a cut model to a `Runner`, and add its name to `BackendName` and `BACKENDS`.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from dynabert_jax.config.checked import Dtype
from dynabert_jax.export import onnx_file
from dynabert_jax.export.formats import FORMATS
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.in_onnxruntime import FLOAT, INT8, open_file
from dynabert_jax.infer.runner import Runner, Source
from dynabert_jax.model.params import Model
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.devices import local, threads
from dynabert_jax.system.packages import require

BackendName = Literal["jax", "onnxruntime", "onnxruntime-int8"]

Open = Callable[[Model], Runner]  # opens a cut model whose parameters are on the host


@dataclasses.dataclass(frozen=True)
class Backend:
    """Something that runs sub-networks.

    Attributes:
        opens: by dtype of the matmuls, the function that opens a model.
        packages: what it needs in addition to this package's dependencies.
        extra: the extra that has them.
        cpu_only: whether it always runs on the CPU, whatever jax's first device is.
    """

    opens: Mapping[str, Open]
    packages: tuple[str, ...] = ()
    extra: str = ""
    cpu_only: bool = False

    def dtypes(self, wanted: tuple[Dtype, ...]) -> tuple[str, ...]:
        """The dtypes to measure it in: the wanted ones if it has several, else its only one."""
        return wanted if len(self.opens) > 1 else tuple(self.opens)


def find_backend(name: BackendName) -> Backend:
    """The backend of that name, after checking that its packages are installed.

    Raises:
        MissingPackageError: a package is missing; the message has the command that installs it.
    """
    backend = BACKENDS[name]
    require(backend.packages, f"--backend {name}", backend.extra)
    return backend


def open_in_jax(dtype: Dtype, model: Model) -> Runner:
    """Runs the model in jax, on the first device."""
    return in_jax.open_model(model, dtype, on=local()[:1])


def open_in_onnxruntime(dtype: Literal["float32", "int8"], model: Model) -> Runner:
    """Runs the ONNX file that `dynabert export --format onnx` writes, or its `--int8` file, on the CPU.

    Raises:
        ExportError: the model is too large for one file.
    """
    with tempfile.TemporaryDirectory(prefix="dynabert-onnx-") as name:
        folder = Path(name)
        onnx_file.write(Source(model, (SubNetwork.full(model.config),)), folder)
        if dtype == "int8":
            onnx_file.quantize(folder)
        # The session holds the weights, so the file can be removed; it accepts batches of every shape.
        return open_file(folder / (INT8 if dtype == "int8" else FLOAT), model.config.num_layers, threads())


ONNX = FORMATS["onnx"]

BACKENDS: Mapping[BackendName, Backend] = {
    "jax": Backend(
        {
            "float32": functools.partial(open_in_jax, "float32"),
            "bfloat16": functools.partial(open_in_jax, "bfloat16"),
        }
    ),
    "onnxruntime": Backend(
        {"float32": functools.partial(open_in_onnxruntime, "float32")}, ONNX.packages, ONNX.extra, cpu_only=True
    ),
    "onnxruntime-int8": Backend(
        {"int8": functools.partial(open_in_onnxruntime, "int8")}, ONNX.packages, ONNX.extra, cpu_only=True
    ),
}
