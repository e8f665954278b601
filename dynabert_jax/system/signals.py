"""Stopping by SIGTERM or Ctrl-C: at once or, if work would be lost, as soon as it is saved."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

AGAIN = 0.2  # seconds until a dropped signal is sent again
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal ended the program; the message says what was saved.

    Attributes:
        number: the signal's number.
    """

    def __init__(self, number: int, kept: str = ""):
        super().__init__(kept)
        self.number = number


class Signals:
    """In a `with` block, SIGTERM and Ctrl-C raise Stopped: at once or, after `hold`, when the loop has handled it.

    A second signal raises at once. Python drops exceptions in finalizers and in callbacks of its garbage collector, of
    which jax has one; a signal dropped there is sent again. Only the main thread gets signals; in other threads this
    does nothing.

    Attributes:
        came: the number of a pending signal; 0 if there is none.
    """

    def __init__(self) -> None:
        self.came = 0
        self._held = False
        self._kept = ""  # what is saved, if a signal is to raise in this moment
        self._unheard = 0  # number of a dropped signal that is to be sent again
        self._again = threading.Timer(AGAIN, lambda: None)

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
            self._hook_before, sys.unraisablehook = sys.unraisablehook, self._dropped
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._before:
            return
        self._again.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook_before
        came = self.came or self._unheard
        if came and kind is None:  # not handled yet, and later code must not ignore it
            raise Stopped(came)

    def forget(self) -> None:
        """Discards a pending signal: the work is done, and there is nothing left to stop."""
        self._again.cancel()
        self.came = self._unheard = 0

    def hold(self) -> None:
        """From now on there is work to lose: signals are kept in `came`."""
        self._held = True

    @contextmanager
    def released(self, kept: str) -> Iterator[None]:
        """In the block nothing can be lost: signals raise Stopped at once, and so does a pending one.

        Args:
            kept: what is saved, for the message.
        """
        held, self._held, self._kept = self._held, False, kept
        try:
            if self.came:
                raise Stopped(self.came, kept)
            yield
        finally:
            self._held, self._kept = held, ""

    def _dropped(self, unraisable: Any) -> None:
        """Replaces `sys.unraisablehook`, which gets the exceptions that Python drops."""
        if not isinstance(unraisable.exc_value, Stopped):
            self._hook_before(unraisable)
            return
        self.came, self._unheard = 0, unraisable.exc_value.number
        main = threading.main_thread().ident
        self._again = threading.Timer(AGAIN, signal.pthread_kill, (main, self._unheard))
        self._again.daemon = True
        self._again.start()

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._unheard = 0
        wait, self.came = self._held and not self.came, number
        if not wait:
            raise Stopped(number, self._kept)
