"""Facts to one HTML document, which includes its styles, script and data."""

import dataclasses
import html
import json
import re
import shlex
from importlib import resources
from pathlib import Path

from dynabert_jax.report.facts import Facts, ReportError
from dynabert_jax.system.files import reason, whole


def write_page(facts: Facts, out: Path) -> None:
    """Writes the page atomically. An earlier page is replaced.

    Raises:
        ReportError: the page cannot be written.
    """
    text = document(facts)
    try:
        with whole(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"cannot write {out}: {reason(error)}; name another file with --out") from error


def document(facts: Facts) -> str:
    """The page. Values from the run are escaped in it, and its script shows them only as text."""
    parts = {
        "title": html.escape(f"{facts.task}: every size"),
        "style": _part("page.css"),
        "script": _part("page.js"),
        "facts": embedded(dataclasses.asdict(facts) | {"command": f"dynabert export {shlex.quote(facts.run)}"}),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))


def embedded(values: object) -> str:
    """JSON for a <script> element of HTML: no text in it can end the element or begin a comment."""
    text = json.dumps(values, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
