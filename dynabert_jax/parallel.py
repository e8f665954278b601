"""Data parallelism over this host's devices: the one place that knows it is `pmap`.

Parameters travel as plain trees, the same on every device; batches and what is summed over them carry a leading axis
of devices. One device is the plain case of the same code.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"


def data_parallel(
    function: Callable[..., Any], *, in_axes: tuple[int | None, ...], out_axes: Any, static: int | None = None,
    donate: tuple[int, ...] = (),
) -> Callable[..., Any]:  # fmt: skip
    """`function` compiled for all devices at once.

    Args:
        function: what one device computes; sums over devices with `jax.lax.psum(..., AXIS)`.
        in_axes: for each argument 0 where every device has its own part, None where all get the same.
        out_axes: likewise for the results; None promises that they are the same everywhere.
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


def num_devices() -> int:
    return jax.local_device_count()


def check_divides(batch_size: int, what: str, devices: int | None = None) -> None:
    """Raises ValueError unless every device, of all or of so many, gets the same number of a batch's examples."""
    devices = num_devices() if devices is None else devices
    if batch_size % devices:
        below = batch_size - batch_size % devices
        near = [str(size) for size in (below, below + devices) if size]
        raise ValueError(
            f"{what} {batch_size} does not divide over {devices} devices; use a multiple of {devices}, such as "
            f"{' or '.join(near)}"
        )


def split(tree: Any) -> Any:
    """Arrays `[B, ...]` to `[devices, B / devices, ...]`."""
    devices = num_devices()
    return jax.tree.map(lambda a: np.reshape(a, (devices, a.shape[0] // devices, *a.shape[1:])), tree)


def rows_here(count: int) -> jax.Array:
    """Which rows of the global batch the `count` rows of this device are, `[count]`; inside `data_parallel`."""
    return jax.lax.axis_index(AXIS) * count + jnp.arange(count)


def join(tree: Any) -> Any:
    """The inverse of `split`, on the host."""
    return jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), tree)


def replicate(tree: Any) -> Any:
    """The tree on every device; what is there already is not copied."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def spread(tree: Any) -> Any:
    """Arrays `[B, ...]` with their rows over the devices, for `jax.jit`; one device needs no telling."""
    return tree if num_devices() == 1 else jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec(AXIS)))


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), (AXIS,))
