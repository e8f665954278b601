"""How much memory this process has used, and how much there is."""

import sys

import jax
import psutil


def peak_memory() -> int:
    """Bytes that one device of this host has held at most; where devices do not tell, bytes of the process."""
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return max(held) or _peak_of_process()


def available_memory() -> int:
    """Bytes that are free on one device of this host; where devices do not tell, on the host."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    free = [one["bytes_limit"] - one["bytes_in_use"] for one in stats if "bytes_limit" in one]
    return min(free) if free else psutil.virtual_memory().available


def _peak_of_process() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # POSIX has it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere it counts KiB
