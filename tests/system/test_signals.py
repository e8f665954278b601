"""Signals wait only while there is something to lose, and a second one for nobody."""

import contextlib
import os
import signal
import sys
import threading
import time

import pytest

from dynabert_jax.system.signals import SIGNALS, Signals, Stopped


def ask_to_stop(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_where_nothing_can_be_lost(number: int) -> None:
    with pytest.raises(Stopped) as stopped, Signals():
        ask_to_stop(number)
    assert stopped.value.number == number
    assert isinstance(stopped.value, KeyboardInterrupt)  # no `except Exception` on the way swallows it


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_while_held_and_a_second_one_does_not(number: int) -> None:
    def hold_and_ask_twice() -> None:
        with Signals() as signals:
            signals.hold()
            assert not signals.came
            ask_to_stop(number)
            assert signals.came == number
            ask_to_stop(number)
            pytest.fail("the second signal waits")

    with pytest.raises(Stopped):
        hold_and_ask_twice()


class Finalized:
    def __del__(self) -> None:
        ask_to_stop()
        time.sleep(0)  # here the handler raises, and Python drops it


@pytest.mark.parametrize("held", [False, True])
def test_a_signal_that_python_drops_comes_again(held: bool) -> None:
    """As where it hits a callback of the garbage collector, in which nothing can be raised."""

    def drop_one_and_go_on() -> None:
        with Signals() as signals:
            one = Finalized()
            del one
            assert not signals.came  # it has gone unheard
            if held:
                signals.hold()
            end = time.monotonic() + 60
            while not signals.came and time.monotonic() < end:
                time.sleep(0.01)
            assert held, "it did not come again"
            assert signals.came == signal.SIGTERM  # and is waited for, as a first one

    before = sys.unraisablehook
    with pytest.raises(Stopped) as stopped:
        drop_one_and_go_on()
    assert stopped.value.number == signal.SIGTERM
    assert sys.unraisablehook is before


def test_one_that_was_dropped_is_not_lost_at_the_end_of_the_block() -> None:
    def drop_one() -> None:
        with Signals():
            one = Finalized()
            del one

    with pytest.raises(Stopped):
        drop_one()


def test_what_is_done_cannot_be_stopped_any_more() -> None:
    with Signals() as signals:
        signals.hold()
        ask_to_stop()
        signals.forget()


def test_what_has_waited_stops_where_nothing_can_be_lost_any_more() -> None:
    def hold_ask_and_release() -> None:
        with Signals() as signals:
            signals.hold()
            with signals.released("step 7 is saved"):
                pass
            ask_to_stop()
            with signals.released("step 7 is saved"):
                pytest.fail("this must not begin")

    with pytest.raises(Stopped, match="step 7 is saved"):
        hold_ask_and_release()


def test_in_a_released_block_a_signal_stops_at_once() -> None:
    def release_and_ask() -> None:
        with Signals() as signals:
            signals.hold()
            with signals.released("step 7 is saved"):
                ask_to_stop()
                pytest.fail("it waits")

    with pytest.raises(Stopped, match="step 7 is saved"):
        release_and_ask()


def test_a_signal_that_nobody_has_seen_to_stops_at_the_end_of_the_block() -> None:
    """Whether it has waited, or something has swallowed what it raised."""

    def hold_and_ask() -> None:
        with Signals() as signals:
            signals.hold()
            ask_to_stop()

    def swallow() -> None:
        with Signals(), contextlib.suppress(Stopped):
            ask_to_stop()

    for unseen in (hold_and_ask, swallow):
        with pytest.raises(Stopped) as stopped:
            unseen()
        assert stopped.value.number == signal.SIGTERM


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before[-1]
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_of_its_own_gets_no_signals() -> None:
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Signals():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
