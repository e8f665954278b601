"""The golden cases that there are: numbers that the authors' PyTorch code computed.

DYNABERT_GOLDEN names another folder of cases. Those of later methods are in subfolders, which may be absent. Tests that
use cases have the marker `parity`; tests/golden/README.md says what a case is.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

OWN = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("DYNABERT_GOLDEN") or OWN).resolve()
LATER_METHODS = ("exits", "tokens", "depths", "ssa")


def cases(*kinds: str, folder: str = "") -> list[Any]:
    """The cases of these kinds as a test's parameters: the path of each NAME.json.

    Args:
        kinds: what the cases' json calls them; none: all kinds.
        folder: "" for DynaBERT's own cases, or one of LATER_METHODS.

    Raises:
        FileNotFoundError: the project's own folder has no such case of DynaBERT: a test of nothing would pass.
    """
    files = sorted((FOLDER / folder).glob("*.json"))
    found = [pytest.param(file, id=file.stem) for file in files if not kinds or kind_of(file) in kinds]
    if not found and not folder and FOLDER == OWN:
        raise FileNotFoundError(f"{OWN} has no golden case of the kind {' or '.join(kinds) or 'any'}")
    return found


def kind_of(file: Path) -> str:
    """What a case checks, such as `forward`."""
    return str(json.loads(file.read_text())["kind"])
