"""Everything that README.md and docs/ tell to type runs: their Python, and their commands, in the order of the page.

A page is run in a folder of its own, on a tiny model. All that differs from what is read stands in this file's tables:
names that stand for others, commands that are not run, and, in the place of training, a check that the data and
the model of the configuration are found. Every block of commands begins with runs as they were prepared.
"""

import contextlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from dynabert_jax.choose.bench import BenchSettings, bench_run
from dynabert_jax.cli import commands
from dynabert_jax.cli.train import Asked, main
from dynabert_jax.config import ModelConfig
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.runs.files import unsealed
from dynabert_jax.train.results import evaluate_run
from dynabert_jax.weights.hub import find_model
from tiny_run import Finished, Materials, record_model, write_csv

for package in ("torch", "onnx", "onnxruntime", "matplotlib"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))

# Words of the pages and what stands for them here.
STANDS_FOR = {
    "RUN": "runs/my_task",
    "MODEL": "model",
    "bert-base-uncased": "pretrained",  # of the hub
    "sample:minilm": "pretrained",  # fetched with pip
    "~": "home",
    "H100": "NVIDIA",  # a device of the cards that are prepared
    "--batch 1 8 --length 32 128 --dtype float32 bfloat16": "--batch 8 --length 12 --dtype bfloat16",  # to be quick
    "--max-latency-ms 5": "--max-latency-ms 5000",  # on any machine
    "32": "8",  # tokens: the tiny model has positions for 24
    "64": "10",
    "128": "12",
    "0.8": "0.1",  # a score
    "positive": "good",  # a label
    "bash scripts/run.sh": "python train.py",  # which it calls, when it has set up the environment
}
# What is not run: it installs, fetches, needs another machine or the authors' code, or is a test of its own.
NOT_RUN = (
    "pip install",
    "bash scripts/test.sh",  # this
    "bash scripts/venv.sh",
    "python -m tests.faults",
    "bash scripts/check.sh",
    "python -m tests.fuzz",  # takes minutes; its short form is tests/fuzz
    "dynabert compare",  # needs a clone of the authors' repository; see test_compare.py
    "python -m onnxruntime.transformers.optimizer",  # see test_export_onnx.py
    "fpath+=",  # of a .zshrc
    "autoload",
)
RUNS = ("my_task", "movie_reviews", "movie_reviews_quick", "toy", "pairs")
TEXTS = ["a good film", "the plot was bad"]


class Block(NamedTuple):
    """A part of a page: Python, or lines for a shell."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Fenced blocks of Python and of shells, and the indented lines that begin with a program's name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = [Block(m[1], m[2], text[: m.start()].count("\n") + 1) for m in fenced.finditer(text)]
    assert {block.language for block in found} <= {"python", "sh", "bash"}, f"{page}: a block of no known language"
    rest = fenced.sub(lambda m: "\n" * m[0].count("\n"), text)
    for m in re.finditer(r"(?<=\n\n)(?:    .+\n)+", rest):
        found.append(Block("sh", re.sub("^    ", "", m[0], flags=re.MULTILINE), rest[: m.start()].count("\n") + 1))
    return sorted(found, key=lambda block: block.line)


def replaced(text: str) -> str:
    """With the words that stand for others here."""
    words = "|".join(sorted(map(re.escape, STANDS_FOR), key=len, reverse=True))
    return re.sub(rf"(?<![\w.])(?:{words})(?![\w.])", lambda m: STANDS_FOR[m[0]], text)


@pytest.fixture(scope="module")
def prepared(finished: Finished, materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all four sizes, scored and timed, the model of one, and files of texts."""
    folder = tmp_path_factory.mktemp("prepared")
    first = Path(shutil.copytree(finished.folder, folder / "runs" / RUNS[0]))
    settings = json.loads((first / "config.json").read_text()) | {"final": None}  # so that widths count as well
    (first / "config.json").write_text(json.dumps(settings))
    record_model(first)
    evaluate_run(first)
    bench_run(first, BenchSettings(rounds=2))
    for name in RUNS[1:]:
        shutil.copytree(first, folder / "runs" / name)
    settings["data"]["task"]["text_columns"] = ["question", "answer"]
    (folder / "runs" / "pairs" / "config.json").write_text(json.dumps(settings))
    record_model(folder / "runs" / "pairs")
    card = unsealed((first / "latency.json").read_text())
    for name, device in (("phone", "a phone"), ("server", "NVIDIA H100")):
        renamed = json.dumps(card).replace(json.dumps(card["rows"][0]["device"]), json.dumps(device))
        (folder / f"{name}.json").write_text(renamed)
    shutil.copytree(first / "model", folder / "model")
    shutil.copytree(materials.model, folder / "pretrained")
    for split in ("train", "dev"):
        shutil.copy(materials.file(split), folder)
    write_csv(folder / "reviews.csv", ("id", "text"), enumerate(TEXTS))
    (folder / "pairs.jsonl").write_text("".join(json.dumps({"question": t, "answer": t}) + "\n" for t in TEXTS))
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page is run."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)
    monkeypatch.setattr("sys.path", [*sys.path])
    return tmp_path


@pytest.mark.usefixtures("kept_programs")  # what one page has compiled serves the next
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_type_runs(
    page: str, place: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.ones((1, 8), np.int32)
    given = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids * 0, "texts": TEXTS}
    for block in blocks(page):
        with placed(f"{page}, line {block.line}"):
            if block.language == "python":
                run_python(replaced(block.text), given)
            elif commands_of(block.text):
                shutil.rmtree(place / "runs")
                shutil.copytree(prepared / "runs", place / "runs")
                for command, fails in commands_of(block.text):
                    run_command(command, fails, monkeypatch)


@contextlib.contextmanager
def placed(place: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise AssertionError(f"{place}: {error}") from error


def run_python(text: str, given: dict[str, Any]) -> None:
    """Runs a block, which may use the names of those before it; one that begins with a file's name is that file."""
    named = re.match(r"# (\w+\.py)\n", text)
    if named:
        Path(named[1]).write_text(text)
    else:
        exec(compile(text, "a page", "exec"), given)


def commands_of(text: str) -> list[tuple[str, bool]]:
    """The commands among the lines, and whether each is shown to fail. With a prompt, what is behind it is output."""
    lines = [line for line in text.splitlines() if line.strip()]
    if any(line.startswith("$ ") for line in lines):
        pairs = zip(lines, [*lines[1:], ""], strict=True)
        return [(line[2:], after.startswith("error:")) for line, after in pairs if line.startswith("$ ")]
    programs = ("dynabert ", "python ", "bash ", "pip ", "mkdir ", ".venv/bin/", *NOT_RUN)
    return [(line, False) for line in lines if line.startswith(programs)]


def run_command(line: str, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    line = line.replace(".venv/bin/", "")
    if line.startswith(NOT_RUN):
        return
    words = shlex.split(replaced(line.replace(".parquet", ".jsonl")), comments=True)
    match words:
        case ["mkdir", "-p", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            code = 0
        case ["python", "train.py", *arguments] | ["dynabert", "train", *arguments]:
            code = main(arguments, found)
        case ["dynabert", *_]:
            remove_target(words)
            monkeypatch.setattr("sys.argv", words)
            code = dynabert()
        case _:
            raise AssertionError(f"{line}: run it here, or name it in NOT_RUN")
    assert code == (2 if fails else 0), line


def dynabert() -> Any:
    try:
        return commands.main()
    except SystemExit as leaving:  # help, and what tyro refuses
        return leaving.code or 0


def remove_target(words: list[str]) -> None:
    """A page may write the same twice, in other ways."""
    if "--out" not in words:
        return
    out = Path(words[words.index("--out") + 1])
    shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)


def found(asked: Asked) -> None:
    """In the place of training: that the stage is there, and the model and the user's files can be read."""
    config = asked.config
    if asked.only is not None:
        config.until(asked.only)
    if config.data.train_file:
        folder = find_model(config.model)
        load_data(config.data, load_tokenizer(folder, ModelConfig.read(folder / "config.json")))


def test_every_page_has_its_blocks_found() -> None:
    shown = {page: blocks(page) for page in PAGES}
    assert any(block.language == "python" for block in shown["docs/python.md"])
    assert len(commands_of("".join(block.text for block in shown["docs/choose.md"]))) > 0
    assert replaced("dynabert predict RUN --length 128 w0.8 RUNS") == (
        "dynabert predict runs/my_task --length 12 w0.8 RUNS"
    )
