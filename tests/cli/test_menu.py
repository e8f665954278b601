"""What `dynabert` answers before it knows what to do."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from dynabert_jax.cli import commands, menu

ROOT = Path(__file__).parents[2]


def test_every_command_is_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert menu.answered(["--help"]) == 0
    shown = capsys.readouterr().out
    assert {*menu.COMMANDS} == {"train", *commands.COMMANDS}
    for name, does in menu.COMMANDS.items():
        assert f"  {name} " in shown
        assert does in shown


@pytest.mark.parametrize("name", menu.COMMANDS)
def test_a_command_is_left_to_be_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert menu.answered([name, "--help"]) is None
    assert menu.answered(["--tyro-print-completion", "bash"]) is None
    assert capsys.readouterr() == ("", "")


def test_the_version_is_that_of_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert menu.answered(["--version"]) == 0
    assert capsys.readouterr().out == f"dynabert_jax {importlib.metadata.version('dynabert_jax')}\n"
    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert menu.answered(["--version"]) == 0
    assert capsys.readouterr().out == f"dynabert_jax (not installed; run from {ROOT})\n"


def not_installed(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a command: "),
        (["tarin", "config.py"], "there is no command 'tarin'; did you mean 'train'? there are: "),
        (["evaluat", "run"], "there is no command 'evaluat'; did you mean 'evaluate'? there are: "),
        (["--jsn"], "there is no command '--jsn'; there are: "),
        (["config.py"], "config.py is not a command; to train what it describes, run `dynabert train config.py`"),
    ],
)
def test_what_is_no_command_is_an_error(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.py").touch()
    assert menu.answered(arguments) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert errors.startswith(f"error: {message}")


@pytest.mark.parametrize("argument", ["--help", "--version", "tarin"])
def test_the_answer_needs_no_jax(argument: str) -> None:
    program = (
        "import sys; from dynabert_jax.__main__ import main; code = main(); "
        "print({'jax', 'numpy', 'tyro'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, argument], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
