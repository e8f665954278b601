"""Tries bad inputs and reports those that were neither read nor refused in words; the exit code is 1 if there are any.

    python -m tests.fuzz --inputs 10000 --seed 0     try so many
    python -m tests.fuzz --seed 0 --only 1234        try that one again, and show all of its traceback

The number of the input is shown before it is tried: where a crash ends the process, it is the last one.
"""

import argparse
import collections
import faulthandler
import resource
import sys
import time
from pathlib import Path

from .campaign import SECONDS, Outcome, outcomes
from .readers import READERS

MEMORY = 4 * 2**30  # bytes that an input may need on top of what is in use


def main() -> int:
    arguments = read_arguments()
    faulthandler.enable()
    limit_memory()
    numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    failures, start = 0, time.monotonic()
    for outcome in outcomes(arguments.seed, shown(numbers), arguments.reader):
        counts[outcome.reader, outcome.verdict] += 1
        if outcome.verdict == "failed" or arguments.only is not None:
            tell(outcome, whole=arguments.only is not None)
        failures += outcome.verdict == "failed"
    if arguments.only is None:
        tell_counts(counts, time.monotonic() - start)
    return min(failures, 1)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description="Gives everything that reads bad input.")
    parser.add_argument("--inputs", type=int, default=10_000, help="how many to try")
    parser.add_argument("--seed", type=int, default=0, help="with an input's number, all that decides it")
    parser.add_argument("--only", type=int, help="try the input of this number alone")
    parser.add_argument("--reader", choices=list(READERS), help="give every input to this reader")
    return parser.parse_args()


def limit_memory() -> None:
    """An input that asks for too much gets a MemoryError instead of all that the machine has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def shown(numbers: range | list[int]) -> collections.abc.Iterator[int]:
    for number in numbers:
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)  # where no signal gets through
        print(f"\r{number} ", end="", file=sys.stderr, flush=True)
        yield number
    faulthandler.cancel_dump_traceback_later()
    print("\r", end="", file=sys.stderr)


def tell(outcome: Outcome, whole: bool) -> None:
    lines = outcome.said.strip().splitlines() or [""]
    said = "\n".join(lines) if whole else lines[-1][:300]
    print(f"{outcome.number} {outcome.reader} {outcome.verdict}: {said}", flush=True)


def tell_counts(counts: collections.Counter[tuple[str, str]], seconds: float) -> None:
    for reader in READERS:
        verdicts = ", ".join(f"{counts[reader, verdict]} {verdict}" for verdict in ("read", "refused", "failed"))
        print(f"{reader}: {verdicts}")
    print(f"{counts.total()} inputs in {seconds:.0f} seconds")


if __name__ == "__main__":
    sys.exit(main())
