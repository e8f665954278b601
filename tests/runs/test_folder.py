"""The run folder's files: whole or not there, of one configuration, and without lines of steps that were lost."""

import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dynabert_jax.config import RunConfig
from dynabert_jax.runs.files import RunFolderError, write_arrays, write_whole
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.logs import provenance
from dynabert_jax.system.packages import version
from dynabert_jax.weights.rewire import Scores
from full_disk import files_up_to
from tiny_run import Materials, any_origin, lines


@pytest.fixture
def config(materials: Materials, tmp_path: Path) -> RunConfig:
    return materials.config(tmp_path / "runs" / "one")


def begun(config: RunConfig) -> RunFolder:
    """A folder as a run has it that passed all checks."""
    folder = RunFolder.open(config)
    with folder.begun(config):
        return folder


def test_nothing_is_written_before_the_run_begins(config: RunConfig, tmp_path: Path) -> None:
    """Not even the folder, nor the one it is to stand in."""
    RunFolder.open(config)
    assert not (tmp_path / "runs").exists()


def test_a_new_folder_holds_the_configuration(config: RunConfig) -> None:
    folder = begun(config)
    assert {path.name for path in folder.path.iterdir()} == {"config.json", ".lock"}
    assert RunFolder.existing(folder.path).config() == config


def test_the_same_configuration_comes_back_to_it(config: RunConfig) -> None:
    begun(config)
    begun(config)
    assert RunFolder(Path(config.run_dir)).config() == config


def test_two_processes_do_not_work_in_one_folder(config: RunConfig) -> None:
    """The lock of a process that is gone, by whatever means, is gone with it."""
    folder = RunFolder.open(config)
    hold = """if True:
        import filelock, sys
        with filelock.FileLock(sys.argv[1]):
            print("mine", flush=True)
            sys.stdin.read()"""
    begun(config)
    command = [sys.executable, "-c", hold, str(folder.path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"mine\n"
        with pytest.raises(
            RunFolderError, match=r"another process is training or evaluating in .+one; wait for it, stop it, or set"
        ):
            begun(config)
        other.kill()
    begun(config)


def test_an_empty_folder_is_as_good_as_none(config: RunConfig) -> None:
    """So is one with the hidden files that file managers leave everywhere."""
    Path(config.run_dir).mkdir(parents=True)
    Path(config.run_dir, ".DS_Store").touch()
    assert begun(config).config() == config


def test_a_folder_of_other_files_is_refused(config: RunConfig) -> None:
    Path(config.run_dir).mkdir(parents=True)
    Path(config.run_dir, "thesis.tex").touch()
    with pytest.raises(
        RunFolderError, match=r"runs/one is not a run folder: it holds thesis\.tex and no config\.json; set"
    ):
        RunFolder.open(config)
    assert [path.name for path in Path(config.run_dir).iterdir()] == ["thesis.tex"]


def test_a_home_folder_is_one_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: RunConfig) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = config.replace(run_dir="~/mine")
    begun(config)
    assert (tmp_path / "mine" / "config.json").is_file()
    assert RunFolder.existing(Path("~/mine")).model == tmp_path / "mine" / "model"


def test_it_may_have_been_moved(config: RunConfig, tmp_path: Path) -> None:
    shutil.move(begun(config).path, tmp_path / "moved")
    RunFolder.open(config.replace(run_dir=str(tmp_path / "moved")))


def test_another_configuration_is_refused_with_every_difference(config: RunConfig) -> None:
    folder = begun(config)
    assert config.depth is not None
    changed = config.replace(seed=1, final=None, depth=config.depth.replace(widths=(1.0,)))
    with pytest.raises(RunFolderError) as error:
        RunFolder.open(changed)
    message = str(error.value)
    assert f"the run folder {config.run_dir} belongs to another configuration" in message
    assert "seed was 42 and is 1" in message
    assert "depth.widths was [1.0, 0.5] and is [1.0]" in message
    assert "final.epochs was 2 and is None" in message
    assert "run_dir was" not in message
    assert "width.widths" not in message
    assert "set run_dir to a new folder" in message
    assert folder.config() == config


def test_what_changes_no_result_may_change(config: RunConfig) -> None:
    """Such as what a run goes on with that was short of memory; the folder then tells the new values."""
    folder = begun(config)
    other = config.replace(
        gradient_accumulation=2, rematerialize=True, log_every=3, checkpoint_every=9,
        data=config.data.replace(eval_batch_size=4),
    )  # fmt: skip
    with RunFolder.open(other).begun(other):
        assert folder.config() == other
    with pytest.raises(RunFolderError, match=r"seed was 42 and is 1\. .*gradient_accumulation, .+ may change"):
        RunFolder.open(other.replace(seed=1))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": 1}', "\x00"])
def test_a_configuration_that_cannot_be_read_is_an_error_and_stays(config: RunConfig, text: str) -> None:
    folder = begun(config)
    folder.config_file.write_text(text)
    for use in (lambda: RunFolder.open(config), RunFolder.existing(folder.path).config):
        with pytest.raises(RunFolderError, match=rf"{folder.config_file} cannot be read: .+ name another run folder"):
            use()
    assert folder.config_file.read_text() == text


def test_a_folder_that_cannot_be_made_is_an_error(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(
            RunFolderError, match=f"cannot write to the run folder {run_dir}: .+ set run_dir to another"
        ):
            RunFolder.open(config.replace(run_dir=str(run_dir)))
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_that_may_not_be_written_to_is_an_error(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    with pytest.raises(
        RunFolderError, match=f"cannot write to the run folder .+: {tmp_path} is read-only; set run_dir"
    ):
        RunFolder.open(config)


def test_a_folder_that_no_run_made_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunFolderError, match=f"{path} is not a run folder: it has no config.json"):
            RunFolder.existing(path)


# Logs


def test_lines_of_lost_steps_are_forgotten_and_no_others(config: RunConfig) -> None:
    folder = begun(config)
    for stage in ("fine_tune", "width"):
        for step in (2, 4, 6):
            folder.append_training({"stage": stage, "step": step, "loss": 0.5})
            folder.append_evaluations([{"stage": stage, "step": step, "sub": sub} for sub in ("w1", "w0.5")])
    folder.forget_after("width", 4, None)
    kept = [("fine_tune", 2), ("fine_tune", 4), ("fine_tune", 6), ("width", 2), ("width", 4)]
    training, evaluations = (lines(folder.path / f"{name}.jsonl") for name in ("training", "evaluations"))
    assert [(line["stage"], line["step"]) for line in training] == kept
    assert [(line["stage"], line["step"], line["sub"]) for line in evaluations] == [
        (*line, sub) for line in kept for sub in ("w1", "w0.5")
    ]
    folder.append_training({"stage": "width", "step": 5})
    assert len(lines(folder.path / "training.jsonl")) == 6


def test_a_line_that_a_kill_left_half_written_is_dropped(config: RunConfig) -> None:
    folder = begun(config)
    append_lines(folder, [1])
    with (folder.path / "training.jsonl").open("a") as file:
        file.write('{"stage": "fine_tune", "st')
    folder.forget_after("fine_tune", 8, None)
    assert lines(folder.path / "training.jsonl") == [{"stage": "fine_tune", "step": 1}]


def test_damaged_lines_of_a_log_are_reported_and_dropped(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a disk has made of them; the last one alone may be half written without a word."""
    folder = begun(config)
    whole = [{"stage": "width", "step": step} for step in (1, 2)]
    damaged = [b"\xff\xfe{", b"[1, 2]", b'{"a": 1}', b"[" * 100_000, b""]
    damaged += [b'{"stage": "width", "step": %s}' % step for step in (b"null", b'"2"', b"true", b"1.5", b"-1", b"[]")]
    damaged += [b'{"stage": ["width"], "step": 1}', b'{"stage": "width", "step": 1' + b"0" * 400 + b"}"]
    texts = [json.dumps(whole[0]).encode(), *damaged, json.dumps(whole[1]).encode(), b'{"stage": "wi']
    (folder.path / "training.jsonl").write_bytes(b"\n".join(texts))
    folder.forget_after("width", 2, None)
    assert lines(folder.path / "training.jsonl") == whole
    assert "training.jsonl: lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14 are damaged and are dropped" in caplog.text


def test_a_log_that_cannot_be_read_is_reported(config: RunConfig) -> None:
    folder = begun(config)
    (folder.path / "training.jsonl").mkdir()
    with pytest.raises(RunFolderError, match=r"training\.jsonl cannot be read \(.+\); restore it, or move it away"):
        folder.forget_after("width", 2, None)


def test_lines_of_a_stage_take_the_place_of_its_earlier_ones(config: RunConfig) -> None:
    folder = begun(config)
    folder.append_evaluations([{"stage": "width", "step": 2}])
    for sub in ("w1", "w0.5"):
        folder.replace_evaluations("results", [{"stage": "results", "step": None, "sub": sub}])
    folder.forget_after("width", 2, None)
    assert lines(folder.path / "evaluations.jsonl") == [
        {"stage": "width", "step": 2},
        {"stage": "results", "step": None, "sub": "w0.5"},
    ]


def test_there_is_nothing_to_forget_before_anything_is_logged(config: RunConfig) -> None:
    begun(config).forget_after("width", 0, None)


def test_the_origin_of_numbers_names_every_version_they_depend_on(config: RunConfig) -> None:
    origin = provenance(config)
    ours = ("dynabert_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers")
    assert {name: origin[name] for name in ours} == {name: importlib.metadata.version(name) for name in ours}
    assert origin["numpy"] == np.__version__


def test_a_package_that_is_not_installed_has_no_version() -> None:
    """As this one, where its folder is just there."""
    assert version("nothing-of-that-name") is None


# Importance


def scores() -> Scores:
    rng = np.random.default_rng(0)
    heads = tuple(rng.random(n, np.float32) for n in (4, 3, 1))
    return Scores(heads, tuple(rng.random(n, np.float32) for n in (24, 5, 12)))


def test_importance_returns_as_it_was(config: RunConfig) -> None:
    folder = begun(config)
    folder.write_importance(scores(), any_origin(config, "importance"))
    found = folder.read_importance(any_origin(config, "importance"))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(scores()), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)
    assert [len(heads) for heads in found.heads] == [4, 3, 1]


@pytest.mark.parametrize("keep", [0, 10, 700])
def test_damaged_importance_is_an_error(config: RunConfig, keep: int) -> None:
    folder = begun(config)
    folder.write_importance(scores(), any_origin(config, "importance"))
    data = folder.importance_file.read_bytes()
    assert len(data) > keep
    folder.importance_file.write_bytes(data[:keep])
    with pytest.raises(RunFolderError, match=r"importance\.npz is damaged .+ remove .+ the same command computes it"):
        folder.read_importance(any_origin(config, "importance"))


# Whole or not at all


def write_long_text(path: Path) -> None:
    write_whole(path, "x" * 10_000)


def write_large_array(path: Path) -> None:
    write_arrays(path, {"x": np.zeros(10_000)})


@pytest.mark.parametrize("write", [write_long_text, write_large_array])
def test_a_full_disk_leaves_what_was_there(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_text("before")
    with (
        pytest.raises(RunFolderError, match=f"cannot write {path}: .+ the same command then resumes"),
        files_up_to(3000),
    ):
        write(path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"file.npz": "before"}


def test_a_log_on_a_full_disk_is_an_error_and_its_whole_lines_are_read(config: RunConfig) -> None:
    folder = begun(config)
    with pytest.raises(RunFolderError, match=r"cannot write .+training\.jsonl"), files_up_to(3000):
        append_lines(folder, range(1, 1000))
    folder.forget_after("fine_tune", 50, None)
    assert [line["step"] for line in lines(folder.path / "training.jsonl")] == list(range(1, 51))


def append_lines(folder: RunFolder, steps: Iterable[int]) -> None:
    for step in steps:
        folder.append_training({"stage": "fine_tune", "step": step})


def test_tensorboard_on_a_full_disk_is_an_error_and_does_not_wait_for_ever(config: RunConfig) -> None:
    folder = begun(config)
    with pytest.raises(RunFolderError, match=r"cannot write .+tensorboard/width"), files_up_to(3000):
        write_scalars(folder, 1000)


def write_scalars(folder: RunFolder, count: int) -> None:
    with folder.scalars("width", 0) as scalars:
        for step in range(count):
            scalars.add(step, {"loss": 0.5})


def test_tensorboard_is_reported_where_a_stage_goes_on(config: RunConfig) -> None:
    """What it has read of later steps was of a run that was stopped."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    with begun(config).scalars("width", 7):
        pass
    (file,) = (Path(config.run_dir) / "tensorboard" / "width").iterdir()
    data = file.read_bytes()
    first = 12 + int.from_bytes(data[:8], "little") + 4  # the file's version, which stands before all events
    event = Event.FromString(data[first + 12 : -4])
    assert (event.step, event.session_log.status) == (8, SessionLog.START)


def test_files_are_utf8_wherever_they_are_written(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python takes ASCII if nothing is said."""
    monkeypatch.setattr(io, "text_encoding", lambda encoding, *_: encoding or "ascii")
    german = config.replace(model="Sprüche")
    folder = begun(german)
    append_lines(folder, [1])
    folder.forget_after("fine_tune", 1, None)
    assert "Sprüche" in folder.config_file.read_bytes().decode("utf-8")
    assert folder.config() == german


def test_json_is_strict(config: RunConfig) -> None:
    """The configuration's own file is read by any program."""
    json.loads(begun(config).config_file.read_text(), parse_constant=lambda name: pytest.fail(name))


def test_the_home_of_nobody_is_a_folder_of_that_name(config: RunConfig) -> None:
    assert RunFolder(config.replace(run_dir="~nobody-of-that-name/run").run_dir).path.parts[0] == "~nobody-of-that-name"


def test_a_model_in_the_place_of_a_run_is_recognised(config: RunConfig, materials: Materials) -> None:
    """Its config.json has the keys of another format, which would fill the screen."""
    with pytest.raises(
        RunFolderError, match=r"model is a model or an export, and not a run: .+; name the run_dir of a run"
    ):
        RunFolder.existing(materials.model)
    with pytest.raises(RunFolderError, match="is a model or an export, and not a run"):
        RunFolder.open(config.replace(run_dir=str(materials.model)))
    folder = begun(config)
    shutil.copytree(materials.model, folder.model)
    with pytest.raises(RunFolderError, match=rf"is the model of a run; name the run's folder, {folder.path}$"):
        RunFolder.existing(folder.model)
