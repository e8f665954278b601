"""What all commands share: logging, the compilation cache, and errors as messages with exit codes."""

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

from dynabert_jax.cli.output import told
from dynabert_jax.data.samples import cache_folder
from dynabert_jax.errors import UserError
from dynabert_jax.system import devices
from dynabert_jax.system.compiled import damaged_programs_replaced
from dynabert_jax.system.files import first_line
from dynabert_jax.system.memory import is_out_of_memory
from dynabert_jax.system.signals import Signals, Stopped

FULL = "Use smaller batches, shorter texts, or more or larger devices"


def guarded(work: Callable[[], None], when_stopped: str = "stopped", when_full: str = FULL) -> int:
    """Does the work; returns the exit code.

    An error that the user can fix becomes a message and exit code 2. Ctrl-C and SIGTERM become a message that says what
    is saved, or `when_stopped`, and exit code 128 plus the signal's number. Running out of memory is reported with
    `when_full`, which says what to do, and gives exit code 2.
    """
    log_to_stderr()
    leave_out_foreign_bars()
    quieten_orbax()
    use_compilation_cache()
    try:
        with damaged_programs_replaced(), Signals() as signals:
            code = told(lambda: without_lost_coroutines(work))
            signals.forget()
        return ended(code) if code else 0
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


def without_lost_coroutines(work: Callable[[], None]) -> None:
    """Does the work. After a failed save, orbax may leave coroutines behind, and Python would warn about them."""
    try:
        work()
    except UserError:
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        raise


LOST = (
    "error: the computation shared with the other processes failed; most likely another process of this run has ended. "
    "Read what it printed, then start all processes again with the same command: the run resumes from the last "
    "checkpoint"
)


def ended(code: int) -> int:
    """The exit code. One of several processes exits here, because Python's normal exit would wait for the others."""
    if devices.is_joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class BarAwareHandler(logging.Handler):
    """Writes messages to standard error, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def log_to_stderr() -> None:
    """Logs the messages of this package, and the warnings of all others."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[BarAwareHandler()], force=True)
    logging.getLogger("dynabert_jax").setLevel(logging.INFO)


def leave_out_foreign_bars() -> None:
    """Outside of a terminal, `datasets` shows no bars of its own; huggingface_hub never does there."""
    if sys.stderr is None or not sys.stderr.isatty():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def quieten_orbax() -> None:
    """Silences orbax, which logs every step and the traceback of every failure. Our own messages report failures."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = ignore_lost_tasks


def ignore_lost_tasks(unraisable: Any) -> None:
    """Hides tasks that orbax lost: if one fails, it closes the event loop of the others, and Python prints each."""
    lost = inspect.iscoroutine(unraisable.object) or str(unraisable.exc_value) == "Event loop is closed"
    if not lost:
        sys.__unraisablehook__(unraisable)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless jax is configured to use another one.

    If the cache cannot be written, programs are compiled every time.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        folder = cache_folder() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):  # jax would warn for every program
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
