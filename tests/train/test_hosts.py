"""A run is the same on any number of devices and of processes, and none of them hangs when another one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np
import pytest

import tiny_run
import train
from dynabert_jax.cli.guard import guarded
from dynabert_jax.cli.train import FULL
from dynabert_jax.config import RunConfig
from dynabert_jax.system import devices
from dynabert_jax.system.devices import ParallelError
from dynabert_jax.weights.files import load_model
from tiny import assert_trees_close
from tiny_run import Materials, lines, write_config

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="devices of the CPU stand in for accelerators")


def start(command: Sequence[str], devices: int, programs: Path, **environment: str) -> subprocess.Popen[str]:
    """A run in a process that has so many devices."""
    settings = {
        **tiny_run.cpu_devices(devices),
        "NPROC": "16",  # threads of XLA: several devices that wait for another process need one each
        **{name: str(value) for name, value in tiny_run.cache_settings(programs).items()},
    }
    return subprocess.Popen(
        command, env=os.environ | settings | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start_together(
    command: Sequence[str], processes: int, programs: Path, second: Sequence[str] = ()
) -> list[subprocess.Popen[str]]:
    """A run in so many processes, of one device each; the second one with arguments of its own."""
    together = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": str(processes)}
    return [
        start([*command, *(second if number == 1 else ())], 1, programs, **together, JAX_PROCESS_ID=str(number))
        for number in range(processes)
    ]


def finish(processes: Sequence[subprocess.Popen[str]], timeout: float = 300) -> list[str]:
    """What each of them wrote to stderr; none is left behind."""
    try:
        return [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()


def run_alone(config: RunConfig, folder: Path, devices: int, programs: Path) -> None:
    """To its end, in one process."""
    (errors,) = finish([start(command_of(config, folder), devices, programs)])
    assert (Path(config.run_dir) / "results.md").exists(), errors


def command_of(config: RunConfig, folder: Path) -> list[str]:
    return [sys.executable, str(Path(train.__file__)), str(write_config(folder / "config.py", config))]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run has compiled, others on as many devices use."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def on_one_device(materials: Materials, programs: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("one")
    config = materials.few_students(folder / "run")
    run_alone(config, folder, 1, programs)
    return config


def assert_same_but_for_rounding(left: RunConfig, right: RunConfig) -> None:
    """Scores are the same; losses and weights are sums in another order."""
    ours, theirs = (lines(Path(run.run_dir) / "training.jsonl") for run in (left, right))
    assert [(line["stage"], line["step"]) for line in ours] == [(line["stage"], line["step"]) for line in theirs]
    for own, other in zip(ours, theirs, strict=True):
        assert own["losses"].keys() == other["losses"].keys()
        for sub, parts in own["losses"].items():
            for name, value in parts.items():
                place = f"{own['stage']} {own['step']} {sub} {name}"
                np.testing.assert_allclose(value, other["losses"][sub][name], rtol=1e-3, atol=1e-4, err_msg=place)
    ours, theirs = (scores_of(run) for run in (left, right))
    assert ours == theirs
    models = [load_model(Path(run.run_dir) / "model").params for run in (left, right)]
    assert_trees_close(*models, rtol=1e-2, atol=2e-3)


def scores_of(config: RunConfig) -> list[tuple[Any, ...]]:
    logged = lines(Path(config.run_dir) / "evaluations.jsonl")
    return [
        (line["stage"], line["step"], line["sub"], line["split"], line["examples"], line["scores"]) for line in logged
    ]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 4, 8])
def test_devices_share_a_run(
    devices: int, on_one_device: RunConfig, materials: Materials, programs: Path, tmp_path: Path
) -> None:
    config = materials.few_students(tmp_path / "run")
    run_alone(config, tmp_path, devices, programs)
    assert_same_but_for_rounding(on_one_device, config)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_a_run(
    processes: int, on_one_device: RunConfig, materials: Materials, programs: Path, tmp_path: Path
) -> None:
    config = materials.few_students(tmp_path / "run")
    running = start_together(command_of(config, tmp_path), processes, programs)
    errors = finish(running)
    assert [process.returncode for process in running] == [0] * processes, errors
    assert_same_but_for_rounding(on_one_device, config)
    assert all("examples" not in one for one in errors[1:])  # the first one alone has a progress bar


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_the_others_end_when_one_is_killed_and_another_number_of_them_goes_on(
    killed: int, on_one_device: RunConfig, materials: Materials, programs: Path, tmp_path: Path
) -> None:
    config = materials.few_students(tmp_path / "run")
    command = command_of(config, tmp_path)
    running = start_together(command, 2, programs)
    log = tmp_path / "run" / "training.jsonl"
    wait_for(lambda: log.exists() and '"width"' in log.read_text(), running)
    running[killed].send_signal(signal.SIGKILL)
    since = time.monotonic()
    errors = finish([running[1 - killed]], timeout=60)[0]
    assert time.monotonic() - since < 60
    assert running[1 - killed].returncode not in (0, -signal.SIGKILL)
    assert "another process of this run has ended" in errors.replace("\n", " ") or "another task died" in errors
    finish(running)
    run_alone(config, tmp_path, 4, programs)
    assert_same_but_for_rounding(on_one_device, config)


def is_compiling(run: Path) -> bool:
    """The first stage has begun, and no step of it is logged."""
    return (run / "fine_tune").exists() and not (run / "training.jsonl").exists()


@pytest.mark.slow
def test_a_signal_before_the_first_step_ends_all(
    on_one_device: RunConfig, materials: Materials, programs: Path, tmp_path: Path
) -> None:
    """One that waits for the first step ends all of them likewise; before, each ends by itself: nothing can be lost."""
    config = materials.few_students(tmp_path / "run", log_every=2)
    running = start_together(command_of(config, tmp_path), 2, programs)
    wait_for(lambda: is_compiling(tmp_path / "run"), running)
    running[1].send_signal(signal.SIGTERM)
    errors = finish(running, timeout=90)
    codes = [process.returncode for process in running]
    assert codes[1] == 128 + signal.SIGTERM, errors
    assert codes[0] in (codes[1], 1), errors
    assert codes[0] != 1 or "another process of this run has ended" in errors[0].replace("\n", " "), errors
    run_alone(config, tmp_path, 1, programs)
    assert scores_of(config) == scores_of(on_one_device)


def wait_for(condition: Callable[[], bool], running: Sequence[subprocess.Popen[str]]) -> None:
    """Until it holds; ends all processes where one of them has ended before, or it takes too long."""
    end = time.monotonic() + 200
    while not condition():
        if time.monotonic() > end or any(process.poll() is not None for process in running):
            for process in running:
                process.kill()
            pytest.fail(f"it never came to that: {finish(running)}")
        time.sleep(0.01)


# A run's configuration is a Python file: this one lets the second process get a signal when it calls a function of the
# depth stage for the nth time, so that the moment is always the same.
SIGNALLED = """
import os, signal
from dynabert_jax.train import loop

if os.environ.get("JAX_PROCESS_ID") == "1":
    calls, function = [], loop.{function}

    def signalled(*args, **kwargs):
        objective = next(value for value in args if type(value).__name__ == "Distillation")
        calls.append(objective.stage.name)
        if calls[-1] == "depth" and calls.count("depth") == {call}:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    loop.{function} = signalled
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "call", "settings", "message"),
    [
        ("train_step", 3, {"log_every": 2}, "step 4 of 12 of stage depth is saved"),  # where numbers are looked at
        ("train_step", 3, {"log_every": 1000, "checkpoint_every": 5}, "step 5 of 12 of stage depth is saved"),
        ("train_step", 3, {"log_every": 1000, "checkpoint_every": 1000}, "step 6 of 12 of stage depth is saved"),
        ("score_dev", 1, {"log_every": 2}, "step 8 of 12 of stage depth is saved"),  # evaluated behind step 6
        ("score_dev", 2, {"log_every": 2}, "stage depth is finished and saved"),
    ],
)
def test_one_signal_saves_and_stops_all(
    function: str, call: int, settings: dict[str, int], message: str, on_one_device: RunConfig, materials: Materials,
    programs: Path, tmp_path: Path,
) -> None:  # fmt: skip
    config = materials.few_students(tmp_path / "run", **settings)
    command = command_of(config, tmp_path)
    with Path(command[-1]).open("a") as file:
        file.write(SIGNALLED.format(function=function, call=call))
    running = start_together(command, 2, programs)
    errors = finish(running)
    assert [process.returncode for process in running] == [128 + signal.SIGTERM] * 2, errors
    assert all(f"stopped: {message}; the same command resumes from there" in one for one in errors), errors
    run_alone(config, tmp_path, 1, programs)  # and another number of processes goes on
    assert scores_of(config) == scores_of(on_one_device)


@pytest.mark.slow
def test_one_that_cannot_begin_ends_all(materials: Materials, programs: Path, tmp_path: Path) -> None:
    config = materials.few_students(tmp_path / "run")
    (tmp_path / "run").mkdir()
    with filelock.FileLock(tmp_path / "run" / ".lock"):
        running = start_together(command_of(config, tmp_path), 2, programs)
        errors = finish(running, timeout=90)
    assert running[0].returncode == 2, errors
    assert "another process is training or evaluating in" in errors[0]
    assert running[1].returncode not in (0, -signal.SIGKILL), errors


@pytest.mark.slow
def test_data_that_differs_between_processes_is_refused(materials: Materials, programs: Path, tmp_path: Path) -> None:
    """By all of them, and before anything is trained."""
    config = materials.few_students(tmp_path / "run")
    running = start_together(command_of(config, tmp_path), 2, programs, second=("--seed", "7"))
    errors = finish(running, timeout=90)
    assert [process.returncode for process in running] == [2, 2], errors
    assert all("these differ from process 0: the configuration (process 1)" in one for one in errors)


# Lets the second process read another test file under the same configuration, as from a local disk.
OTHER_TEST_FILE = """
import os
from dynabert_jax.train import run

if os.environ.get("JAX_PROCESS_ID") == "1":
    read = run.read_texts
    run.read_texts = lambda data, *rest: read(data.replace(test_file=data.dev_file), *rest)
"""


@pytest.mark.slow
def test_a_test_file_that_differs_between_processes_is_refused(
    materials: Materials, programs: Path, tmp_path: Path
) -> None:
    """It would not change the training, and the scores would be those of neither file."""
    command = command_of(materials.few_students(tmp_path / "run"), tmp_path)
    with Path(command[-1]).open("a") as file:
        file.write(OTHER_TEST_FILE)
    running = start_together(command, 2, programs)
    errors = finish(running, timeout=90)
    assert [process.returncode for process in running] == [2, 2], errors
    assert all("these differ from process 0: the test split test (process 1). " in one for one in errors), errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"jax": "2", "data": "9" * 64}, r"differ from process 0: jax \(process 0 has 1, process 1 has 2\)\. "),
        ({"jax": "1", "data": "8" * 64}, r"differ from process 0: data \(process 1\)\. "),
        ({"jax": "1"}, r"differ from process 0: data \(process 1\)\. "),
        ({"jax": "1", "data": "9" * 64, "more": "x"}, r"more \(process 0 has nothing, process 1 has x\)\. "),
        ({"jax": "2", "data": "8" * 64}, r"jax \(process 0 has 1, process 1 has 2\); data \(process 1\)\. "),
    ],
)
def test_what_differs_is_named(second: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = {"jax": "1", "data": "9" * 64}
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(devices, "_texts_of_all", lambda _: [json.dumps(one) for one in (first, second, first)])
    with pytest.raises(ParallelError, match=message):
        devices.check_same_everywhere(first)
    monkeypatch.setattr(devices, "_texts_of_all", lambda _: [json.dumps(first)] * 3)
    devices.check_same_everywhere(first)


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (jax.errors.JaxRuntimeError("INTERNAL: connection reset"), True),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:18652"), True),
        (ValueError("an index is too large"), False),
        (AssertionError("UNKNOWN: that is no error of the runtime"), False),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes"), False),
    ],
)
def test_a_lost_process_is_reported_behind_the_traceback(
    error: Exception, reported: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("dynabert_jax.system.devices.is_joined", lambda: True)
    monkeypatch.setattr("dynabert_jax.cli.guard.ended", lambda code: code)
    assert guarded(fail) == 1
    errors = capsys.readouterr().err
    assert str(error) in errors
    assert ("another process of this run has ended" in errors.replace("\n", " ")) == reported


def test_memory_that_is_short_is_reported_as_such_by_one_of_several(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore")

    monkeypatch.setattr("dynabert_jax.system.devices.is_joined", lambda: True)
    monkeypatch.setattr("dynabert_jax.cli.guard.ended", lambda code: code)
    assert guarded(fail, when_full=FULL) == 2
    errors = capsys.readouterr().err
    assert "not enough memory (RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.). The same" in errors
    assert "--gradient-accumulation N" in errors
    assert "another process" not in errors


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"JAX_NUM_PROCESSES must be a whole number; got ''"),
        ({"JAX_NUM_PROCESSES": "2"}, r"JAX_PROCESS_ID must be a whole number; got ''"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "one"}, r"JAX_PROCESS_ID must be a whole number; got 'one'"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, r"counts from 0 to JAX_NUM_PROCESSES - 1; got 2 of 2"),
    ],
)
def test_settings_that_do_not_fit_are_reported(
    settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"} | settings).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ParallelError, match=message):
        devices.connect()


def test_one_process_joins_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: pytest.fail("there is nobody to join"))
    devices.connect()
    assert devices.num_hosts() == 1
    assert devices.is_first()
    assert devices.any_host(True)
    assert not devices.any_host(False)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0,), "after 3 seconds, process 1 of 2 did not come to process 0 at 127.0.0.1:"),
        ((1,), "has waited 3 seconds for process 0 at 127.0.0.1:"),
        ((0, 0), "process 0 cannot listen at 127.0.0.1:"),
        ((0, 1, 1), "two processes have JAX_PROCESS_ID=1"),
    ],
)
@pytest.mark.slow
def test_processes_that_do_not_meet_end_with_a_message(
    numbers: Sequence[int], message: str, materials: Materials, programs: Path, tmp_path: Path
) -> None:
    """jax itself would wait for minutes, and end in a stack trace of C++ or by a signal."""
    command = command_of(materials.fine_tuning(tmp_path / "run"), tmp_path)
    together = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "3" if len(numbers) > 2 else "2"}
    together["DYNABERT_MEETING_SECONDS"] = "3" if len(numbers) < 3 else "30"
    running = [start(command, 1, programs, **together, JAX_PROCESS_ID=str(number)) for number in numbers]
    errors = finish(running, timeout=60)
    assert [process.returncode for process in running] == [2] * len(numbers), errors
    assert any(message in one for one in errors), errors
    assert all("error: " in one and "Traceback" not in one and "@     0x" not in one for one in errors), errors
    assert not (tmp_path / "run").exists()
