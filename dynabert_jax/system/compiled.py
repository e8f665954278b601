"""jax's cache of compiled programs: an entry that is damaged is replaced.

jax writes an entry in place, so that a kill or a full disk can cut it off. It then warns at every start, compiles the
program again, and keeps the damaged entry, because it never overwrites one.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import jax

log = logging.getLogger(__name__)

UNREADABLE = "Error reading persistent compilation cache entry"
NAMED = re.compile(rf"{UNREADABLE} for '(?P<program>[^'/]+)'")


@contextlib.contextmanager
def damaged_programs_replaced() -> Iterator[None]:
    """Within the block, removes entries that jax cannot read, so that it writes them again once they are compiled."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", UNREADABLE)
        show = warnings.showwarning

        def shown(
            message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
            line: str | None = None,
        ) -> None:  # fmt: skip
            if found := NAMED.match(str(message)):
                _remove(found["program"])
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = shown
        yield


def _remove(program: str) -> None:
    """Removes all entries of a program: jax does not say for which shapes the damaged one is."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    log.warning(
        "a compiled program %s in %s is damaged; it is compiled again, and its entry is replaced", program, folder
    )
    with contextlib.suppress(OSError):  # another process has removed it, or it may not be removed
        for entry in [path for path in Path(folder).iterdir() if path.name.startswith(f"{program}-")]:
            entry.unlink()
