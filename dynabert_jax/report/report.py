"""The report of a finished run, from its folder to a page and pictures."""

import dataclasses
import json
from pathlib import Path

from dynabert_jax.report.document import write_page
from dynabert_jax.report.facts import facts
from dynabert_jax.report.pictures import write_pictures
from dynabert_jax.system.files import expanded


@dataclasses.dataclass(frozen=True)
class Reported:
    """The files that were written."""

    page: Path
    pictures: tuple[Path, ...]


def report_run(
    path: str | Path, out: str | Path | None = None, pictures: str | Path | None = None, *, as_json: bool = False
) -> Reported:
    """Writes a page about a finished run, and prints where it is.

    Args:
        path: the run's folder.
        out: the page; None is `report.html` in the run's folder.
        pictures: a folder for the same as PNG files, which need matplotlib; None draws none.
        as_json: print JSON instead of words.

    Raises:
        ReportError: something cannot be written, or matplotlib is needed and not installed.
        RunFolderError, WeightsError, ConfigError: the folder holds no finished run.
    """
    path = expanded(path)
    told = facts(path)
    page = path / "report.html" if out is None else expanded(out)
    write_page(told, page)
    reported = Reported(page, () if pictures is None else tuple(write_pictures(told, expanded(pictures))))
    print(to_json(reported) if as_json else "\n".join(f"written to {file}" for file in (page, *reported.pictures)))
    return reported


def to_json(reported: Reported) -> str:
    return json.dumps({"page": str(reported.page), "pictures": list(map(str, reported.pictures))}, indent=2)
