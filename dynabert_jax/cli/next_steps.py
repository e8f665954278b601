"""What can be done after a command, with the paths of this one. It goes to standard error. No jax."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

Step = tuple[str, str]  # a command, and what it does


def tell(steps: Sequence[Step]) -> None:
    """Prints the commands, one a line."""
    width = max(len(command) for command, _ in steps)
    lines = [f"  {command:<{width}}  # {what}" for command, what in steps]
    print("\n".join(["", "next:", *lines]), file=sys.stderr)


def command(name: str, *words: str | Path) -> str:
    """A line for a shell."""
    return shlex.join(["dynabert", name, *map(str, words)])


def after_training(run: str | Path) -> list[Step]:
    return [
        (command("bench", run), "time every size on this device"),
        (command("choose", run, "--max-loss", "1"), "the cheapest size at most a point below the teacher"),
        (command("report", run), "a page of scores against costs"),
    ]


def after_stage(config_file: str) -> list[Step]:
    """After one stage of a run, or after a dry run."""
    return [(command("train", config_file), "train, or go on; with the same settings")]


def after_timing(run: Path) -> list[Step]:
    return [(command("choose", run, "--max-latency-ms", "5"), "the best size within a budget")]


def after_choice(run: Path, sub: str, backend: str | None) -> list[Step]:
    """After a choice by the latencies of a backend, or None."""
    in_onnx = backend is not None and backend != "jax"
    words = ["--format", "onnx" if in_onnx else "hf", "--out", f"{run.name}_{sub}"]
    words += ["--int8"] if backend == "onnxruntime-int8" else []
    return [(command("export", run, "--sub", sub, *words), "write it for other programs")]


def after_export(folder: Path, subs: Sequence[str]) -> list[Step]:
    which = ["--sub", subs[0]] if len(subs) > 1 else []
    return [
        (command("predict", folder, *which, "--text", "your text"), "predict a text"),
        (command("predict", folder, *which, "--file", "texts.csv", "--out", "answers.csv"), "predict a file"),
    ]
