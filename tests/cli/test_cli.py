"""The command line: what a user does wrong is reported in plain words, with exit code 2, before any long work."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

import tiny_rows
import train
from dynabert_jax import __main__
from dynabert_jax.choose import bench, question
from dynabert_jax.choose.bench import BenchSettings
from dynabert_jax.choose.choose import Limits
from dynabert_jax.cli.guard import ignore_lost_tasks, use_compilation_cache
from dynabert_jax.cli.train import Asked, main, read_config
from dynabert_jax.config import ConfigError
from dynabert_jax.runs.latency_card import Where
from dynabert_jax.system import devices
from dynabert_jax.train.run import train_run
from dynabert_jax.weights.files import load_model, save_model
from tiny_run import Finished, Materials, cache_settings, record_model, write_config

ROOT = Path(train.__file__).parent


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets for its whole process would be set for all other tests."""
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)


@pytest.fixture
def config_file(materials: Materials, tmp_path: Path) -> Path:
    return write_config(tmp_path / "config.py", materials.config(tmp_path / "run"))


Command = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Gives the command and returns what it said, after making sure that nothing was done."""
    monkeypatch.setattr("dynabert_jax.train.run.train_stage", lambda *_, **__: pytest.fail("training began"))

    def give(*arguments: Any) -> str:
        assert exit_code(lambda: main([str(argument) for argument in arguments])) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert "Traceback" not in errors
        assert not (tmp_path / "run").exists()
        return " ".join(errors.replace("│", " ").split())  # tyro puts a box around its messages

    return give


def exit_code(command: Callable[[], int]) -> Any:
    """tyro leaves the process by itself."""
    try:
        return command()
    except SystemExit as leaving:
        return leaving.code


# The configuration file

PREFIX = "from dynabert_jax import *\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("configuration = 3", "must set `config` to a dynabert_jax.RunConfig; it is NoneType"),
        ("config = {'model': 'm'}", "must set `config` to a dynabert_jax.RunConfig; it is dict"),
        ("config = (", "does not run: SyntaxError: '(' was never closed"),
        ("import nothing_of_that_name", "does not run: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("\x00", "does not run: SyntaxError: source code"),
        (PREFIX + "config = RunConfig(modle='m')", "unknown key 'modle'; did you mean 'model'? allowed: model, data"),
        (PREFIX + "Optimizer(learing_rate=1e-5)", "unknown key 'learing_rate'; did you mean 'learning_rate'?"),
        (PREFIX + "DepthStage(epochs='two')", "epochs = 'two': should be a valid integer"),
        (PREFIX + "WidthStage(widths=(1.0, 0.0))", "widths.1 = 0.0: should be greater than 0"),
        (PREFIX + "WidthStage(widths=(1.5,))", "widths.0 = 1.5: should be less than or equal to 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(text: str, message: str, refused: Command, tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text(text)
    said = refused(file)
    assert said.startswith(f"error: {file}")
    assert message in said


def test_a_file_that_is_not_there_is_named(refused: Command, tmp_path: Path) -> None:
    for path in (tmp_path / "missing.py", tmp_path):
        assert f"there is no configuration file {path}" in refused(path)


# Settings on the command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sead", "3"], "Unrecognized options: --sead, 3"),
        (["--sead", "3"], "Perhaps you meant: --seed INT"),
        (["--depth.optimizer.learing-rate", "1"], "Perhaps you meant: --depth.optimizer.learning-rate"),
        (["--seed", "many"], "Error parsing --seed: invalid literal for int() with base 10: 'many'"),
        (["--seed", "-1"], "seed = -1: should be greater than or equal to 0"),
        (["--width.widths", "0"], "widths.0 = 0.0: should be greater than 0"),
        (["--width.widths", "0.5", "1.5"], "widths.1 = 1.5: should be less than or equal to 1"),
        (["--dtype", "float16"], "Expected one of ('float32', 'bfloat16')"),
        (["--data.lengths", "2"], "lengths (2,) leave no room for a token between [CLS] and [SEP]"),
        (
            ["--num_train_epochs", "3"],
            "no setting --num_train_epochs: that is a name of Hugging Face's Trainer; here it is",
        ),
        (["--per-device-train-batch-size=8"], "here it is --data.batch-size (it counts the examples of all devices"),
        (["--epochs"], "--epochs needs a number, such as --epochs 4"),
        (["--epochs", "four"], "--epochs must be a number, such as 4; got 'four'"),
        (["--epochs", "0"], "epochs = 0: should be greater than or equal to 1"),
        (["--epochs", "1.5"], "--epochs must be a number, such as 4; got '1.5'"),
        (["--epochs", "3", "--epochs=4"], "--epochs is given 2 times; give it once"),
        (["--epoch", "3"], "Unrecognized options: --epoch"),
        (["--learning-rate=nan"], "learning_rate = nan: should be a finite number"),
        (
            ["--no-fine-tune", "--fine-tune.epochs", "3"],
            "--no-fine-tune leaves out the stage that --fine-tune.epochs sets; remove one of them",
        ),
        (["--no-fine-tune", "--stage", "fine_tune"], "the run has no stage 'fine_tune'; it has width, depth, final"),
        (["--stage"], "--stage needs the name of a stage: fine_tune, width, depth or final"),
        (["--stage", "dept"], "the run has no stage 'dept'; it has fine_tune, width, depth, final"),
        (["--stage=dept"], "the run has no stage 'dept'; it has fine_tune, width, depth, final"),
    ],
)
def test_a_setting_that_cannot_be_used_is_reported(
    arguments: list[str], message: str, refused: Command, config_file: Path
) -> None:
    assert message in refused(config_file, *arguments)


def test_settings_of_all_stages_reach_the_run_and_one_stages_own_win(config_file: Path) -> None:
    calls: list[Any] = []
    arguments = ["--no-fine-tune", "--epochs", "4", "--learning_rate=5e-5", "--depth.epochs", "6",
                 "--final.optimizer.learning-rate", "1e-5"]  # fmt: skip
    assert main([str(config_file), *arguments], lambda *call: calls.append(call)) == 0
    [(asked,)] = calls
    config = asked.config
    assert config.fine_tune is None
    assert {name: stage.epochs for name, stage in config.stages.items()} == {"width": 4, "depth": 6, "final": 4}
    rates = {name: stage.optimizer.learning_rate for name, stage in config.stages.items()}
    assert rates == {"width": 5e-5, "depth": 5e-5, "final": 1e-5}


def test_settings_and_stage_reach_the_run(config_file: Path) -> None:
    calls: list[Any] = []
    arguments = ["--seed", "7", "--stage", "depth", "--depth.optimizer.learning-rate", "1e-5", "--width.widths", "1.0"]

    def called(*given: Any) -> None:
        calls.append(given)

    assert main([str(config_file), *arguments], called) == 0
    assert main([str(config_file), "--dry-run", "--stage=width"], called) == 0
    base = runpy.run_path(str(config_file))["config"]
    optimizer = base.depth.optimizer.replace(learning_rate=1e-5)
    changed = base.replace(
        seed=7, width=base.width.replace(widths=(1.0,)), depth=base.depth.replace(optimizer=optimizer)
    )
    assert calls == [(Asked(changed, "depth", None, False),), (Asked(base, "width", None, True),)]


def test_help_lists_every_setting(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(lambda: main([str(config_file), "--help"])) == 0
    shown = capsys.readouterr().out
    for setting in ("--depth.optimizer.learning-rate", "--data.task.labels", "--run-dir", "--final.widths"):
        assert setting in shown
    assert main(["--help"]) == 0
    assert "--stage NAME" in capsys.readouterr().out
    assert main([]) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert "usage: dynabert train CONFIG" in errors


def test_settings_before_the_configuration_are_no_file(refused: Command, config_file: Path) -> None:
    assert "name the configuration first, and its settings behind it; got --seed" in refused("--seed", 3, config_file)


# What the run needs


@pytest.mark.skipif(devices.num_devices() == 1, reason="every batch divides over one device")
def test_a_batch_that_does_not_divide_names_those_that_do(refused: Command, config_file: Path) -> None:
    number = devices.num_devices()
    said = refused(config_file, "--data.batch-size", number + 1)
    assert f"data.batch_size {number + 1} does not divide over {number} devices" in said
    assert f"such as {number} or {2 * number}" in said


def test_more_tokens_than_the_model_has_positions(refused: Command, config_file: Path) -> None:
    said = refused(config_file, "--data.lengths", "30")
    assert "the largest of data.lengths, 30, is more than the model's 24 positions; set it to at most 24" in said


def test_a_width_that_keeps_no_head(refused: Command, config_file: Path) -> None:
    assert "width 0.1 keeps none of 4 heads" in refused(config_file, "--depth.widths", "0.1")


def test_data_that_is_not_there(refused: Command, config_file: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    assert f"{missing}: no such file" in refused(config_file, "--data.train-file", missing)


def test_a_label_that_is_no_class(refused: Command, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text("text,label\na film,good\nthe plot,better\n")
    said = refused(config_file, "--data.dev-file", tmp_path / "dev.csv")
    assert "dev.csv, row 2 (line 3): label 'better' is not a class; allowed: bad (0), good (1)" in said


def test_weights_that_are_not_whole(refused: Command, config_file: Path, materials: Materials, tmp_path: Path) -> None:
    shutil.copytree(materials.model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    said = refused(config_file, "--model", tmp_path / "model")
    assert f"{file} is damaged or not complete" in said


def test_a_hub_name_without_network(refused: Command, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refused(config_file, "--model", "nobody/nothing")
    assert "there is no folder 'nobody/nothing' here" in said
    assert "name it as the model: ./nothing" in said


def test_a_run_folder_that_cannot_be_written(refused: Command, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused(config_file, "--run-dir", tmp_path / "file" / "run")
    assert f"cannot write to the run folder {tmp_path / 'file' / 'run'}" in said
    assert "set run_dir to another" in said


def test_a_run_folder_of_other_files(refused: Command, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    said = refused(config_file, "--run-dir", tmp_path / "other")
    assert f"{tmp_path / 'other'} is not a run folder: it holds thesis.tex and no config.json; set run_dir to a" in said


def test_a_run_folder_of_another_configuration(refused: Command, finished: Finished, tmp_path: Path) -> None:
    file = write_config(tmp_path / "config.py", finished.config)
    assert "belongs to another configuration: seed was 42 and is 43" in refused(file, "--seed", "43")


def test_a_stage_before_the_one_asked_for_is_not_finished(
    config_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(config_file), "--stage", "width"]) == 2
    errors = capsys.readouterr().err
    assert "only one stage was requested, but stage fine_tune before it has done 0 of 12 steps" in errors


def test_a_damaged_checkpoint_is_named_with_its_cure(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the cure works: the stage is trained again, and the run ends as it did."""
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    for step in ("8", "12"):
        (largest,) = sorted((run / "width" / "last" / step).rglob("d/*"), key=lambda path: path.stat().st_size)[-1:]
        largest.write_bytes(largest.read_bytes()[:-10])
    (run / "results.json").unlink()  # else nothing is left to do
    arguments = [str(write_config(tmp_path / "config.py", finished.config)), "--run-dir", str(run)]
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert f"error: the checkpoint {run / 'width' / 'last' / '12'} cannot be read" in errors
    assert "not as it was written; so are those before it" in errors
    assert f"remove {run / 'width'}, and the same command trains that stage again" in errors
    shutil.rmtree(run / "width")
    assert main(arguments) == 0
    assert (finished.folder / "results.md").read_text() in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    assert main([str(config_file)], interrupted) == 130
    assert "the same command resumes from the last checkpoint" in capsys.readouterr().err


def test_a_configuration_that_ends_the_program_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(ConfigError, match=r"config\.py does not run: SystemExit: 0"):
        read_config(tmp_path / "config.py")


def test_a_name_that_no_file_can_have_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .+; name a file that you may read"):
        read_config(Path("c" * 5000))


def test_a_mistake_of_ours_keeps_its_traceback(config_file: Path) -> None:
    def wrong(*_: Any, **__: Any) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        main([str(config_file)], wrong)


def test_only_what_orbax_lost_is_kept_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Any] = []
    monkeypatch.setattr(sys, "__unraisablehook__", printed.append)

    async def task() -> None:
        pass

    lost = task()
    lost.close()
    ignore_lost_tasks(Unraisable(ValueError("of a task"), lost))
    ignore_lost_tasks(Unraisable(RuntimeError("Event loop is closed"), None))
    assert printed == []
    ours = Unraisable(RuntimeError("ours"), None)
    ignore_lost_tasks(ours)
    assert printed == [ours]


class Unraisable(NamedTuple):
    """What Python gives to its hook, as far as we look."""

    exc_value: BaseException
    object: Any


@pytest.fixture
def jax_settings() -> Iterator[None]:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("jax_settings")
def test_compiled_programs_are_kept_where_the_user_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DYNABERT_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    use_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "cache" / "compiled")
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    use_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] == "elsewhere"


@pytest.mark.usefixtures("jax_settings")
@pytest.mark.parametrize("obstacle", ["file", "read-only", "homeless"])
def test_a_cache_that_cannot_be_written_is_done_without(
    obstacle: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DYNABERT_CACHE", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    if obstacle == "file":
        (tmp_path / "cache").touch()
    elif obstacle == "read-only":
        monkeypatch.setattr(os, "access", lambda *_: False)
    else:
        monkeypatch.setattr("dynabert_jax.cli.guard.cache_folder", lambda: Path("~nobody-of-that-name").expanduser())
    use_compilation_cache()
    assert jax.config.values["jax_compilation_cache_dir"] is None


# A full disk

LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def test_a_full_disk_ends_a_run_with_a_message_and_the_next_one_goes_on(
    finished: Finished, materials: Materials, tmp_path: Path
) -> None:
    """In a process for which the system writes no file beyond 30 kB: the first checkpoint does not fit."""
    config = materials.fine_tuning(tmp_path / "run", log_every=1)
    program = [str(ROOT / "train.py"), str(write_config(tmp_path / "config.py", config))]
    command = [sys.executable, "-c", LIMITED, "30000", *program]
    environment = os.environ | {name: str(value) for name, value in cache_settings(finished.programs).items()}

    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert f"error: cannot write a checkpoint to {tmp_path / 'run' / 'fine_tune' / 'last'}" in last
    assert "free some space, and the same command resumes" in last
    assert [row.sub for row in train_run(config).rows] == ["w1_d1"] * 2


# Standard output

PRINTS = "from dynabert_jax.cli.guard import guarded; raise SystemExit(guarded(lambda: print('a line')))"


COMMANDS_THAT_PRINT = {
    "a command": ["-c", PRINTS],
    "the menu": ["-m", "dynabert_jax", "--help"],
    "help by tyro": ["-m", "dynabert_jax", "choose", "--help"],
}
printing = pytest.mark.parametrize("arguments", COMMANDS_THAT_PRINT.values(), ids=COMMANDS_THAT_PRINT.keys())
unbuffered = pytest.mark.parametrize("at_once", [False, True], ids=["at the end", "at once"])


def run_into(output: int, arguments: list[str], at_once: bool) -> "subprocess.CompletedProcess[str]":
    """A program with this file as standard output, written at once or, as Python does with files, at its end."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, *(["-u"] if at_once else []), *arguments]
    return subprocess.run(
        command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT, check=False
    )


@printing
@unbuffered
def test_a_reader_that_has_left_is_no_error(arguments: list[str], at_once: bool) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run_into(writing, arguments, at_once)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@printing
@unbuffered
def test_output_that_cannot_be_written_is_reported(arguments: list[str], at_once: bool) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_into(full.fileno(), arguments, at_once)
    assert (done.returncode, done.stderr) == (2, "error: cannot write to standard output: No space left on device\n")


@printing
def test_without_standard_output_the_work_is_done(arguments: list[str]) -> None:
    command = ["sh", "-c", '"$@" >&-', "sh", sys.executable, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# The other commands


def dynabert(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["dynabert", *arguments])
    return exit_code(__main__.main)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "required"),
        (["evaluate", "/missing"], "/missing is not a run folder: it has no config.json; name the run_dir of a run"),
        (["bench", "/missing"], "/missing is not a run folder: it has no config.json; name the run_dir of a run"),
        (["bench", "run", "--rounds", "0"], "rounds = 0: should be greater than or equal to 1"),
        (["bench", "run", "--dtype", "float16"], "Invalid choice"),
        (["bench", "run", "--backend", "onnxruntime", "--dtype", "bfloat16"], "onnxruntime runs in float32"),
        (["bench", "run", "--no-json"], "Unrecognized options: --no-json"),
        (["choose", "run", "--no-json"], "Unrecognized options: --no-json"),
        (["choose", "/missing"], "/missing is not a run folder: it has no config.json; name the run_dir of a run"),
        (
            ["choose", "run", "--max-parameters", "3X"],
            "'3X' is not a size; write a number above 0, optionally followed by K",
        ),
        (["choose", "run", "--max-flops", "0"], "'0' is not a size"),
        (["choose", "run", "--max-latency-ms", "-1"], "max_latency_ms = -1.0: should be greater than 0"),
        (["choose", "run", "--min-score", "0.8"], "min_score = 0.8: scores are x 100; did you mean 80?"),
        (["choose", "run", "--max-loss", "0.01"], "max_loss = 0.01: losses are of scores x 100; did you mean 1?"),
        (["choose", "run", "--max-loss", "-1"], "max_loss = -1.0: should be greater than or equal to 0"),
    ],
)
def test_a_command_that_cannot_be_done_is_reported(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dynabert(monkeypatch, *arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


class Stand:
    """What a command gives, as it is printed."""

    best = tiny_rows.row(1.0, 1.0, 0.5)
    measured = ()

    def __str__(self) -> str:
        return "in words"

    def to_json(self) -> str:
        return "{}"


def test_what_is_to_be_measured_reaches_the_bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(bench, "bench_run", lambda *call: calls.append(call) or Stand())
    assert dynabert(monkeypatch, "bench", "run") == 0
    flags = "--sub w1_d1 w0.5_d0.5 --batch 1 8 --length 32 128 --dtype bfloat16 float32 --rounds 5"
    flags += " --backend jax onnxruntime onnxruntime-int8"
    assert dynabert(monkeypatch, "bench", "run", *flags.split(), "--out", "card.json", "--json") == 0
    settings = BenchSettings(
        subs=("w1_d1", "w0.5_d0.5"), batches=(1, 8), lengths=(32, 128), dtypes=("bfloat16", "float32"), rounds=5,
        backends=("jax", "onnxruntime", "onnxruntime-int8"),
    )  # fmt: skip
    assert calls == [(Path("run"), BenchSettings(), None), (Path("run"), settings, Path("card.json"))]
    assert capsys.readouterr().out == "in words\n{}\n"


def test_a_budget_reaches_the_choice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("dynabert_jax.choose.question.ask", lambda *call: calls.append(call) or Stand())
    assert dynabert(monkeypatch, "choose", "run") == 0
    flags = (
        "--max-latency-ms 5 --max-parameters 30M --max-flops 1.5G --min-score 80 --max-loss 1 --by flops --device H100 "
        "--backend jax --dtype bfloat16 --batch 8 --length 128 --split test --card a.json b.json --json"
    )
    assert dynabert(monkeypatch, "choose", "run", *flags.split()) == 0
    limits = Limits(max_latency_ms=5.0, max_parameters=30e6, max_flops=1.5e9, min_score=80.0, max_loss=1.0)
    where = Where(device="H100", backend="jax", dtype="bfloat16", batch=8, length=128)
    asked = question.Question(limits, where, "test", (Path("a.json"), Path("b.json")), "flops")
    assert calls == [(Path("run"), question.Question(Limits(), Where())), (Path("run"), asked)]
    assert capsys.readouterr().out == "in words\n{}\n"


def test_scores_are_printed_as_json_alone(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    assert dynabert(monkeypatch, "evaluate", str(run), "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert values == json.loads((run / "results.json").read_text())
    assert [(row["sub"], row["split"]) for row in values["rows"]] == [
        (row.sub, row.split) for row in finished.results.rows
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_every_command(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dynabert(monkeypatch, "--tyro-print-completion", shell) in (0, None)
    said = capsys.readouterr().out
    for word in (
        "train",
        "predict",
        "report",
        "evaluate",
        "bench",
        "choose",
        "export",
        "compare",
        "--text-columns",
        "hf-exact",
    ):
        assert word in said


def test_a_model_that_has_diverged_is_reported(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    model = load_model(run / "model")
    save_model(run / "model", model.config, jax.tree.map(lambda a: np.full_like(a, 3e38), model.params))
    record_model(run)
    assert dynabert(monkeypatch, "evaluate", str(run)) == 2
    errors = capsys.readouterr().err
    assert "error: sub-network w1_d1 answers 21 of 21 examples of dev with NaN or infinity" in errors
    assert "Train with a smaller learning rate, in a new run_dir" in errors


def test_a_run_that_has_not_finished_has_nothing_to_evaluate(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(finished.folder / "config.json", tmp_path)
    assert dynabert(monkeypatch, "evaluate", str(tmp_path)) == 2
    assert "has no finished model; run its training command again" in capsys.readouterr().err
