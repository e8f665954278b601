"""Progress: a bar in a terminal, lines elsewhere, and numbers that go on from what was done before."""

import io
import re
import sys

import pytest

from dynabert_jax.system import progress as module
from dynabert_jax.system.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def shown(monkeypatch: pytest.MonkeyPatch, file: io.StringIO) -> io.StringIO:
    monkeypatch.setattr(sys, "stderr", file)
    return file


def test_in_a_terminal_it_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = shown(monkeypatch, Terminal())
    with progress("depth", 8, "examples", done=2) as bar:
        bar.set_postfix_str("loss=1")
        bar.update(6)
    last = errors.getvalue().split("\r")[-1]
    assert re.search(r"depth: 100%.* 8/8 \[.*examples/s, loss=1\]\n$", last)


def test_elsewhere_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    errors = shown(monkeypatch, io.StringIO())
    with progress("depth", 200, "examples", done=100) as bar:
        for _ in range(90):
            clock[0] += 1
            bar.update()
        bar.set_postfix_str("loss=0.5")
        bar.update(10)
    assert errors.getvalue().splitlines() == [
        "depth: 65 %, 130 of 200 examples [00:30<01:10,  1.00 examples/s]",
        "depth: 80 %, 160 of 200 examples [01:00<00:40,  1.00 examples/s]",
        "depth: 95 %, 190 of 200 examples [01:30<00:10,  1.00 examples/s]",
        "depth: 100 %, 200 of 200 examples [01:30<00:00,  1.11 examples/s, loss=0.5]",
    ]
    assert "\r" not in errors.getvalue()


def test_it_can_end_without_a_trace_or_be_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (io.StringIO(), Terminal()):
        errors = shown(monkeypatch, file)
        with progress("bench", 4, "steps", is_shown=False) as bar:
            bar.set_description("more")
            bar.update(4)
        assert errors.getvalue() == ""
    errors = shown(monkeypatch, io.StringIO())
    with progress("bench", 4, "steps", is_kept=False) as bar:
        bar.update(4)
    with progress("bench", 4, "steps"):
        pass  # nothing was done, and nothing is told
    assert errors.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    with progress("bench", 4, "steps") as bar:
        bar.update(4)
    assert capsys.readouterr().out == ""
