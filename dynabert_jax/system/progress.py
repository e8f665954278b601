"""The progress of long work, on standard error: a bar in a terminal, and a line now and then anywhere else."""

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

from tqdm import tqdm

PACE = 30.0  # seconds from one line to the next
LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Progress(Protocol):
    """What is known of work that goes on; use in a `with` block."""

    def update(self, n: float = 1) -> Any:
        """So much more is done."""

    def set_description(self, desc: str) -> None:
        """What is done now."""

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:
        """What else is to be said, such as the loss."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...


def progress(
    desc: str, total: int, unit: str, *, done: int = 0, is_shown: bool = True, is_kept: bool = True
) -> Progress:
    """Shows how much of some work is done.

    Args:
        desc: the name of the work.
        total: all of it, in units.
        unit: the plural of what is counted.
        done: what was done before, by an earlier process.
        is_shown: show anything at all; of several processes, one does.
        is_kept: the last state stays to be seen.
    """
    is_shown = is_shown and sys.stderr is not None  # it may have been closed before this program began
    if is_shown and not sys.stderr.isatty():
        return _Lines(desc, total, unit, done, is_kept)
    bar: Progress = tqdm(
        desc=desc, total=total, unit=f" {unit}", initial=done, disable=not is_shown, leave=is_kept
    )  # fmt: skip
    return bar


class _Lines:
    """Writes lines for a file or another program: no carriage returns, and not more than one every `PACE` seconds."""

    def __init__(self, desc: str, total: int, unit: str, done: int, is_kept: bool):
        self.desc, self.total, self.unit, self.done, self.is_kept = desc, total, unit, done, is_kept
        self.before, self.postfix = done, ""
        self.start = self.last = time.monotonic()
        self.is_new = False  # whether anything was done that no line has told

    def update(self, n: float = 1) -> None:
        self.done += int(n)
        self.is_new = True
        if time.monotonic() - self.last >= PACE:
            self._write()

    def set_description(self, desc: str) -> None:
        self.desc = desc

    def set_postfix_str(self, s: str, refresh: bool = True) -> None:  # noqa: ARG002 - lines are not refreshed
        self.postfix = s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_kept and self.is_new:
            self._write()

    def _write(self) -> None:
        self.last, self.is_new = time.monotonic(), False
        line = tqdm.format_meter(
            self.done, self.total, self.last - self.start, prefix=self.desc, unit=f" {self.unit}",
            initial=self.before, postfix=self.postfix or None, bar_format=LINE,
        )  # fmt: skip
        tqdm.write(line, file=sys.stderr)
