"""Files appear whole or not at all, with the mode of those that they replace; what a killed process left is removed."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dynabert_jax.system import files
from dynabert_jax.system.files import exchange, leftovers, temporary_beside, whole

KILLED = """
import os, sys
from pathlib import Path
from dynabert_jax.system.files import temporary_beside, whole

with whole(Path(sys.argv[1])) as file, temporary_beside(Path(sys.argv[2])) as folder:
    file.write_text("half")
    (folder / "deep").mkdir(parents=True)
    os.kill(os.getpid(), 9)
"""


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    with whole(file) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".txt"
        assert not file.exists()
    with contextlib.suppress(RuntimeError), whole(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    file, folder, other = tmp_path / "file.txt", tmp_path / "folder", tmp_path / "a.file.txt"
    subprocess.run([sys.executable, "-c", KILLED, str(file), str(folder)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    with whole(other) as temporary:
        temporary.touch()
    assert len(list(tmp_path.iterdir())) == 3  # another file's are left alone
    with whole(file) as temporary:
        temporary.touch()
    with temporary_beside(folder):
        assert leftovers(folder) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.file.txt", "file.txt"]


@pytest.mark.parametrize(
    ("host", "process", "left"),
    [
        ("here", "parent", False),  # it is alive
        ("here", "own", True),  # as this one, but of another start of the container
        ("another-host.org", 2**22 + 1, False),  # nothing is known about it
        ("here", 2**22 + 1, True),  # more than any system gives
        ("here", 10**30, False),
    ],
)
def test_only_what_an_ended_process_left_is_removed(host: str, process: int | str, left: bool, tmp_path: Path) -> None:
    host = socket.gethostname() if host == "here" else host
    process = {"parent": os.getppid(), "own": os.getpid()}.get(str(process), process)
    there = tmp_path / f".{host}-{process}-0123abcd.tmp.file.txt"
    there.touch()
    (tmp_path / ".file.txt").touch()
    (tmp_path / "notes.tmp.file.txt").touch()
    assert leftovers(tmp_path / "file.txt") == ([there] if left else [])


def test_two_writers_in_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    with whole(file) as one:
        one.write_text("one")
        with whole(file) as other:
            other.write_text("other")
        assert one.read_text() == "one"
    assert file.read_text() == "one"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges")
def test_folders_are_exchanged(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()
    assert (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "none")


def test_a_system_that_cannot_exchange_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    assert not exchange(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_file_that_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("old")
    file.chmod(mode)
    with whole(file) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600  # before anything is in it
        temporary.write_text("new")
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    with whole(tmp_path / "out.csv") as temporary:
        assert not temporary.exists()
        temporary.write_text("new")
    (tmp_path / "other").touch()
    assert (tmp_path / "out.csv").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("is_there", [True, False])
def test_the_file_that_a_link_names_is_replaced(is_there: bool, tmp_path: Path) -> None:
    real, link = tmp_path / "there" / "real.csv", tmp_path / "link.csv"
    real.parent.mkdir()
    if is_there:
        real.write_text("old")
    link.symlink_to(real)
    with whole(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert list(real.parent.iterdir()) == [real]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    file.write_text("old")
    with pytest.raises(FileNotFoundError), whole(file) as temporary:
        temporary.with_name("nothing").rename(temporary)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
