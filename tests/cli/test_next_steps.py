"""What a command says can be done next: commands that exist, with its own paths."""

import functools
import shlex
from pathlib import Path

import pytest

from dynabert_jax.cli import commands, next_steps
from dynabert_jax.cli.train import main as train
from tiny_run import Finished, write_config

RUN = Path("runs/my task")


@pytest.fixture(autouse=True)
def process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands leave the settings of this process alone."""
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)


@pytest.mark.parametrize(
    "steps",
    [
        next_steps.after_training(RUN),
        next_steps.after_timing(RUN),
        next_steps.after_choice(RUN, "w0.5_d0.5", None),
        next_steps.after_choice(RUN, "w0.5_d0.5", "onnxruntime-int8"),
        next_steps.after_export(Path("a folder"), ["w0.5_d0.5"]),
        next_steps.after_export(Path("a folder"), ["w0.5_d0.5", "w1_d1"]),
    ],
)
def test_every_step_is_a_command_that_reads_its_options(
    steps: list[next_steps.Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name, command in commands.COMMANDS.items():
        note = functools.wraps(command)(lambda *_, name=name, **__: called.append(name))
        monkeypatch.setitem(commands.COMMANDS, name, note)
    for line, _ in steps:
        program, *words = shlex.split(line)
        assert program == "dynabert"
        assert commands.main(words) == 0
    assert called == [shlex.split(line)[1] for line, _ in steps]


def test_training_ends_with_what_to_do(finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, because the table is the result."""
    file = str(write_config(tmp_path / "config.py", finished.config))
    assert train([file], lambda _: "the table") == 0
    shown = capsys.readouterr()
    assert shown.out == "\nthe table\n"
    assert f"dynabert bench {finished.config.run_dir}" in shown.err
    assert train([file, "--stage", "width"], lambda _: "the table") == 0
    assert f"dynabert train {file}" in capsys.readouterr().err
