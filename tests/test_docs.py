"""What README.md and docs/ tell to type: the commands exist, and a reader who types all of them has them succeed.

The fast tests read every command and every import. The slow one types a page after the other, as it is, in the
environment that scripts/run.sh makes. It differs from a reader in four ways: `pages.write_stand_ins` puts small
tables, a small model and small configurations in the place of large ones; NOT_TYPED names what is left out, and
ADDED what is shortened; and pages of NEW begin without a run.
"""

import ast
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pages
from dynabert_jax.cli import commands
from dynabert_jax.cli.menu import answered
from dynabert_jax.cli.train import USAGE, main, read_arguments
from pages import OTHER_PAGES, PAGES, ROOT, blocks

# What is not typed, by how it begins, and why.
NOT_TYPED = {
    "bash scripts/test.sh": "it runs all tests, and so this one",
    "python -m tests.": "it takes minutes to hours; its short form is a test",
    "JAX_COORDINATOR_ADDRESS=": "it needs two machines",
    "fpath+=": "it is a line of ~/.zshrc",
    "autoload ": "it is a line of ~/.zshrc",
    "docker ": "it needs Docker",
    "hf auth login": "it asks for a password",
    "dynabert push": "it needs an account of the hub",
}
# What is typed with more behind it, by what is in it: few sizes and rounds show the same.
ADDED = {"dynabert bench runs/my_task ": " --sub w0.5_d0.5 --rounds 2"}
# What needs PyTorch, by what is in it. The page has to say so above it.
NEEDS_TORCH = ("--format reference", "onnxruntime.transformers.optimizer", "import pipeline", "pipeline(")
NEW = ("README.md", "docs/train.md")  # these make the runs that they use
RUNS = ("movie_reviews_quick", "pairs", "second", "toy")  # besides my_task
EXTRAS = ("onnx", "onnxruntime", "matplotlib", "fastapi", "uvicorn", "httpx", "torch")


# Every command and import, read


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has, to read configurations from."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(ROOT / "configs", folder / "configs")
    pages.write_stand_ins(folder)
    for copy in ("CONFIG", "first_task.py"):
        shutil.copy(folder / "my_task.py", folder / copy)
    return folder


@pytest.fixture
def nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands read their options and do nothing."""
    for name, command in commands.COMMANDS.items():
        monkeypatch.setitem(commands.COMMANDS, name, functools.wraps(command)(lambda *_, **__: None))
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)


def dynabert(words: list[str]) -> Any:
    """The exit code of a command."""
    try:
        code = answered(words)  # its version, its help
        if code is None:
            return main(words[1:], lambda *_: "") if words[0] == "train" else commands.main(words)
        return code
    except SystemExit as leaving:  # help, and what tyro refuses
        return leaving.code or 0


def typed(page: str) -> Iterator[list[str]]:
    """The words after `dynabert` of every command of the page's blocks; tyro's own flags are not read here."""
    for block in blocks(page):
        for command, _ in block.commands if block.language == "sh" else []:
            words = shlex.split(command, comments=True)
            words = words[next((i for i, word in enumerate(words) if "=" not in word), 0) :]
            match words:
                case [program, command, *rest] if Path(program).name == "dynabert" and not command.startswith("--tyro"):
                    yield [command, *rest]
                case ["python", "train.py", *rest] | ["bash", "scripts/run.sh", *rest]:
                    yield ["train", *rest]


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_command_of_a_page_is_understood(
    page: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for words in typed(page):
        assert dynabert(words) == 0, (words, capsys.readouterr().err)


@pytest.mark.usefixtures("nothing_is_done")
@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES])
def test_every_flag_that_a_sentence_names_exists(
    page: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sentences leave out what does not matter there, so only the command and its flags are looked at."""
    monkeypatch.chdir(place)
    for words in map(str.split, pages.inline(page)):
        _, command, *rest = words
        if command.isupper() or command.startswith("-"):
            continue
        assert dynabert([command, *(["CONFIG"] if command == "train" else []), "--help"]) == 0, words
        shown = capsys.readouterr().out + (USAGE if command == "train" else "")
        for flag in re.findall(r"--[a-z0-9.-]+", " ".join(rest)):
            assert flag in shown, words


@pytest.mark.parametrize("page", PAGES)
def test_every_name_that_a_page_imports_exists(page: str) -> None:
    for block in (block for block in blocks(page) if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("dynabert_jax"):
                module = importlib.import_module(str(node.module))
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{page}, line {block.line}: {node.module} has no {', '.join(missing)}"


@pytest.mark.usefixtures("nothing_is_done")
def test_a_flag_that_does_not_exist_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert dynabert(["choose", "runs/my_task", "--max-latency-ms", "5"]) == 0
    assert dynabert(["choose", "runs/my_task", "--max-latency", "5"]) == 2
    assert dynabert(["train", "my_task.py", "--depth.epoch", "1"]) == 2
    assert read_arguments(["my_task.py", "--seed", "3"])[0].seed == 3


def test_the_blocks_of_a_page_are_found() -> None:
    shown = {page: blocks(page) for page in PAGES}
    assert {"python", "sh"} == {block.language for block in shown["README.md"]}
    assert sum(block.language == "python" for block in shown["docs/python.md"]) >= 4
    refused = [command for block in shown["docs/choose.md"] for command, fails in block.commands if fails]
    assert refused == ["dynabert choose runs/toy --max-parameters 2K"]


# Every page, typed


class Reader:
    """A shell and a Python session that a page is typed into, in the environment of a clone."""

    def __init__(self, clone: Path, home: Path):
        self.clone, self.home, self._python = clone, home, None
        own = ("PYTHONPATH", "VIRTUAL_ENV", "VENV", "HF_HUB_OFFLINE", "JAX_NUMPY_RANK_PROMOTION")
        outside = {name: value for name, value in os.environ.items() if name not in own}
        cache = subprocess.run(
            [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        self._environment = outside | {
            "HOME": str(home),
            "PIP_CACHE_DIR": cache,
            "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling takes nearly all of the time
        }

    def shell(self, text: str, fails: bool = False) -> None:
        """Types commands; what they set in the environment stays for the next ones."""
        kept = self.home / "environment"
        script = f"set -eo pipefail\n{text}\n" + ("" if fails else f"env -0 > {shlex.quote(str(kept))}")
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.clone, env=self._environment, capture_output=True, text=True, check=False,
            timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == (2 if fails else 0), f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        if not fails:
            pairs = (line.partition("=") for line in kept.read_text().split("\0") if line)
            self._environment = {name: value for name, _, value in pairs}

    def python(self, text: str) -> None:
        """Types Python; names stay for the next block."""
        if self._python is None:
            self._python = subprocess.Popen(
                [self.clone / ".venv" / "bin" / "python", "-c", SESSION], cwd=self.clone, env=self._environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        self._python.stdin.write(json.dumps(text) + "\n")
        self._python.stdin.flush()
        failure = json.loads(self._python.stdout.readline() or '"the session has ended"')
        assert not failure, f"{text}\n{failure}"

    def close(self) -> None:
        if self._python is not None:
            self._python.communicate(timeout=60)


# Reads blocks as lines of JSON, runs each, and answers with its traceback.
SESSION = """
import json, os, sys, traceback
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
names = {"__name__": "__main__"}
for line in sys.stdin:
    failure = ""
    try:
        exec(compile(json.loads(line), "a page", "exec"), names)
    except BaseException:
        failure = traceback.format_exc()
    print(json.dumps(failure), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with the environment that scripts/run.sh makes, and a prepared folder beside it."""
    folder = tmp_path_factory.mktemp("reader") / "clone"
    prepared = folder.with_name("prepared")
    for place in (folder, prepared):
        pages.copy_project(place)
        pages.write_stand_ins(place)
    folder.with_name("home").mkdir()
    reader = Reader(folder, folder.with_name("home"))
    reader.shell("bash scripts/run.sh my_task.py\n.venv/bin/dynabert bench runs/my_task --rounds 2")
    runs = Path(shutil.copytree(folder / "runs", prepared / "runs"))
    for name in RUNS:
        shutil.copytree(runs / "my_task", runs / name)
    pages.make_pairs(runs / "pairs")
    shutil.copytree(runs / "my_task" / "model", prepared / "MODEL")
    for name, device in (("phone", "a phone"), ("server", "NVIDIA H100")):
        card = (runs / "my_task" / "latency.json").read_text()
        (prepared / f"{name}.json").write_text(pages.renamed_card(card, device))
    return folder


def as_prepared(clone: Path, page: str) -> None:
    """The clone as it was prepared: without the extras that an earlier page installed, and what it wrote."""
    installed = clone / ".venv" / "bin" / "python"
    subprocess.run([installed, "-m", "pip", "uninstall", "--quiet", "--yes", *EXTRAS], check=True, capture_output=True)
    for path in clone.iterdir():
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(clone.with_name("prepared"), clone, dirs_exist_ok=True)
    if page in NEW:
        shutil.rmtree(clone / "runs")
        (clone / "my_task.py").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_all_that_a_page_tells_to_type_succeeds(page: str, clone: Path) -> None:
    as_prepared(clone, page)
    reader = Reader(clone, clone.with_name("home"))
    try:
        for block in blocks(page):
            type_block(reader, block, f"{page}, line {block.line}")
    finally:
        reader.close()


def type_block(reader: Reader, block: pages.Block, where: str) -> None:
    needs_torch = [words for words in NEEDS_TORCH if words in block.text]
    if needs_torch:
        assert "PyTorch" in block.before, f"{where}: {needs_torch[0]} needs PyTorch, which the page does not say"
    try:
        if block.language == "python":
            if block.file:
                (reader.clone / block.file).write_text(block.text)
            elif not needs_torch:
                reader.python(block.text)
            return
        for command, fails in block.commands:
            if not command.startswith(tuple(NOT_TYPED)) and not any(words in command for words in NEEDS_TORCH):
                added = "".join(more for words, more in ADDED.items() if words in command)
                reader.shell(command + added, fails)
    except Exception as error:
        raise AssertionError(f"{where}: {error}") from error
