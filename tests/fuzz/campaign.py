"""Gives readers bad input, and tells what passed: read it, or refused it in words. All else is a failure."""

import contextlib
import dataclasses
import io
import logging
import signal
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Literal

from dynabert_jax.errors import UserError

from .readers import READERS, Attempt

SECONDS = 30  # that an input may take

Verdict = Literal["read", "refused", "failed"]


class TooSlowError(BaseException):
    """Nothing that catches exceptions shall catch this one."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one input.

    Attributes:
        number: with the seed, all that decides the input.
        reader: its name.
        said: the refusal, or the failure's traceback.
    """

    number: int
    reader: str
    verdict: Verdict
    said: str = ""


def outcomes(seed: int, numbers: Iterable[int], only_reader: str | None = None) -> Iterator[Outcome]:
    """Tries the inputs of these numbers, one after the other; of one reader alone where it is named."""
    for number in numbers:
        rng = Random(f"{seed} {number}")
        reader = rng.choices(list(READERS), [share for _, share in READERS.values()])[0]
        yield _outcome(number, only_reader or reader, rng)


def _outcome(number: int, reader: str, rng: Random) -> Outcome:
    with tempfile.TemporaryDirectory() as folder, _silence() as said:
        verdict, words = _tried(READERS[reader][0], rng, Path(folder), said)
    return Outcome(number, reader, verdict, words)


def _tried(attempt: Attempt, rng: Random, folder: Path, said: Callable[[], str]) -> tuple[Verdict, str]:
    try:
        with _limit(SECONDS):
            attempt(rng, folder)
    except UserError as error:
        return ("refused", str(error)) if str(error).strip() else ("failed", f"{type(error).__name__} without words")
    except SystemExit as end:  # of tyro, which has said why
        return _ended(end.code, said())
    except (Exception, TooSlowError):
        return "failed", traceback.format_exc()
    except BaseException as error:  # a panic of a library in Rust is one; Ctrl-C is ours
        if isinstance(error, KeyboardInterrupt):
            raise
        return "failed", traceback.format_exc()
    return "read", ""


def _ended(code: object, said: str) -> tuple[Verdict, str]:
    """0 is the end of --help, and 2 that of settings that were refused."""
    if code == 0:
        return "read", ""
    return ("refused", said) if code == 2 and said.strip() else ("failed", f"SystemExit({code!r}), said: {said!r}")


@contextlib.contextmanager
def _silence() -> Iterator[Callable[[], str]]:
    """Catches what is printed; in the block, tells it. Warnings and log are not what is tried here."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield printed.getvalue
        finally:
            logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlowError(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
