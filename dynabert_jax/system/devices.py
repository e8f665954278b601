"""Data parallelism over all devices of all hosts: the only place that uses `pmap`.

Parameters are plain trees, the same on every device. Batches, and what is summed over them, have a leading axis of
this host's devices. The same code runs on one device and one host.

Letters in shapes: B examples of the global batch, D devices of this host.
"""

import importlib.metadata
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dynabert_jax.errors import UserError
from dynabert_jax.system.files import first_line
from dynabert_jax.system.meeting import SETTINGS, ParallelError, Place, meet, seconds_to_wait
from dynabert_jax.system.packages import is_installed

log = logging.getLogger(__name__)

AXIS = "devices"
EVERYWHERE = PartitionSpec()
LOST_CODES = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
HEARTBEAT = 30  # seconds without a heartbeat after which a process counts as dead and the others end


LONGEST_SHOWN = 60  # characters of a text that is compared; a longer one, such as a checksum, is not shown

# Settings of jax that change what is computed, or would if a program did not name its own; not only how fast.
ARITHMETIC = (
    "jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion", "jax_disable_jit",
)  # fmt: skip


# What chooses the platform, and what to install for another one.
PLATFORM_SETTINGS = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_NUM_CPU_DEVICES")
INSTALL = (
    'For NVIDIA GPUs, `pip install "jax[cuda13]"` (or cuda12, by the driver), and for TPUs `pip install "jax[tpu]"` '
    "installs what is missing"
)


class DeviceError(UserError, RuntimeError):
    """Devices that jax cannot start, or must not be used with; the message says what to set or install."""


def connect() -> None:
    """Joins this process with those on other hosts, if the environment names them.

    The variables are `JAX_COORDINATOR_ADDRESS` (host:port of the first process), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`. Under Slurm, Open MPI or Kubernetes and on a TPU pod, `JAX_COORDINATOR_ADDRESS=auto` lets jax find
    all three. `DYNABERT_MEETING_SECONDS` is how long they wait for each other. Call this before any computation.

    Raises:
        ParallelError: the settings do not fit together, or the other processes cannot be reached.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        return
    given: dict[str, Any] = {}
    seconds = seconds_to_wait()
    if address == "auto":
        del os.environ["JAX_COORDINATOR_ADDRESS"]  # jax itself would use it as an address
        log.info(
            "jax looks for the other processes; if one does not come within %g seconds, jax ends this one with a stack "
            "trace of C++", seconds,
        )  # fmt: skip
    else:
        given = {"coordinator_address": address} | _process_numbers()
        meet(Place.parse(address), given["process_id"], given["num_processes"], seconds)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from `signals.Signals`
    try:
        jax.distributed.initialize(
            **given, initialization_timeout=math.ceil(seconds), heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )  # fmt: skip
    except (ValueError, TypeError, RuntimeError) as error:
        raise ParallelError(
            f"this process cannot join the others of the run: {first_line(error)}. {SETTINGS}"
        ) from error
    check_same_everywhere({"the number of devices": str(len(local()))})


def _process_numbers() -> dict[str, int]:
    numbers = {}
    for name, variable in (("num_processes", "JAX_NUM_PROCESSES"), ("process_id", "JAX_PROCESS_ID")):
        value = os.environ.get(variable, "")
        if not value.isdecimal():
            raise ParallelError(
                f"JAX_COORDINATOR_ADDRESS is set, so {variable} must be a whole number; got {value!r}. Set it, or "
                f"unset JAX_COORDINATOR_ADDRESS to train on this host only"
            )
        numbers[name] = int(value)
    if numbers["process_id"] >= numbers["num_processes"]:
        raise ParallelError(
            f"JAX_PROCESS_ID counts from 0 to JAX_NUM_PROCESSES - 1; got {numbers['process_id']} of "
            f"{numbers['num_processes']}"
        )
    return numbers


def local() -> list[jax.Device]:
    """The devices of this host, which jax starts at the first call.

    Raises:
        DeviceError: jax has no device of the kind that its settings ask for, or they change the arithmetic.
    """
    try:
        found = jax.local_devices()
    except (RuntimeError, ValueError, AssertionError) as error:  # jax asserts that the platform has a plugin
        reason = "it is not installed for that platform" if isinstance(error, AssertionError) else first_line(error)
        asked = {name: os.environ[name] for name in PLATFORM_SETTINGS if os.environ.get(name)}
        settings = f" with {' '.join(f'{name}={value}' for name, value in asked.items())}" if asked else ""
        cure = f"Unset {' and '.join(asked)} to use what is there. " if asked else ""
        raise DeviceError(
            f"jax cannot start its devices{settings} ({reason}). What is installed runs on "
            f"{', '.join(_platforms())}. {cure}{INSTALL}"
        ) from error
    if jax.config.values["jax_enable_x64"]:
        raise DeviceError(
            "jax_enable_x64 is on, and would change the arithmetic: networks here compute in float32 or bfloat16. "
            "Unset JAX_ENABLE_X64, or turn it off with jax.config.update"
        )
    return found


def data_parallel(
    function: Callable[..., Any], *, in_axes: tuple[int | None, ...], out_axes: Any, static: int | None = None,
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:  # fmt: skip
    """`function` compiled for all devices of all hosts at once.

    Args:
        function: what one device computes; it sums over devices with `summed`.
        in_axes: for each argument, 0 if every device has its own share, None if all get the same.
        out_axes: likewise for the results; None promises that they are the same on all devices.
        static: position of an argument that is compiled in (it stays in `in_axes` as None).
        donate: positions of arguments whose memory may be reused.
    """
    return jax.pmap(
        function,
        axis_name=AXIS,
        in_axes=in_axes,
        out_axes=out_axes,
        static_broadcasted_argnums=() if static is None else (static,),
        donate_argnums=donate,
    )


def summed(tree: Any) -> Any:
    """Sums over all devices, inside a `data_parallel` function."""
    # To sum over one device, XLA for CPUs would copy everything.
    return jax.lax.psum(tree, AXIS) if num_devices() > 1 else tree


def _platforms() -> list[str]:
    """The platforms that jax is installed for."""
    plugins = [point.name for point in importlib.metadata.entry_points(group="jax_plugins")]
    return ["cpu", *(["tpu"] if is_installed("libtpu") else []), *plugins]


def num_devices() -> int:
    """The number of devices of all hosts together; raises DeviceError as `local` does."""
    local()
    return jax.device_count()


def num_hosts() -> int:
    """The number of processes, usually one per host."""
    return jax.process_count()


def is_joined() -> bool:
    """Whether this is one of several processes. Unlike `num_devices`, this starts no device."""
    return jax.distributed.is_initialized() and num_hosts() > 1


def is_first() -> bool:
    """Whether this process is the one that writes logs and results."""
    return jax.process_index() == 0


def may_be_lost_peer(error: Exception) -> bool:
    """Whether XLA raised the error as it does when another process is gone: the message begins with a status code.

    In the first call of a program, such an error is a ValueError.
    """
    kinds = (jax.errors.JaxRuntimeError, ValueError)
    return isinstance(error, kinds) and str(error).partition(":")[0] in LOST_CODES


def any_host(here: bool) -> bool:
    """Whether `here` is true on any host. Every host must call this."""
    if jax.process_count() == 1:
        return here
    return bool(multihost_utils.process_allgather(np.asarray(here)).any())


def of_the_first(value: int) -> int:
    """The first process's value, on every process. For values read from files, on which all must agree."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def check_same_everywhere(things: Mapping[str, str]) -> None:
    """Raises ParallelError, on every host, unless all hosts give the same texts.

    Args:
        things: what is compared, by its name in the message. Hosts whose names differ are reported likewise.
    """
    if jax.process_count() == 1:
        return
    of_all: list[dict[str, str]] = [json.loads(text) for text in _texts_of_all(json.dumps(things))]
    names = dict.fromkeys(name for one in of_all for name in one)
    different = [_difference(name, [one.get(name) for one in of_all]) for name in names]
    if any(different):
        raise ParallelError(
            f"these differ from process 0: {'; '.join(filter(None, different))}. Start all processes with the "
            f"same files, settings, versions and devices"
        )


def _difference(name: str, texts: Sequence[str | None]) -> str:
    """Which processes differ from the first one, with the texts if they are short; empty if none does."""
    others = [number for number, text in enumerate(texts) if text != texts[0]]
    if not others:
        return ""
    pair = [(number, "nothing" if texts[number] is None else texts[number]) for number in (0, others[0])]
    if any(len(text or "") > LONGEST_SHOWN for _, text in pair):
        return f"{name} (process {', '.join(map(str, others))})"
    return f"{name} ({', '.join(f'process {number} has {text}' for number, text in pair)})"


def _texts_of_all(text: str) -> list[str]:
    """The texts of all processes, in their order."""
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(own.size)).reshape(-1)  # [processes]
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: own.size] = own
    gathered = multihost_utils.process_allgather(padded)  # [processes, longest]
    return [bytes(row[:size]).decode() for row, size in zip(gathered, sizes, strict=True)]


def arithmetic() -> dict[str, str]:
    """What decides how devices compute: jax's settings, the platform and its devices, and XLA's flags."""
    settings = {f"jax's setting {name}": str(jax.config.values[name]) for name in ARITHMETIC}
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith("--xla_dump")]
    return settings | {
        "the kind of devices": f"{jax.default_backend()}: {', '.join(kinds)}",
        "XLA_FLAGS": " ".join(sorted(flags)),
    }


def wait_for_all(where: str) -> None:
    """Returns when every process has called this with the same `where`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def check_divides(batch_size: int, what: str, devices: int | None = None, parts: int = 1) -> None:
    """Raises ValueError unless every device gets the same number of a batch's examples.

    Args:
        devices: number of devices; None: all.
        parts: number of microbatches that the batch is divided into.
    """
    devices = num_devices() if devices is None else devices
    share = devices * parts
    if batch_size % share:
        over = f"{devices} devices" if parts == 1 else f"{devices} devices and {parts} microbatches"
        below = batch_size - batch_size % share
        near = [str(size) for size in (below, below + share) if size]
        raise ValueError(
            f"{what} {batch_size} does not divide over {over}; use a multiple of {share}, such as {' or '.join(near)}"
        )


def round_up(batch_size: int, devices: int | None = None) -> int:
    """The next batch size of which every device gets the same number of examples; None: over all devices."""
    devices = num_devices() if devices is None else devices
    return -(-batch_size // devices) * devices


def shard(tree: Any) -> Any:
    """This host's share of arrays `[B, ...]`, as `data_parallel` takes it: `[D, B / all devices, ...]`."""
    return jax.tree.map(lambda own: own.reshape(jax.local_device_count(), -1, *own.shape[1:]), rows_of_this_host(tree))


def rows_of_this_host(tree: Any) -> Any:
    """This host's share of arrays `[B, ...]`: `[B / hosts, ...]`."""
    return jax.tree.map(lambda a: np.split(np.asarray(a), jax.process_count())[jax.process_index()], tree)


def rows_of_all_hosts(tree: Any) -> Any:
    """The inverse of `rows_of_this_host`, as numpy arrays: every host gets the rows of all hosts."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda own: multihost_utils.process_allgather(np.asarray(own), tiled=True), tree)


def replicate(tree: Any, on: Sequence[jax.Device] | None = None) -> Any:
    """Copies the tree to each of these devices, by default all of this host; arrays already there are not copied."""
    return jax.device_put(tree, NamedSharding(_mesh(local() if on is None else on), EVERYWHERE))


def shard_rows(tree: Any, on: Sequence[jax.Device]) -> Any:
    """Shards the rows of arrays `[B, ...]` over devices, for `jax.jit`; with one device, jax places them itself."""
    if len(on) == 1:
        return tree
    return jax.device_put(tree, NamedSharding(_mesh(on), PartitionSpec(AXIS)))


def across_hosts(tree: Any) -> Any:
    """Replicated arrays of each host as global arrays of all hosts, from which a checkpoint is written."""
    return _between_hosts(multihost_utils.host_local_array_to_global_array, tree)


def of_this_host(tree: Any) -> Any:
    """The inverse of `across_hosts`."""
    return _between_hosts(multihost_utils.global_array_to_host_local_array, tree)


def shapes_across_hosts(tree: Any) -> Any:
    """Shapes and types of arrays, sharded as by `across_hosts`, into which a checkpoint is read."""
    everywhere = NamedSharding(_mesh(jax.devices()), EVERYWHERE)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a), sharding=everywhere), tree)


def _between_hosts(function: Callable[..., Any], tree: Any) -> Any:
    return tree if jax.process_count() == 1 else function(tree, _mesh(jax.devices()), EVERYWHERE)


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,))


def threads() -> int:
    """The number of CPU cores that this process may use: XLA starts as many threads, and others are set to it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
