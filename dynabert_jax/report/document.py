"""Facts to one HTML document, whose styles, script and data all stand in it."""

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
    """Writes the page, whole or not at all; an earlier one is replaced.

    Raises:
        ReportError: it cannot be written.
    """
    text = document(facts)
    try:
        with whole(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(f"cannot write {out}: {reason(error)}; name another file with --out") from error


def document(facts: Facts) -> str:
    """The page. What comes from the run stands in it escaped, and its script shows it as text alone."""
    parts = {
        "title": html.escape(f"{facts.task}: every size"),
        "style": _part("page.css"),
        "script": _part("page.js"),
        "facts": embedded(dataclasses.asdict(facts) | {"command": f"dynabert export {shlex.quote(facts.run)}"}),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))


def embedded(values: object) -> str:
    """JSON that can stand in a <script> of HTML: no text in it can end that element, or begin a comment."""
    text = json.dumps(values, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
