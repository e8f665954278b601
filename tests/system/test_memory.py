"""What is left of the memory limits of containers and batch systems."""

import os
import types
from pathlib import Path

import pytest

from dynabert_jax.system import memory
from dynabert_jax.system.memory import available_memory, left_of_limits


def write_group(folder: Path, limit: str, used: str, values: tuple[object, object], stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip((limit, used), values, strict=True):
        (folder / name).write_text(f"{value}\n")
    (folder / "memory.stat").write_text(stat)


def second(folder: Path, limit: object, used: int, cached: int) -> None:
    write_group(
        folder, "memory.max", "memory.current", (limit, used), f"anon 7\ninactive_file {cached - 30}\nactive_file 30\n"
    )


def first(folder: Path, limit: int, used: int, cached: int) -> None:
    stat = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {cached - 30}\ntotal_active_file 30\n"
    write_group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", (limit, used), stat)


def left(folder: Path, groups: str) -> list[int]:
    (folder / "groups").write_text(groups)
    return left_of_limits(folder / "groups", folder)


def test_a_group_and_those_around_it_in_the_second_version(tmp_path: Path) -> None:
    second(tmp_path / "slurm" / "job", 1000, 600, 100)
    second(tmp_path / "slurm", 5000, 4900, 0)
    assert left(tmp_path, "0::/slurm/job\n") == [500, 100]


def test_no_limit_is_none(tmp_path: Path) -> None:
    second(tmp_path / "user", "max", 600, 100)
    first(tmp_path / "memory", 9223372036854771712, 600, 100)
    assert left(tmp_path, "1:memory:/\n0::/user\n") == []


@pytest.mark.parametrize("stat", ["", "inactive_file\n", "inactive_file many\nactive_file 3\n"])
def test_files_that_cannot_be_counted_are_none(tmp_path: Path, stat: str) -> None:
    write_group(tmp_path, "memory.max", "memory.current", (1000, 600), stat)
    assert left(tmp_path, "0::/\n") == [400]


def test_no_more_is_left_than_the_limit(tmp_path: Path) -> None:
    second(tmp_path, 1000, 10, 500)
    assert left(tmp_path, "0::/\n") == [1000]


@pytest.mark.parametrize("groups", [b"hello\n\n0::/a\xff\n", b"3:cpu:/\xe2\x80\xa8\n\n0::/a\xff"])
def test_names_of_groups_may_hold_any_bytes(tmp_path: Path, groups: bytes) -> None:
    second(tmp_path / os.fsdecode(b"a\xff"), 1000, 600, 100)
    (tmp_path / "groups").write_bytes(groups)
    assert left_of_limits(tmp_path / "groups", tmp_path) == [500]


def test_the_first_version_whose_path_in_a_container_is_the_host_s(tmp_path: Path) -> None:
    first(tmp_path / "memory", 1000, 900, 50)
    assert left(tmp_path, "4:memory:/docker/1234\n3:cpu,cpuacct:/docker/1234\n0::/\n") == [150]


def test_what_is_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    second(tmp_path, 1000, 1200, 0)
    assert left(tmp_path, "0::/\n") == [0]


def test_where_there_are_no_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert left_of_limits(tmp_path / "absent", tmp_path) == []


@pytest.mark.parametrize(("limits", "expected"), [([], 100), ([5, 10**18], 5), ([200], 100)])
def test_the_smallest_counts(monkeypatch: pytest.MonkeyPatch, limits: list[int], expected: int) -> None:
    """On a device that does not tell, as a CPU."""

    class Device:
        def memory_stats(self) -> None:
            return None

    monkeypatch.setattr(memory.jax, "local_devices", lambda: [Device()])
    monkeypatch.setattr(memory, "left_of_limits", lambda: limits)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=100))
    assert available_memory() == expected
