"""What every command does around its work: logging, the compilation cache, errors as messages with exit codes."""

import contextlib
import inspect
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jax
from tqdm import tqdm

from dynabert_jax.data.samples import cache_folder
from dynabert_jax.errors import UserError
from dynabert_jax.system import devices
from dynabert_jax.system.files import first_line
from dynabert_jax.system.memory import is_out_of_memory
from dynabert_jax.system.signals import Signals, Stopped

FULL = "Take smaller batches or shorter texts, or more or larger devices"


def guarded(work: Callable[[], None], when_stopped: str = "stopped", when_full: str = FULL) -> int:
    """Does the work; returns the exit code.

    An error that the user can fix becomes a message and exit code 2. Ctrl-C and SIGTERM become a message that says what
    is saved, or `when_stopped`, and 128 plus the signal's number. Short memory is reported with `when_full`, which says
    what to do, and is exit code 2, too.
    """
    log_to_stderr()
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
        kept = f"stopped: {stopped}; the same command resumes from there" if str(stopped) else when_stopped
        print(f"\n{kept}", file=sys.stderr)
        return ended(128 + stopped.number)
    except KeyboardInterrupt:
        print(f"\n{when_stopped}", file=sys.stderr)
        return ended(130)
    except Exception as error:
        if is_out_of_memory(error):
            print(f"error: there is not enough memory ({first_line(error)}). {when_full}", file=sys.stderr)
            return ended(2)
        if not devices.is_joined():
            raise
        traceback.print_exc()
        if devices.may_be_lost_peer(error):
            print(LOST, file=sys.stderr)
        return ended(1)
    return 0


LOST = (
    "error: computing together with the other processes of this run has failed; most likely another process of this "
    "run has ended. Read what it printed, and start all of them again with the same command: it resumes from the last "
    "checkpoint"
)


def ended(code: int) -> int:
    """The exit code. One of several processes ends here: Python's own end would wait for the others."""
    if devices.is_joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class BarAwareHandler(logging.Handler):
    """Writes messages to standard error, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def log_to_stderr() -> None:
    """What this package reports, and warnings of all others."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[BarAwareHandler()], force=True)
    logging.getLogger("dynabert_jax").setLevel(logging.INFO)


def quieten_orbax() -> None:
    """It logs every step, and every failure with its traceback; our own messages report the failures."""
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
