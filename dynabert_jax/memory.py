"""How much memory this process has used, and how much there is."""

import dataclasses
import sys
from pathlib import Path

import jax
import psutil


def peak_memory() -> int:
    """Bytes that one device of this host has held at most; where devices do not tell, bytes of the process."""
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return max(held) or _peak_of_process()


def available_memory() -> int:
    """Bytes that are free on one device of this host; where devices do not tell, on the host, for this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    free = [one["bytes_limit"] - one["bytes_in_use"] for one in stats if "bytes_limit" in one]
    return min(free) if free else min([psutil.virtual_memory().available, *left_of_limits()])


def _peak_of_process() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # POSIX has it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere it counts KiB


@dataclasses.dataclass(frozen=True)
class _Version:
    """What a version of Linux's control groups calls its files.

    Attributes:
        mount: their folder in /sys/fs/cgroup.
        limit, used: files of bytes.
        cached: the line of memory.stat with the bytes of files that Linux lets go when memory is short.
    """

    mount: str
    limit: str
    used: str
    cached: str


_FIRST = _Version("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = _Version("", "memory.max", "memory.current", "inactive_file")


def left_of_limits(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that are left of each limit that containers and batch systems set for this process.

    Args:
        process: what tells the process's control groups, as in cgroups(7); without it there are no limits.
        root: where they are mounted. In a container, whose own group is the root, a group's path may not be there.
    """
    left = []
    for line in process.read_text().splitlines() if process.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version = _FIRST if controllers else _SECOND
        mount = root / version.mount
        group = mount / path.lstrip("/")
        # The groups around it have limits, too.
        left += [_left(one, version) for one in (group, *group.parents) if one.is_relative_to(mount)]
    return [free for free in left if free is not None]


def _left(group: Path, version: _Version) -> int | None:
    """Bytes; None where there is no limit, or nothing to be read."""
    try:
        limit, used = (int((group / name).read_text()) for name in (version.limit, version.used))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(stat[version.cached]))
    except (OSError, ValueError, KeyError):  # the root of the second version has no limit, and "max" is no number
        return None
