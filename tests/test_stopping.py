"""Signals wait only while there is something to lose, and a second one for nobody."""

import os
import signal
import threading

import pytest

from dynabert_jax.stopping import SIGNALS, Signals, Stopped


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_where_nothing_can_be_lost(number: int) -> None:
    with Signals(), pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.number == number
    assert isinstance(stopped.value, KeyboardInterrupt)  # no `except Exception` on the way swallows it


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_while_held_and_a_second_one_does_not(number: int) -> None:
    with Signals() as signals:
        signals.hold()
        assert not signals.came
        os.kill(os.getpid(), number)
        assert signals.came == number
        with pytest.raises(Stopped):
            os.kill(os.getpid(), number)


def test_what_has_waited_stops_where_nothing_can_be_lost_any_more() -> None:
    with Signals() as signals:
        signals.hold()
        with signals.released():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), signals.released():
            pytest.fail("this must not begin")


def test_in_a_released_block_a_signal_stops_at_once_and_behind_it_waits_again() -> None:
    with Signals() as signals:
        signals.hold()
        with pytest.raises(Stopped), signals.released():
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.came == signal.SIGTERM


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
