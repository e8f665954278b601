"""Data parallelism over all devices of all hosts: the only place that uses `pmap`.

Parameters are plain trees, the same on every device. Batches, and what is summed over them, have a leading axis of
this host's devices. The same code runs on one device and one host.

Letters in shapes: B examples of the global batch, D devices of this host.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dynabert_jax.errors import UserError

AXIS = "devices"
EVERYWHERE = PartitionSpec()
LOST_CODES = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL", "UNAVAILABLE", "UNKNOWN")
HEARTBEAT = 30  # seconds without a heartbeat after which a process counts as dead and the others end


class ParallelError(UserError, RuntimeError):
    """The processes of a run cannot work together; the message says what to do."""


def connect() -> None:
    """Joins this process with those on other hosts, if the environment names them.

    The variables are `JAX_COORDINATOR_ADDRESS` (host:port of the first process), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`. Under Slurm, Open MPI or Kubernetes and on a TPU pod, `JAX_COORDINATOR_ADDRESS=auto` lets jax find
    all three. Call this before any computation.

    Raises:
        ParallelError: the settings do not fit together, or the other processes cannot be reached.
    """
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        return
    given: dict[str, Any] = {} if address == "auto" else {"coordinator_address": address} | _process_numbers()
    if address == "auto":
        del os.environ["JAX_COORDINATOR_ADDRESS"]  # jax itself would use it as an address
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from `signals.Signals`
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=HEARTBEAT)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ParallelError(
            f"this process cannot join the others of the run: {str(error).splitlines()[0]}. Start every process with "
            f"the same JAX_COORDINATOR_ADDRESS=HOST:PORT and JAX_NUM_PROCESSES, and its own JAX_PROCESS_ID from 0 up"
        ) from error
    check_same_everywhere(str(jax.local_device_count()), "the number of devices is")


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


def num_devices() -> int:
    """The number of devices of all hosts together."""
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


def check_same_everywhere(text: str, what: str) -> None:
    """Raises ParallelError, on every host, unless all hosts give the same text.

    Args:
        text: what is compared.
        what: subject and verb of the message, such as `the configuration is`.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    others = multihost_utils.process_allgather(digest)  # [processes, 32]
    different = np.flatnonzero((others != others[0]).any(axis=1)).tolist()
    if different:
        raise ParallelError(
            f"{what} not the same everywhere: processes {', '.join(map(str, different))} differ from process 0. "
            f"Start all processes with the same files, settings, versions and devices"
        )


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
    return jax.device_put(tree, NamedSharding(_mesh(jax.local_devices() if on is None else on), EVERYWHERE))


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
