"""What is missing is named, with the command that installs it for the interpreter that misses it."""

import shlex
import sys
from pathlib import Path

import pytest

from dynabert_jax.errors import MissingPackageError
from dynabert_jax.system import packages


def test_what_is_installed_is_not_missed() -> None:
    packages.require(("numpy", "jax"), "training")


def test_the_command_is_for_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that is not activated has another pip in PATH than its own."""
    monkeypatch.setattr(packages, "version", lambda _: "0.1.0")
    with pytest.raises(MissingPackageError) as caught:
        packages.require(("numpy", "no_such_a", "no_such_b"), "--format x", "onnx")
    said, _, command = str(caught.value).rstrip("`").partition("; run `")
    assert said == "--format x needs no_such_a and no_such_b"
    assert shlex.split(command) == [sys.executable, "-m", "pip", "install", "dynabert_jax[onnx]"]
    with pytest.raises(MissingPackageError, match="pip install no_such_a no_such_b`"):
        packages.require(("no_such_a", "no_such_b"), "this")


def test_a_clone_that_is_not_installed_is_named_by_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, pip would look for a package of some other people."""
    monkeypatch.setattr(packages, "version", lambda _: None)
    clone = Path(packages.__file__).parents[2]
    assert (clone / "pyproject.toml").is_file()
    assert shlex.split(packages.of_extra("onnx")) == ["-e", f"{clone}[onnx]"]


def test_a_path_with_a_blank_stays_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my place/python")
    assert shlex.split(packages.install_command("torch")) == ["/my place/python", "-m", "pip", "install", "torch"]
