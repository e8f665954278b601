"""Stopping by SIGTERM or Ctrl-C: at once or, where work would be lost, as soon as it is saved."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

AGAIN = 0.2  # seconds until a signal that went unheard comes again
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A signal has ended the program; the message says what is kept.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, kept: str = ""):
        super().__init__(kept)
        self.number = number


class Signals:
    """In a `with` block, SIGTERM and Ctrl-C raise Stopped: at once or, from `hold` on, when the loop has seen to it.

    A second signal waits for nobody. Python drops what is raised in a finalizer or a callback of its garbage collector,
    of which jax has one: a signal that came there comes again. Outside the main thread, which alone gets signals, this
    does nothing.

    Attributes:
        came: the number of a signal that waits; 0 where there is none.
    """

    def __init__(self) -> None:
        self.came = 0
        self._held = False
        self._unheard = 0  # the number of a signal that is to come again
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
        if came and kind is None:  # nobody has seen to it, and what comes next must not go on without it
            raise Stopped(came)

    def forget(self) -> None:
        """All is done: there is nothing left to stop."""
        self._again.cancel()
        self.came = self._unheard = 0

    def hold(self) -> None:
        """From now on there is something to lose: signals wait in `came`."""
        self._held = True

    @contextmanager
    def released(self) -> Iterator[None]:
        """In the block nothing can be lost: signals raise Stopped at once, one that has waited, too."""
        held, self._held = self._held, False
        if self.came:
            raise Stopped(self.came)
        try:
            yield
        finally:
            self._held = held

    def _dropped(self, unraisable: Any) -> None:
        """In the place of `sys.unraisablehook`, which is told what Python drops."""
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
            raise Stopped(number)
