"""The command line's manners: configurations from files and flags, errors in plain words with exit code 2."""

import contextlib
import inspect
import logging
import os
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro

from dynabert_jax import parallel
from dynabert_jax.checked import ConfigError
from dynabert_jax.config import RunConfig
from dynabert_jax.errors import UserError
from dynabert_jax.memory import is_out_of_memory
from dynabert_jax.paths import first_line
from dynabert_jax.samples import cache_folder
from dynabert_jax.stopping import Signals, Stopped

TRAIN_USAGE = """usage: python train.py CONFIG [--stage NAME] [--dry-run] [--SETTING VALUE ...]

CONFIG        a Python file that sets `config` to a RunConfig, such as configs/movie_reviews_quick.py
--stage NAME  train this stage alone (fine_tune, width, depth or final); those before it must be finished
--dry-run     check everything, take a few steps of every stage and print what the run would do; nothing is written
--SETTING     any setting of the configuration, such as --run-dir runs/other or --depth.optimizer.learning-rate 1e-5

python train.py CONFIG --help lists every setting with its meaning and its value in CONFIG."""


FULL = "Take smaller batches or shorter texts, or more or larger devices"
TRAINING_FULL = (
    "The same command goes on from the last checkpoint. To go on with less memory, add --gradient-accumulation N (the "
    "same batch in N parts), --rematerialize or, where sub-networks were being scored, a smaller --data.eval-batch-size"
)


def train(run: Callable[..., Any], arguments: Sequence[str] | None = None) -> int:
    """Reads the configuration and its overrides from the arguments and runs it; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(TRAIN_USAGE)
        return 0 if arguments else 2

    def work() -> None:
        config = read_config(Path(arguments[0]))
        only, settings = take_stage(arguments[1:])
        dry_run, settings = "--dry-run" in settings, [one for one in settings if one != "--dry-run"]
        if settings:
            config = tyro.cli(
                RunConfig, default=config, args=settings, prog=f"train.py {arguments[0]}",
                config=(tyro.conf.AvoidSubcommands,),
            )  # fmt: skip
        if only is not None:
            config.until(only)
        parallel.connect()
        run(config, only, dry_run=dry_run)

    return guarded(work, "stopped; the same command goes on from the last checkpoint", TRAINING_FULL)


def read_config(path: Path) -> RunConfig:
    """The `config` that a Python file sets.

    Raises:
        ConfigError: the file is not there, does not run, or sets no RunConfig.
    """
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise ConfigError(f"{path} cannot be read ({error}); name a file that you may read") from error
    if not is_file:
        raise ConfigError(f"there is no configuration file {path}; configs/ holds the ones that come with the project")
    try:
        values = runpy.run_path(str(path))
    except UserError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever the user's file does
        raise ConfigError(f"{path} does not run: {type(error).__name__}: {error}") from error
    config = values.get("config")
    if not isinstance(config, RunConfig):
        raise ConfigError(f"{path} must set `config` to a dynabert_jax.config.RunConfig; it is {type(config).__name__}")
    return config


def take_stage(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of --stage, or None, and the other arguments."""
    divided = (argument.split("=") if argument.startswith("--stage=") else [argument] for argument in arguments)
    rest = [part for parts in divided for part in parts]
    if "--stage" not in rest:
        return None, rest
    at = rest.index("--stage")
    if at + 1 == len(rest):
        raise ConfigError("--stage needs the name of a stage: fine_tune, width, depth or final")
    return rest[at + 1], rest[:at] + rest[at + 2 :]


def guarded(work: Callable[[], None], when_stopped: str = "stopped", when_full: str = FULL) -> int:
    """Does the work; returns the exit code.

    Errors of the user's become a message and exit code 2. Ctrl-C and SIGTERM become what is kept or, where nothing
    tells, `when_stopped`, and 128 and the signal's number. Memory that is short is told with `when_full`, what to do,
    and is exit code 2, too.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)  # a library has set one up
    quieten_orbax()
    use_compilation_cache()
    try:
        with Signals() as signals:
            work()
            signals.forget()
    except UserError as error:
        # Of a save that failed, orbax may leave coroutines behind; Python would tell so after our message.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        print(f"error: {error}", file=sys.stderr)
        return ended(2)
    except Stopped as stopped:
        kept = f"stopped: {stopped}; the same command goes on from there" if str(stopped) else when_stopped
        print(f"\n{kept}", file=sys.stderr)
        return ended(128 + stopped.number)
    except KeyboardInterrupt:
        print(f"\n{when_stopped}", file=sys.stderr)
        return ended(130)
    except Exception as error:
        if is_out_of_memory(error):
            print(f"error: there is not enough memory ({first_line(error)}). {when_full}", file=sys.stderr)
            return ended(2)
        if not parallel.is_joined():
            raise
        traceback.print_exc()
        if parallel.may_be_lost_peer(error):
            print(LOST, file=sys.stderr)
        return ended(1)
    return 0


LOST = (
    "error: computing together with the other processes of this run has failed; most likely another process of this "
    "run has ended. Look into what it has told, and start all of them again with the same command: it goes on from "
    "the last checkpoint"
)


def ended(code: int) -> int:
    """The exit code. One of several processes ends here: Python's own end would wait for the others."""
    if parallel.is_joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def quieten_orbax() -> None:
    """It tells every step, and every failure with its traceback; the failures are told by our own messages."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = ignore_lost_tasks


def ignore_lost_tasks(unraisable: Any) -> None:
    """Where one of its tasks fails, orbax closes the event loop under the others; Python would print each of them."""
    lost = inspect.iscoroutine(unraisable.object) or str(unraisable.exc_value) == "Event loop is closed"
    if not lost:
        sys.__unraisablehook__(unraisable)


def use_compilation_cache() -> None:
    """Compiled programs are kept in the user's cache folder, unless jax was told another place.

    A cache that cannot be written costs time, and nothing else.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError, RuntimeError):  # the latter where the user has no home
        folder = cache_folder() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):  # jax would say so for every program
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
