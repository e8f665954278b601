"""Stopping by SIGTERM or Ctrl-C: at once or, where work would be lost, as soon as it is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

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

    A second signal waits for nobody. Outside the main thread, which alone gets signals, this does nothing.

    Attributes:
        came: the number of a signal that waits; 0 where there is none.
    """

    def __init__(self) -> None:
        self.came = 0
        self._held = False

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.came and kind is None:  # nobody has seen to it, and what comes next must not go on without it
            raise Stopped(self.came)

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

    def _handle(self, number: int, _: FrameType | None) -> None:
        wait, self.came = self._held and not self.came, number
        if not wait:
            raise Stopped(number)
