"""The processes of a run meet before jax joins them, so that whoever does not come is named.

jax itself would wait five minutes for a missing process, and then end this one in native code; a port that is in use
ends it by a signal. Here, process 0 listens at the address until all others have knocked, tells them to go on, and
frees the port for jax. They send each other lines of JSON. Before the end, process 0 asks everybody once more: the
system may take a while to report that a process has left.
"""

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from dynabert_jax.errors import UserError
from dynabert_jax.system.files import reason
from dynabert_jax.system.json_file import JsonError, parse_object

PROGRAM = "dynabert_jax"  # in every line: another program may listen, or knock
LONGEST_LINE = 10_000  # bytes
DEFAULT = 50.0  # seconds to wait for all processes
PAUSE = 0.2  # seconds between two looks or knocks
PATIENCE = 2.0  # seconds in which somebody who has knocked must say who it is
SETTINGS = (
    "Start every process with the same JAX_COORDINATOR_ADDRESS=HOST:PORT (a port that is free on the host of process "
    "0) and JAX_NUM_PROCESSES, and its own JAX_PROCESS_ID from 0 up"
)


class ParallelError(UserError, RuntimeError):
    """The processes of a run cannot work together; the message says what to do."""


class Place(NamedTuple):
    """Where process 0 listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, address: str) -> "Place":
        """The place of an address such as `10.0.0.1:1234` or `[::1]:1234`; raises ParallelError for anything else."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ParallelError(f"JAX_COORDINATOR_ADDRESS must be HOST:PORT, such as 10.0.0.1:1234; got {address!r}")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def meet(place: Place, number: int, processes: int, seconds: float) -> None:
    """Returns when all processes of the run are there.

    Args:
        number: this process's number, from 0.
        processes: the number of them.
        seconds: how long to wait for the others.

    Raises:
        ParallelError: somebody is missing, two have one number or they differ in how many they are, the port is in
            use, or process 0 cannot be reached.
    """
    deadline = time.monotonic() + seconds
    if number == 0:
        with _listening(place) as server:
            _receive(server, place, processes, deadline, seconds)
    else:
        _knock(place, number, processes, deadline, seconds)


# Process 0


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    """A socket on all interfaces of this host, as jax's own will be."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(("", place.port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ParallelError(
            f"process 0 cannot listen at {place}: {reason(error)}. Another program uses the port, an earlier run has "
            f"not ended, or two processes have JAX_PROCESS_ID=0. {SETTINGS}"
        ) from error
    with server:
        yield server


def _receive(server: socket.socket, place: Place, processes: int, deadline: float, seconds: float) -> None:
    """Waits until every other process has knocked and is still there; tells all of them how it ended."""
    there: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as opened:
        try:
            while len(there) < processes - 1 or not all(map(_is_still_there, there.values())):
                if time.monotonic() > deadline:
                    answering = {number for number, guest in there.items() if _is_still_there(guest)}
                    missing = sorted(set(range(1, processes)) - answering)
                    raise ParallelError(
                        f"after {seconds:g} seconds, {_named(missing)} of {processes} did not come to process 0 at "
                        f"{place} ({host_name()}). Read what they printed. {SETTINGS}. If they start slowly, set "
                        f"DYNABERT_MEETING_SECONDS to more"
                    )
                if guest := _next_guest(server):
                    opened.enter_context(guest)
                    hello = _read(guest, PATIENCE)
                    if hello is not None and type(hello.get("process")) is int:
                        _admit(hello, guest, there, processes)
                there = {number: guest for number, guest in there.items() if _is_open(guest)}
        except ParallelError as error:
            for guest in there.values():
                _send(guest, {"problem": str(error)})
            raise
        for guest in there.values():
            _send(guest, {"problem": None})


def _next_guest(server: socket.socket) -> socket.socket | None:
    readable, _, _ = select.select([server], [], [], PAUSE)
    return server.accept()[0] if readable else None


def _admit(hello: dict[str, Any], guest: socket.socket, there: dict[int, socket.socket], processes: int) -> None:
    """Adds a process to those that are there; raises ParallelError, also to the guest, if it cannot belong to them."""
    number, host, problem = hello["process"], hello.get("host"), None
    if hello.get("processes") != processes:
        problem = f"JAX_NUM_PROCESSES is {hello.get('processes')} for process {number} ({host}), and {processes} here"
    elif number in there and _is_open(there[number]):
        problem = f"two processes have JAX_PROCESS_ID={number}; the second one is on {host}"
    elif number not in range(1, processes):
        problem = f"a process on {host} has JAX_PROCESS_ID={number}"
    if problem is not None:
        error = ParallelError(f"{problem} (process 0 is on {host_name()}). {SETTINGS}")
        _send(guest, {"problem": str(error)})
        raise error
    there[number] = guest


def _is_open(guest: socket.socket) -> bool:
    """Whether the other side is still there: a process that ends closes its socket."""
    readable, _, _ = select.select([guest], [], [], 0)
    try:
        return not readable or bool(guest.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _is_still_there(guest: socket.socket) -> bool:
    """Whether the other side answers a question."""
    _send(guest, {"question": "there?"})
    return _read(guest, PATIENCE) is not None


# The others


def _knock(place: Place, number: int, processes: int, deadline: float, seconds: float) -> None:
    """Tells process 0 that this one is there, again and again until it answers."""
    why = "it does not answer"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(place, timeout=max(PAUSE, deadline - time.monotonic())) as server:
                _send(server, {"process": number, "processes": processes, "host": host_name()})
                answer = _read(server, seconds + PATIENCE)
                while answer is not None and "question" in answer:
                    _send(server, {"answer": "there"})
                    answer = _read(server, seconds + PATIENCE)
        except OSError as error:
            why, answer = reason(error), None
        if answer is not None and "problem" in answer:
            if answer["problem"] is None:
                return
            raise ParallelError(f"process 0 reports: {answer['problem']}")
        time.sleep(PAUSE)
    raise ParallelError(
        f"process {number} ({host_name()}) has waited {seconds:g} seconds for process 0 at {place}: {why}. Process 0 "
        f"is not started or has ended, or this host does not reach it. {SETTINGS}. If it starts slowly, set "
        f"DYNABERT_MEETING_SECONDS to more"
    )


# Both


def _send(to: socket.socket, values: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it has left, which the one that reads notices
        to.sendall(json.dumps({"program": PROGRAM} | values).encode() + b"\n")


def _read(source: socket.socket, seconds: float) -> dict[str, Any] | None:
    """A line of this program; None if there is none in time, or somebody else wrote it."""
    source.settimeout(seconds)
    try:
        with source.makefile("rb") as file:
            values = parse_object(file.readline(LONGEST_LINE))
    except (OSError, JsonError):
        return None
    return values if values.get("program") == PROGRAM else None


def _named(numbers: list[int]) -> str:
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def host_name() -> str:
    return socket.gethostname()


def seconds_to_wait() -> float:
    """`DYNABERT_MEETING_SECONDS`; without it, so long that a run that cannot begin ends within a minute."""
    given = os.environ.get("DYNABERT_MEETING_SECONDS")
    try:
        seconds = DEFAULT if given is None else float(given)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 86_400.0:
        raise ParallelError(f"DYNABERT_MEETING_SECONDS must be a number of seconds, at most a day; got {given!r}")
    return seconds
