"""What `dynabert` answers without doing anything: its commands, its version, and which command was probably meant.

No jax, so that the answer comes at once.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

from dynabert_jax.cli.output import told
from dynabert_jax.errors import UserError, nearest

COMMANDS: Mapping[str, str] = {
    "init": "write a configuration for a table of texts and labels",
    "train": "train what a configuration describes",
    "shrink": "make one small model from a model or a run: train, time, choose and export",
    "predict": "predict the labels of texts with a run, an export or a model",
    "report": "write a page about a run: scores against costs, and the best size for a budget",
    "evaluate": "score every sub-network of a run again, on this device",
    "bench": "time every sub-network of a run on this device",
    "choose": "find the best sub-network of a run for a budget",
    "export": "write sub-networks for transformers, ONNX Runtime, JAX alone, or the authors' code",
    "push": "upload an export to the Hugging Face hub",
    "compare": "compare a checkpoint with the authors' code",
}

HELP = """usage: dynabert COMMAND ...

Train a DynaBERT, and use finished runs.

{commands}

`dynabert COMMAND --help` lists a command's options, and `dynabert --version` the version. Results go to standard
output, and everything else to standard error; with --json, the output is only JSON. A command that fails prints a
message and ends with exit code 2."""


class CommandError(UserError):
    """There is no such command; the message lists those that there are."""


def answered(arguments: Sequence[str]) -> int | None:
    """Answers what needs no command; returns the exit code, or None if a command is to be run."""
    first = next(iter(arguments), "")
    if first in COMMANDS or first.startswith("--tyro-"):  # tyro completes commands with the tab key
        return None
    return told(lambda: print(answer(first)))


def answer(first: str) -> str:
    """The answer to a first word that is no command.

    Raises:
        CommandError: it asks for nothing else either.
    """
    match first:
        case "-h" | "--help":
            return HELP.format(commands="\n".join(f"  {name:<10}{does}" for name, does in COMMANDS.items()))
        case "--version":
            return f"dynabert_jax {version()}"
        case "":
            raise CommandError(f"name a command: {', '.join(COMMANDS)}; `dynabert --help` says what they do")
    if first.endswith(".py") and Path(first).is_file():
        raise CommandError(f"{first} is not a command; to train what it describes, run `dynabert train {first}`")
    raise CommandError(f"there is no command {first!r}; {nearest(first, COMMANDS)}there are: {', '.join(COMMANDS)}")


def version() -> str:
    """The version of this package, or what else is known of a copy that is not installed."""
    try:
        return importlib.metadata.version("dynabert_jax")
    except importlib.metadata.PackageNotFoundError:
        return f"(not installed; run from {Path(__file__).parents[2]})"
