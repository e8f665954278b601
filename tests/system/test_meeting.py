"""Processes that do not meet end with a message that says who is missing. Threads stand in for processes."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from dynabert_jax.system import meeting
from dynabert_jax.system.meeting import ParallelError, Place, meet, seconds_to_wait


@pytest.fixture
def place() -> Place:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return Place("127.0.0.1", free.getsockname()[1])


@contextlib.contextmanager
def guests(place: Place, *numbers: int, processes: int, seconds: float = 5.0) -> Iterator[dict[int, str]]:
    """Processes other than process 0; what each of them reports, empty where it goes on."""
    reports: dict[int, str] = {}

    def come(position: int, number: int) -> None:
        try:
            meet(place, number, processes, seconds)
            reports[position] = ""
        except ParallelError as error:
            reports[position] = str(error)

    threads = [threading.Thread(target=come, args=pair) for pair in enumerate(numbers)]
    for thread in threads:
        thread.start()
    try:
        yield reports
    finally:
        for thread in threads:
            thread.join(timeout=20)
            assert not thread.is_alive()


@pytest.mark.parametrize("late", [0.0, 0.5])
def test_all_come_in_any_order_and_the_port_is_free_again(late: float, place: Place) -> None:
    with guests(place, 3, 1, 2, processes=4) as reports:
        time.sleep(late)
        meet(place, 0, 4, 5.0)
    assert reports == {0: "", 1: "", 2: ""}
    meet(place, 0, 1, 5.0)  # nobody to wait for


@pytest.mark.parametrize(("here", "missing"), [((1,), "process 2 of 3"), ((), "processes 1, 2 of 3")])
def test_those_who_are_missing_are_named_to_all(here: tuple[int, ...], missing: str, place: Place) -> None:
    message = f"after 1 seconds, {missing} did not come to process 0 at {place}"
    with guests(place, *here, processes=3) as reports, pytest.raises(ParallelError, match=message):
        meet(place, 0, 3, 1.0)
    assert all(f"{missing} did not come" in report for report in reports.values())
    assert len(reports) == len(here)


@pytest.mark.parametrize(
    ("numbers", "processes", "problem"),
    [
        ((1, 1), 3, "two processes have JAX_PROCESS_ID=1; the second one is on "),
        ((1,), 4, "JAX_NUM_PROCESSES is 4 for process 1 "),
        ((7,), 3, "a process on .* has JAX_PROCESS_ID=7 "),
    ],
)
def test_processes_that_cannot_be_of_one_run_are_refused_at_once(
    numbers: tuple[int, ...], processes: int, problem: str, place: Place
) -> None:
    since = time.monotonic()
    with guests(place, *numbers, processes=processes) as reports, pytest.raises(ParallelError, match=problem):
        meet(place, 0, 3, 60.0)
    assert time.monotonic() - since < 20
    assert len(reports) == len(numbers)
    assert all("process 0 reports: " in report for report in reports.values())


def test_a_port_in_use_is_reported(place: Place) -> None:
    message = f"process 0 cannot listen at {place}: Address already in use.*free on"
    with socket.create_server(place), pytest.raises(ParallelError, match=message):
        meet(place, 0, 2, 60.0)


def test_a_process_0_that_is_not_there_is_reported(place: Place) -> None:
    with pytest.raises(
        ParallelError, match=rf"process 1 \(.*\) has waited 0\.5 seconds for process 0 at {place}: Conn"
    ):
        meet(place, 1, 2, 0.5)


def test_a_host_without_an_address_is_reported() -> None:
    with pytest.raises(ParallelError, match=r"for process 0 at no-such-host\.invalid:1234: "):
        meet(Place("no-such-host.invalid", 1234), 1, 2, 0.5)


def test_another_program_at_the_address_is_no_process_0(place: Place) -> None:
    def answer() -> None:
        with server.accept()[0] as guest:
            guest.sendall(b"HTTP/1.1 400 Bad Request\r\n")

    with socket.create_server(place) as server:
        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ParallelError, match="has waited 1 seconds for process 0"):
            meet(place, 1, 2, 1.0)


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\n", b"[" * 20_000, b'{"program": "dynabert_jax", "process": "1"}\n', b""],
)
def test_another_program_that_knocks_is_no_process_of_the_run(
    words: bytes, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meeting, "PATIENCE", 0.2)
    left = threading.Event()

    def knock() -> None:
        with socket.create_connection(place) as server, contextlib.suppress(OSError):
            server.sendall(words)
            left.wait(10)

    timer = threading.Timer(0.2, knock)
    timer.start()
    message = "process 2 of 3 did not come"
    with guests(place, 1, processes=3) as reports, pytest.raises(ParallelError, match=message):
        meet(place, 0, 3, 1.0)
    left.set()
    timer.join()
    assert "process 2 of 3 did not come" in reports[0]


def test_a_process_that_leaves_while_they_meet_is_missing_until_it_comes_again(place: Place) -> None:
    def come_and_leave() -> None:
        with socket.create_connection(place) as server:
            line = {"program": "dynabert_jax", "process": 1, "processes": 3, "host": "first"}
            server.sendall(json.dumps(line).encode() + b"\n")

    timer = threading.Timer(0.2, come_and_leave)
    timer.start()
    message = "process 1 of 3 did not come"
    with guests(place, 2, processes=3) as reports, pytest.raises(ParallelError, match=message):
        meet(place, 0, 3, 1.5)
    assert "process 1 of 3 did not come" in reports[0]
    timer = threading.Timer(0.2, come_and_leave)
    timer.start()
    time.sleep(0.1)
    with guests(place, 2, processes=3) as again:
        threading.Timer(0.6, lambda: meet(place, 1, 3, 5.0)).start()
        meet(place, 0, 3, 5.0)
    assert again == {0: ""}


@pytest.mark.parametrize("address", ["", "host", "host:", ":1234", "host:port", "host:0", "host:70000", "host:-1"])
def test_an_address_without_host_or_port_is_reported(address: str) -> None:
    with pytest.raises(ParallelError, match="must be HOST:PORT"):
        Place.parse(address)


def test_addresses_are_read() -> None:
    assert Place.parse("10.0.0.1:1234") == ("10.0.0.1", 1234)
    assert Place.parse("[::1]:1234") == ("::1", 1234)


@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf", ""])
def test_the_time_to_wait_is_a_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNABERT_MEETING_SECONDS", value)
    with pytest.raises(ParallelError, match="must be a number of seconds"):
        seconds_to_wait()
    monkeypatch.setenv("DYNABERT_MEETING_SECONDS", "300")
    assert seconds_to_wait() == 300.0
