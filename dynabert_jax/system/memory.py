"""How much memory this process has used, and how much is free."""

import dataclasses
import os
import sys
from pathlib import Path

import jax
import psutil


def peak_memory() -> int:
    """Most bytes that one device of this host has held; if devices do not report them, those of the process."""
    held = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return max(held) or _peak_of_process()


def available_memory() -> int:
    """Bytes free on the fullest device of this host; if devices do not report them, those free for this process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    free = [one["bytes_limit"] - one["bytes_in_use"] for one in stats if "bytes_limit" in one]
    return min(free) if free else min([psutil.virtual_memory().available, *left_of_limits()])


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error means out of memory. numpy, jax and ONNX Runtime each have their own message."""
    words = ("RESOURCE_EXHAUSTED", "out of memory", "allocate", "bad_alloc", "bad allocation")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _peak_of_process() -> int:
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # only on POSIX

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere the unit is KiB


@dataclasses.dataclass(frozen=True)
class _Version:
    """The file names of one version of Linux's control groups.

    Attributes:
        folder: folder in /sys/fs/cgroup of the groups that count memory.
        limit, used: files with a number of bytes.
        cached: lines of memory.stat with the bytes of cached files, which Linux frees when memory is short.
    """

    folder: str
    limit: str
    used: str
    cached: tuple[str, str]


_FIRST = _Version(
    "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")
)
_SECOND = _Version("", "memory.max", "memory.current", ("active_file", "inactive_file"))
_UNLIMITED = 2**62  # version 1 writes it as the largest number of whole pages


def left_of_limits(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes left of each memory limit that containers and batch systems set for this process.

    Args:
        process: the file that lists the process's control groups, see cgroups(7); their names may have any bytes.
            Without the file there are no limits.
        root: where the groups are mounted. In a container, whose own group is the root, a group's path may not exist.
    """
    try:
        lines = os.fsdecode(process.read_bytes()).split("\n")
    except OSError:
        return []
    found = []
    for fields in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        controllers, path = fields[1], fields[2]
        if controllers == "":
            found += _left_along(root, path, _SECOND)
        elif "memory" in controllers.split(","):
            found += _left_along(root, path, _FIRST)
    return found


def _left_along(root: Path, path: str, version: _Version) -> list[int]:
    """Bytes left of the limits of a group and of its parents, all of which apply."""
    mount = root / version.folder
    group = mount / path.lstrip("/")
    groups = [one for one in (group, *group.parents) if one.is_relative_to(mount)]
    left = [_left(one, version) for one in groups]
    return [free for free in left if free is not None]


def _left(group: Path, version: _Version) -> int | None:
    """Bytes left of the limit; None if there is no limit, or it cannot be read."""
    try:
        limit = int((group / version.limit).read_text())
        used = int((group / version.used).read_text())
    except (OSError, ValueError):  # the root of version 2 has no limit file, and "max" is no number
        return None
    return max(0, limit - max(0, used - _cached(group, version))) if limit < _UNLIMITED else None


def _cached(group: Path, version: _Version) -> int:
    """Bytes of cached files; 0 if they cannot be read."""
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(stat[name]) for name in version.cached)
    except (OSError, ValueError, KeyError):
        return 0
