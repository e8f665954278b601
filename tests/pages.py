"""What README.md and docs/ tell to type: their blocks, and what stands in for data and models that a reader has."""

import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from dynabert_jax.runs.files import unsealed
from tiny_run import MODEL, record_model, sentences, write_csv, write_model

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
OTHER_PAGES = ("CONTRIBUTING.md", "benchmarks/README.md", "configs/README.md", "tests/golden/README.md")

# The first words of indented blocks that are no commands. Any other indented block is for a shell.
NO_COMMANDS = ("text,label", "text -> tokens")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)(?:    .*\n|\n(?=    ))+")
LANGUAGES = {"python": "python", "sh": "sh", "bash": "sh"}


@dataclasses.dataclass(frozen=True)
class Block:
    """A part of a page: `python`, or `sh` for a shell."""

    language: str
    text: str
    line: int
    before: str  # the page's text up to here

    @property
    def file(self) -> str | None:
        """The name of the file that a block of Python shows, by its first line."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else None

    @property
    def commands(self) -> list[tuple[str, bool]]:
        """The commands of a shell's block, and whether the page shows that each fails.

        Where some lines begin with a prompt, the others are what was printed.
        """
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        if not any(line.startswith("$ ") for line in lines):
            return [(line, False) for line in lines if line.strip() and not line.startswith("#")]
        pairs = zip(lines, [*lines[1:], ""], strict=True)
        return [(line[2:], after.startswith("error:")) for line, after in pairs if line.startswith("$ ")]


def blocks(page: str) -> list[Block]:
    """The blocks of Python and of shells, in the order of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in FENCED.finditer(text):
        assert match[1] in LANGUAGES, f"{page}: a block of the language {match[1]!r}, which is not one of {LANGUAGES}"
        found.append(_block(LANGUAGES[match[1]], match[2], text, match.start()))
    rest = FENCED.sub(lambda match: re.sub(r"[^\n]", "x", match[0]), text)  # of the same length
    for match in INDENTED.finditer(rest):
        if not match[0].strip().startswith(NO_COMMANDS) and not _continues_item(rest[: match.start()]):
            shell = re.sub("^    ", "", match[0], flags=re.MULTILINE)
            found.append(_block("sh", shell, text, match.start()))
    return sorted(found, key=lambda block: block.line)


def _block(language: str, text: str, page: str, at: int) -> Block:
    return Block(language, text, page[:at].count("\n") + 1, page[:at])


def _continues_item(before: str) -> bool:
    """Whether the paragraph before is an item of a list, of which indented lines are a part."""
    return before.rstrip().rpartition("\n\n")[2].lstrip("\n").startswith(("- ", "1. "))


def inline(page: str) -> Iterator[str]:
    """The commands of `dynabert` within sentences."""
    text = FENCED.sub("", (ROOT / page).read_text(encoding="utf-8"))
    yield from (re.sub(r"\s+", " ", match) for match in re.findall(r"`(dynabert [^`]+)`", text))


# What a reader has


QUICK = """
from dynabert_jax import DataConfig, DepthStage, FineTune, Importance, Optimizer, RunConfig, Task, WidthStage

stage = {{"epochs": 2, "optimizer": Optimizer(learning_rate=1e-2)}}
config = RunConfig(
    model="bert-base-uncased",
    run_dir="runs/{name}",
    data=DataConfig(
        task=Task(name="{name}", text_columns=("text",)),
        train_file="train.csv",
        dev_file="dev.csv",
        lengths=(32, 64, 128),
        batch_size=8,
    ),
    fine_tune=FineTune(**stage),
    importance=Importance(batch_size=8),
    width=WidthStage(**stage),
    depth=DepthStage(**stage),
)
"""
LABELS = {"good": "positive", "bad": "negative"}


def write_stand_ins(folder: Path) -> None:
    """What a reader has or fetches: a pretrained model, tables, and small runs in the place of long ones."""
    shape = {"heads": (4,) * 4, "neurons": (32,) * 4, "max_position_embeddings": 130}
    write_model(folder / "bert-base-uncased", MODEL.replace(**shape))
    write_model(folder / "my_model", MODEL.replace(**shape, labels=tuple(LABELS.values())))
    (folder / "texts.txt").write_text("\n".join(dict.fromkeys(text for text, _ in sentences(96, 7))) + "\n")
    for seed, (split, count) in enumerate({"train": 96, "dev": 40}.items()):
        rows = [(text, LABELS[label]) for text, label in sentences(count, seed)]
        write_csv(folder / f"{split}.csv", ("text", "label"), rows)
    write_csv(folder / "reviews.csv", ("id", "text"), enumerate(text for text, _ in sentences(9, 3)))
    pairs = {name: [text for text, _ in sentences(9, seed)] for seed, name in enumerate(("question", "answer"))}
    pyarrow.parquet.write_table(pyarrow.table(pairs), folder / "pairs.parquet")
    for config in (ROOT / "configs").glob("movie_*.py"):
        (folder / "configs" / config.name).write_text(QUICK.format(name=config.stem))
    (folder / "my_task.py").write_text(QUICK.format(name="my_task"))


def copy_project(folder: Path) -> None:
    """The files of a clone, as they are here."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def renamed_card(text: str, device: str) -> str:
    """A latency card, as if another device had been measured."""
    card = unsealed(text)
    old = json.dumps(card["rows"][0]["device"])
    return json.dumps(card).replace(old, json.dumps(device))


def make_pairs(run: Path) -> None:
    """A run of single sentences becomes one of pairs."""
    file = run / "config.json"
    settings = json.loads(file.read_text())
    settings["data"]["task"]["text_columns"] = ["question", "answer"]
    file.write_text(json.dumps(settings))
    record_model(run)
