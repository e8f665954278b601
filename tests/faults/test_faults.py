"""A short form of the battery; the long one is `python -m tests.faults`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="forks processes, and kills them the POSIX way")
def test_some_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--faults", "12", "--seed", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every one of which ended like the undisturbed run" in done.stdout
