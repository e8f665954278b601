"""Reports a finished run: from its folder to a page and pictures."""

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

    def __str__(self) -> str:
        return "\n".join(f"written to {file}" for file in (self.page, *self.pictures))

    def to_json(self) -> str:
        return json.dumps({"page": str(self.page), "pictures": list(map(str, self.pictures))}, indent=2)


def report_run(path: str | Path, out: str | Path | None = None, pictures: str | Path | None = None) -> Reported:
    """Writes a page about a finished run.

    Args:
        path: the run's folder.
        out: the page; None is `report.html` in the run's folder.
        pictures: a folder for the charts as PNG files, which need matplotlib; None draws none.

    Raises:
        ReportError: a file cannot be written, or matplotlib is needed and not installed.
        RunFolderError, WeightsError, ConfigError: the folder holds no finished run.
    """
    path = expanded(path)
    shown = facts(path)
    page = path / "report.html" if out is None else expanded(out)
    write_page(shown, page)
    return Reported(page, () if pictures is None else tuple(write_pictures(shown, expanded(pictures))))
