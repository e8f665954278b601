"""`dynabert init`: a configuration for the user's own table, with what was guessed of it in comments."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.tasks import Metric, Task
from dynabert_jax.data.guess import Guess, guess_columns
from dynabert_jax.data.rows import check_file, open_rows
from dynabert_jax.data.texts import TaskTexts, read_texts
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.system.files import expanded, reason, whole

MODEL = "bert-base-uncased"
NUMBER_METRICS: tuple[Metric, ...] = ("pearson", "spearman", "mean_absolute_error")
SHOWN = 12  # classes, or other columns, in a comment

TEMPLATE = '''\
"""A configuration written by `dynabert init`: check the lines that are marked as a guess.

    dynabert train {out}            trains; repeat it to resume a run that was stopped
    dynabert train {out} --dry-run  says what was understood of the data, and how long it will take
    dynabert train {out} --help     lists every setting that may be added, with its meaning and value
"""

from dynabert_jax import DataConfig, RunConfig, Task

config = RunConfig(
    model={model},  # a name on the Hugging Face hub, or a folder in its format; of the language of the texts
    run_dir={run_dir},  # everything is written to this folder
    data=DataConfig(
        task=Task(
            name={name},
            # {text_comment}
            text_columns={text_columns},
            # {label_comment}
            label_column={label_column},
            {kind_lines}
        ),
        train_file={train_file},
{other_files}
        # lengths=(32, 64, 128),  # in tokens; longer texts are cut. Chosen by the texts if not set. {lengths}
        # batch_size=32,  # chosen by the number of rows if not set
    ),
    # seed=42,
    # dtype="bfloat16",  # faster where the hardware has it
)
'''


@dataclasses.dataclass(frozen=True)
class NewConfig:
    """A configuration that was written.

    Attributes:
        file: where it is.
        guesses: what was guessed, a sentence each.
    """

    file: Path
    guesses: tuple[str, ...]

    def __str__(self) -> str:
        check = "Check it" if self.guesses else "Read it"
        return "\n".join((*self.guesses, f"written to {self.file}. {check}, then run: dynabert train {self.file}"))


def init_config(
    train_file: str,
    out: str | Path = "my_task.py",
    dev_file: str | None = None,
    test_file: str | None = None,
    model: str = MODEL,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
    regression: bool = False,
) -> NewConfig:
    """Writes a configuration that trains on a table. What is not given is guessed, and the file says so.

    Args:
        train_file, dev_file, test_file: .csv, .tsv, .jsonl or .parquet.
        out: the Python file to write; it must not exist.
        text_columns: the column of the texts, or two for pairs.
        label_column: the column of the labels.
        regression: the labels are numbers to predict, and no classes.

    Raises:
        DataError: the data cannot be used, or a column cannot be guessed.
        ConfigError: the file exists or cannot be written.
        RunFolderError: the run's folder is of another run.
    """
    out = expanded(out)
    check_new(out)
    path = expanded(train_file)
    check_file(path)
    guess = guess_columns(open_rows(path), text_columns, label_column, regression)
    config = configured(guess, RunConfig(
        model=model,
        run_dir=str(Path("runs") / out.stem),
        data=DataConfig(
            task=Task(name=out.stem, text_columns=("text",)), train_file=train_file, dev_file=dev_file,
            test_file=test_file,
        ),
    ))  # fmt: skip
    texts = read_texts(config.data)  # as training will read them: what is wrong with them is said now
    RunFolder.open(config)
    write_new(out, written(out, config, guess, texts))
    return NewConfig(out, tuple(guesses(guess)))


def configured(guess: Guess, config: RunConfig) -> RunConfig:
    """The configuration with the task that was guessed."""
    task = Task(
        name=config.data.task.name,
        text_columns=tuple(column.name for column in guess.texts),
        label_column=guess.label.name,
        kind=guess.kind,
        metrics=NUMBER_METRICS if guess.kind == "regression" else config.data.task.metrics,
    )
    return config.replace(data=config.data.replace(task=task))


def guesses(guess: Guess) -> list[str]:
    """What was guessed, a sentence each."""
    texts, label = " and ".join(column.name for column in guess.texts), guess.label.name
    why = {
        f"texts: {texts}": guess.text_why,
        f"labels: {label}": guess.label_why,
        f"kind: {guess.kind}": guess.kind_why,
    }
    return [f"guessed {what} ({because})" for what, because in why.items() if because]


# The file


def written(out: Path, config: RunConfig, guess: Guess, texts: TaskTexts) -> str:
    """The text of the file."""
    data, task = config.data, config.data.task
    unused = f". Not used: {_some(guess.others)}" if guess.others else ""
    means = ", ".join(f"{column.characters:.0f}" for column in guess.texts)
    longest = max(column.longest for column in guess.texts)
    return TEMPLATE.format(
        out=_one_line(str(out)),
        model=_literal(config.model),
        run_dir=_literal(config.run_dir),
        name=_literal(task.name),
        text_columns=_literal(task.text_columns),
        text_comment=_comment(guess.text_why, f"{means} characters on average{unused}"),
        label_column=_literal(task.label_column),
        label_comment=_comment(guess.label_why, _labels(texts)),
        kind_lines=_kind_lines(task, guess.kind_why),
        train_file=_literal(data.train_file),
        other_files="\n".join(_other_files(data, texts)),
        lengths=f"The longest text has {longest:,} words",
    )


def _comment(why: str, known: str) -> str:
    return f"A guess ({why}): {known}" if why else known


def _kind_lines(task: Task, why: str) -> str:
    lines = [f"# A guess ({why})."] if why else []
    lines += [f"kind={_literal(task.kind)},"]
    lines += [f"metrics={_literal(task.metrics)},"] if task.regression else []
    return "\n            ".join(lines)


def _literal(value: str | Sequence[str] | None) -> str:
    """Python for a text or a tuple of texts; JSON's texts are Python's, too."""
    if value is None or isinstance(value, str):
        return repr(value) if value is None else json.dumps(value, ensure_ascii=False)
    return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"


def _labels(texts: TaskTexts) -> str:
    """The classes with their examples, or the range of the numbers."""
    every = np.concatenate([split.labels for name, split in texts.splits if _is_of_train(name, texts)])
    if not texts.labels:
        return f"numbers from {every.min():g} to {every.max():g}, {every.mean():g} on average"
    counts = np.bincount(every, minlength=len(texts.labels)).tolist()
    return "classes and their rows: " + _some(
        [f"{name} {count:,}" for name, count in zip(texts.labels, counts, strict=True)]
    )


def _is_of_train(name: str, texts: TaskTexts) -> bool:
    """Whether the rows of a split are in the train file."""
    return name == "train" or (name == "dev" and texts.held_out)


def _other_files(data: DataConfig, texts: TaskTexts) -> list[str]:
    held_out = (
        f"a table to score while it trains; without it, {len(texts.dev['dev']):,} of the rows of train are held out"
        if texts.held_out
        else ""
    )
    files: Mapping[str, tuple[str | None, str]] = {
        "dev_file": (data.dev_file, held_out),
        "test_file": (data.test_file, "a table to score at the end"),
    }
    return [
        f"        # {name}=...,  # {unset}" if file is None else f"        {name}={_literal(file)},"
        for name, (file, unset) in files.items()
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return _one_line(", ".join(names[:SHOWN]) + more)


def _one_line(text: str) -> str:
    """The text as a part of a comment: names of columns and classes may hold anything."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split()).replace('"""', "'''")


def check_new(out: Path) -> None:
    """Raises ConfigError unless a Python file of that name can be new."""
    if out.suffix != ".py":
        raise ConfigError(f"a configuration is a Python file; got {out}; give --out a name that ends in .py")
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists, and is never overwritten; give --out another name, or remove it")


def write_new(out: Path, text: str) -> None:
    """Writes the file, atomically.

    Raises:
        ConfigError: it exists by now, or cannot be written.
    """
    try:
        with whole(out, replace=False) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except FileExistsError:
        check_new(out)
        raise
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {reason(error)}; give --out another name") from error
