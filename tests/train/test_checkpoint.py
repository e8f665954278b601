"""Checkpoints return bit for bit, and one that is not whole is told from one that is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynabert_jax.system import devices
from dynabert_jax.train.checkpoint import CheckpointError, Checkpoints

ROOT = Path(__file__).parents[2]


def state(seed: int = 0) -> Any:
    """A training state in small: arrays large and empty, numbers that are hard to write down, and an optimizer's."""
    rng = np.random.default_rng(seed)
    params = {
        "kernel": rng.standard_normal((40, 30), np.float32),
        "odd": np.array([np.nan, -0.0, np.inf, 1e-45, 3.4e38], np.float32),
    }
    return devices.replicate(
        {"step": jnp.int32(seed), "params": params, "opt_state": optax.adam(1e-3).init(params), "none": {}}
    )


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def save(folder: Path, step: int = 3, tree: Any = None) -> None:
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(step, state() if tree is None else tree, {"best_score": 0.5})


def restore(folder: Path, like: Any = None) -> Any:
    with Checkpoints(folder) as checkpoints:
        return checkpoints.restore(state() if like is None else like)


def test_everything_returns_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path / "last", tree=state(seed=1))
    saved = restore(tmp_path / "last")
    assert saved.step == 3
    assert saved.record == {"best_score": 0.5}
    assert jax.tree.structure(saved.tree) == jax.tree.structure(state())
    assert bits(saved.tree) == bits(state(seed=1))
    like, placed = (jax.tree.leaves(tree)[0] for tree in (state(), saved.tree))
    assert placed.sharding == like.sharding


def test_a_score_that_there_is_not_yet_returns(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "last") as checkpoints:
        checkpoints.save(1, state(), {"best_score": -np.inf})
    assert restore(tmp_path / "last").record == {"best_score": -np.inf}


def test_the_newest_is_kept_and_a_step_is_written_once(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "last") as checkpoints:
        for step, seed in ((3, 1), (5, 2), (5, 3)):
            checkpoints.save(step, state(seed), {})
            checkpoints.wait()
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["5"]
    assert bits(restore(tmp_path / "last").tree) == bits(state(seed=2))


def test_one_of_an_earlier_step_is_not_lost_in_silence(tmp_path: Path) -> None:
    save(tmp_path / "last", step=12)
    with Checkpoints(tmp_path / "last") as checkpoints:
        assert checkpoints.newest == 12
        with pytest.raises(ValueError, match="has a checkpoint of step 12, so none of step 6 is kept"):
            checkpoints.save(6, state(), {})


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    """As on a disk that is full already."""
    (tmp_path / "stage").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write a checkpoint to .+/stage/last: .+ free some space"):
        Checkpoints(tmp_path / "stage" / "last")


def test_a_record_that_orbax_cannot_read_is_reported(undamaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("the disk is gone")

    with Checkpoints(undamaged) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", fail)
        with pytest.raises(CheckpointError, match=r"cannot be read: the disk is gone\. It is damaged"):
            checkpoints.record()


def test_there_is_none_in_a_new_folder(tmp_path: Path) -> None:
    assert restore(tmp_path / "stage" / "last") is None


def test_one_that_was_never_finished_is_none(tmp_path: Path) -> None:
    """As a kill leaves it: in a folder of a temporary name, which the next run removes."""
    save(tmp_path / "last")
    shutil.copytree(tmp_path / "last" / "3", tmp_path / "last" / "4.orbax-checkpoint-tmp")
    assert restore(tmp_path / "last").step == 3
    save(tmp_path / "last", step=4, tree=state(seed=1))
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["4"]


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undamaged") / "last"
    save(folder)
    return folder


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [empty, cut_in_half, flip_a_bit, Path.unlink])
def test_damage_is_noticed_whichever_file_it_hits(damage: Any, undamaged: Path, tmp_path: Path) -> None:
    """Either nothing is lost, or an error says where and what to do; never do other numbers come back."""
    harmless = []
    files = sorted(path.relative_to(undamaged) for path in undamaged.rglob("*") if path.is_file())
    for number, file in enumerate(files):
        folder = tmp_path / str(number) / "last"
        shutil.copytree(undamaged, folder)
        damage(folder / file)
        try:
            assert bits(restore(folder).tree) == bits(state())
            harmless.append(file)
        except CheckpointError as error:
            assert f"the checkpoint {folder / '3'} cannot be read" in str(error)  # noqa: PT017
            assert f"remove {folder.parent}, and the same command trains that stage again" in str(error)  # noqa: PT017
    assert not [file for file in harmless if {"tree", "record", "checksums.json"} & set(file.parts)]


@pytest.mark.parametrize("damage", [empty, cut_in_half, flip_a_bit, Path.unlink])
def test_in_the_place_of_a_damaged_one_comes_the_one_before(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is reported and removed, so that its step can be saved again."""
    folder = tmp_path / "last"
    with Checkpoints(folder, keep=2) as checkpoints:
        for step in (3, 4, 5):
            checkpoints.save(step, state(seed=step), {"step": step})
            checkpoints.wait()
    assert {path.name for path in folder.iterdir()} == {"4", "5"}
    damage(next((folder / "5" / "tree" / "d").iterdir()))
    with Checkpoints(folder, keep=2) as checkpoints:
        saved = checkpoints.restore(state())
        assert saved is not None
        assert (saved.step, saved.record) == (4, {"step": 4})
        assert bits(saved.tree) == bits(state(seed=4))
        assert f"the checkpoint {folder / '5'} is damaged (tree/d/" in caplog.text
        checkpoints.save(5, state(seed=6), {"step": 5})
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.record() == {"step": 5}
    assert bits(restore(folder).tree) == bits(state(seed=6))


def test_a_checkpoint_of_another_model_is_refused(undamaged: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read: .+ It is damaged, or belongs to another model"):
        restore(undamaged, devices.replicate({"params": state()["params"]}))


def test_checksums_lie_beside_what_they_are_of(undamaged: Path) -> None:
    noted = json.loads((undamaged / "3" / "checksums.json").read_text())
    assert all((undamaged / "3" / name).is_file() for name in noted)
    assert {name.split("/")[0] for name in noted} == {"tree", "record"}


ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from dynabert_jax.train.checkpoint import CheckpointError, Checkpoints

def tree(step):
    return {"kernel": np.random.default_rng(step).standard_normal((40, 30), np.float32)}

def save(checkpoints, step):
    checkpoints.save(step, tree(step), {})

def leave(checkpoints):
    with checkpoints:
        save(checkpoints, 4)

def wait(checkpoints):
    with checkpoints:
        save(checkpoints, 4)
        checkpoints.wait()

def go_on(checkpoints):
    with checkpoints:
        save(checkpoints, 4)
        save(checkpoints, 5)

def interrupt(checkpoints):
    with checkpoints:
        save(checkpoints, 4)
        raise KeyboardInterrupt

folder = Path(sys.argv[1]) / "last"
with Checkpoints(folder) as checkpoints:
    save(checkpoints, 3)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
for write in (leave, wait, go_on, interrupt):
    try:
        write(Checkpoints(folder))
    except (CheckpointError, KeyboardInterrupt) as error:
        print(write.__name__, type(error).__name__, str(error).partition(":")[0])
with Checkpoints(folder) as checkpoints:
    saved = checkpoints.restore(tree(0))
print("kept", saved.step, np.array_equal(saved.tree["kernel"], tree(3)["kernel"]))
"""


def test_a_full_disk_is_reported_and_the_checkpoint_before_is_whole(tmp_path: Path) -> None:
    """The system of a process of its own refuses larger files. What the block itself raises goes before."""
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)], text=True, capture_output=True, timeout=300, cwd=ROOT
    )
    message = f"CheckpointError cannot write a checkpoint to {tmp_path / 'last'}"
    expected = [
        f"leave {message}",
        f"wait {message}",
        f"go_on {message}",
        "interrupt KeyboardInterrupt ",
        "kept 3 True",
    ]
    assert done.stdout.splitlines() == expected, done.stderr
