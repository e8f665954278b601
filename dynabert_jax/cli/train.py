"""`dynabert train CONFIG`, the same as `python train.py CONFIG`: reads the configuration file and the flags."""

import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import tyro

from dynabert_jax.cli.guard import guarded
from dynabert_jax.cli.next_steps import after_stage, after_training, tell
from dynabert_jax.cli.output import told
from dynabert_jax.config.checked import ConfigError, setting_paths
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.trainer_names import flag, trainer_hint
from dynabert_jax.data.rows import READ, kind_of
from dynabert_jax.errors import UserError
from dynabert_jax.system import devices

USAGE = """usage: dynabert train CONFIG [--stage NAME] [--from RUN] [--dry-run] [--SETTING VALUE ...]

CONFIG             a Python file that sets `config` to a RunConfig, such as configs/movie_reviews_quick.py
--stage NAME       train only this stage (fine_tune, width, depth or final); the ones before it must be finished
--from RUN         take over the stages that another run has finished with the same settings, data and weights
--dry-run          check everything, run a few steps of every stage, print what the run would do, and write nothing
--epochs N         the epochs of every stage; --depth.epochs N wins for its stage
--learning-rate X  the learning rate of every stage; --depth.optimizer.learning-rate X wins for its stage
--no-fine-tune     leave out the fine-tuning stage: the model is fine-tuned on this task already
--SETTING          any setting of the configuration, such as --run-dir runs/other or --data.batch-size 64

dynabert train CONFIG --help lists every setting with its meaning and its value in CONFIG.
In a clone of the project, python train.py CONFIG does the same."""

FULL = (
    "The same command resumes from the last checkpoint. To use less memory, add --gradient-accumulation N (the same "
    "batch in N microbatches), --rematerialize or, if sub-networks were being scored, a smaller --data.eval-batch-size"
)

NO_FINE_TUNE = "--no-fine-tune"
EXAMPLES = {"--epochs": "4", "--learning-rate": "5e-5"}

Number = TypeVar("Number", int, float)


class Asked(NamedTuple):
    """What the command line asks for.

    Attributes:
        config: with its overrides.
        only: the only stage to train; None: all.
        from_run: the run whose stages are taken over; None: no other run.
    """

    config: RunConfig
    only: str | None
    from_run: str | None
    is_dry: bool


Run = Callable[[Asked], object]


def train_or_try(asked: Asked) -> object:
    from dynabert_jax.train.run import dry_run, train_one_stage, train_run

    if asked.is_dry:
        return dry_run(asked.config, asked.only, asked.from_run)
    if asked.only is None:
        return train_run(asked.config, asked.from_run)
    return train_one_stage(asked.config, asked.only, asked.from_run)


def main(arguments: Sequence[str] | None = None, run: Run = train_or_try) -> int:
    """Reads the configuration and its overrides and runs it; prints the results and returns the exit code.

    Args:
        arguments: the command line's; None: those of this process.
        run: called with what they ask for; its result is printed.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        return told(lambda: print(USAGE, file=sys.stdout if arguments else sys.stderr)) or (0 if arguments else 2)

    def work() -> None:
        asked = read_arguments(arguments)
        devices.connect()
        result = run(asked)
        if devices.is_first():
            print(f"\n{result}")
            done = not asked.is_dry and asked.only in (None, list(asked.config.stages)[-1])
            tell(after_training(asked.config.run_dir) if done else after_stage(arguments[0]))

    return guarded(work, "stopped; the same command resumes from the last checkpoint", FULL)


def read_arguments(arguments: Sequence[str]) -> Asked:
    """What the arguments ask for.

    Raises:
        ConfigError: the file sets no configuration, a value is not allowed, or the run has no such stage.
    """
    if arguments[0].startswith("-"):
        raise ConfigError(f"name the configuration first, and its settings behind it; got {arguments[0]}")
    config = read_config(Path(arguments[0]))
    only, settings = take(arguments[1:], "--stage", "the name of a stage: fine_tune, width, depth or final")
    from_run, settings = take(settings, "--from", "the folder of a run")
    epochs, settings = take_number(settings, "--epochs", int)
    learning_rate, settings = take_number(settings, "--learning-rate", float)
    overrides = [one for one in settings if _flag_of(one) not in ("--dry-run", NO_FINE_TUNE)]
    if any(_flag_of(one) == NO_FINE_TUNE for one in settings):
        config = leave_out_fine_tuning(config, overrides)
    config = config.with_stages(epochs=epochs, learning_rate=learning_rate)
    check_names(overrides)
    if overrides:
        config = tyro.cli(
            RunConfig, default=config, args=overrides, prog=f"dynabert train {arguments[0]}",
            config=(tyro.conf.AvoidSubcommands,),
        )  # fmt: skip
    if only is not None:
        config.until(only)
    return Asked(config, only, from_run, is_dry="--dry-run" in settings)


def check_names(settings: Sequence[str]) -> None:
    """Raises ConfigError for a flag of Hugging Face's Trainer that has another name here; tyro reports all others."""
    known = set(map(flag, setting_paths(RunConfig)))
    for setting in settings:
        name = "--" + setting[2:].partition("=")[0].replace("_", "-")
        if setting.startswith("--") and name not in known and (hint := trainer_hint(name[2:], as_flags=True)):
            raise ConfigError(f"there is no setting {setting.partition('=')[0]}: {hint}")


def read_config(path: Path) -> RunConfig:
    """The `config` that a Python file sets.

    Raises:
        ConfigError: the file does not exist, does not run, or does not set a RunConfig.
    """
    try:
        is_file = path.is_file()
    except OSError as error:  # the name is too long, or the folder may not be read
        raise ConfigError(f"{path} cannot be read ({error}); name a file that you may read") from error
    if not is_file:
        raise ConfigError(f"there is no configuration file {path}; configs/ has the ones that come with the project")
    if kind_of(path) in READ:
        raise ConfigError(f"{path} is a table; `dynabert init {path}` writes a configuration that trains on it")
    try:
        values = runpy.run_path(str(path))
    except UserError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:  # the user's file can do anything
        raise ConfigError(f"{path} does not run: {type(error).__name__}: {error}") from error
    config = values.get("config")
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{path} must set `config` to a dynabert_jax.RunConfig; it is {type(config).__name__}")
    return config


def take(arguments: Sequence[str], name: str, what: str) -> tuple[str | None, list[str]]:
    """The value of a flag such as --stage, or None, and the other arguments; `what` says what its value is.

    Raises:
        ConfigError: it has no value, or is given twice.
    """
    divided = (argument.split("=", 1) if _flag_of(argument) == name else [argument] for argument in arguments)
    rest = [part for parts in divided for part in parts]
    places = [at for at, argument in enumerate(rest) if _flag_of(argument) == name]
    if not places:
        return None, rest
    at = places[0]
    if len(places) > 1:
        raise ConfigError(f"{name} is given {len(places)} times; give it once")
    if at + 1 == len(rest):
        raise ConfigError(f"{name} needs {what}")
    return rest[at + 1], rest[:at] + rest[at + 2 :]


def _flag_of(argument: str) -> str:
    """--learning-rate of --learning_rate=5e-5; empty for a value."""
    return argument.partition("=")[0].replace("_", "-") if argument.startswith("--") else ""


def take_number(arguments: Sequence[str], name: str, kind: type[Number]) -> tuple[Number | None, list[str]]:
    """The number of a flag, or None, and the other arguments."""
    text, rest = take(arguments, name, f"a number, such as {name} {EXAMPLES[name]}")
    try:
        return None if text is None else kind(text), rest
    except ValueError:
        raise ConfigError(f"{name} must be a number, such as {EXAMPLES[name]}; got {text!r}") from None


def leave_out_fine_tuning(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """The run without its first stage; raises ConfigError if it is set as well."""
    contradicting = [one for one in settings if _flag_of(one).startswith("--fine-tune")]
    if contradicting:
        raise ConfigError(f"{NO_FINE_TUNE} leaves out the stage that {contradicting[0]} sets; remove one of them")
    return config.replace(fine_tune=None)
