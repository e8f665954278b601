"""What the Hugging Face hub reads of a model card: its licence, origin, languages, data and scores.

Nothing is made up: what neither the run, the pretrained model's own card nor the user says is left out.
"""

import dataclasses
import logging
import re
from collections.abc import Sequence
from typing import Any

from dynabert_jax.config.data import DataConfig
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.export.errors import ExportError
from dynabert_jax.runs.finished import Finished
from dynabert_jax.system.files import first_line
from dynabert_jax.weights.hub import find_card, is_hub_name

log = logging.getLogger(__name__)

TASK = "text-classification"  # the hub's name of the task, also for pairs and regressions
METRICS = {  # the hub's names
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "mean_absolute_error": "mae",
}
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")


@dataclasses.dataclass(frozen=True)
class Terms:
    """The licence of an export, and the languages of its texts.

    Attributes:
        license: the hub's name of it, such as `apache-2.0`; empty if it is not known.
        name, link: of a licence that the hub has no name for (`other`); empty otherwise.
        origin: who says so, in words.
        languages: codes such as `en`; empty if they are not known.
    """

    license: str = ""
    name: str = ""
    link: str = ""
    origin: str = ""
    languages: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.license:
            return "not known; the card of the pretrained model has none, and none was given"
        named = f"{self.license} ({self.name})" if self.name else self.license
        return f"{named}, {self.origin}"


def terms_of(model: str, license: str | None, languages: Sequence[str]) -> Terms:
    """What was given or, for the licence, what the pretrained model's own card says.

    Args:
        model: the pretrained model, as the run's configuration names it.
        license: the hub's name of a licence; None: that of the pretrained model.
        languages: codes of ISO 639.

    Raises:
        ExportError: a name is not one of the hub's.
    """
    if isinstance(languages, str):
        raise ExportError(f"languages must be a list of codes; got the text {languages!r}; put it in [ ]")
    for code in languages:
        if not _LANGUAGE.fullmatch(code):
            raise ExportError(f"a language is a code of ISO 639 such as en or deu, or multilingual; got {code!r}")
    if license is not None:
        if not _LICENSE.fullmatch(license):
            raise ExportError(
                f"a license is given by the hub's name of it, such as apache-2.0, mit or other; got {license!r}"
            )
        return Terms(license, origin="as given with --license", languages=tuple(languages))
    found = dataclasses.replace(_terms_of_card(model), languages=tuple(languages))
    if not found.license:
        log.warning("the license of %s is not known, so the model card has none; give it with --license", model)
    return found


def _terms_of_card(model: str) -> Terms:
    """The licence in the pretrained model's card."""
    from huggingface_hub import ModelCard

    file = find_card(model)
    if file is None:
        return Terms()
    try:
        data = ModelCard.load(file, ignore_metadata_errors=True).data
    except Exception as error:  # of the hub's reader or of YAML's, of many types
        log.warning("%s cannot be read, nor the license in it (%s)", file, first_line(error))
        return Terms()
    if not isinstance(data.license, str):
        return Terms()
    name, link = (text if isinstance(text, str) else "" for text in (data.license_name, data.license_link))
    return Terms(data.license, name, link, "that of the pretrained model")


def front_matter(finished: Finished, subs: Sequence[str], library: str, terms: Terms) -> str:
    """The card's first block, which `huggingface_hub.ModelCard` reads.

    Scores are those of the table, unchanged: the hub's are fractions, too.
    """
    from huggingface_hub import CardData

    model, data = finished.config.model, finished.config.data
    rows, source = [row for row in finished.rows if row.sub in subs], hub_data(data)
    values: dict[str, Any] = {
        "license": terms.license or None,
        "license_name": terms.name or None,
        "license_link": terms.link or None,
        "language": list(terms.languages) or None,
        "library_name": library,
        "pipeline_tag": TASK,
        "base_model": model if is_hub_name(model) else None,
        "datasets": [source[0]] if source else None,
        "metrics": list(dict.fromkeys(METRICS.get(name, name) for row in rows for name in row.scores)),
        "tags": ["dynabert", "dynabert_jax", finished.shape.model_type],
        "model-index": model_index(rows, data),
    }
    return f"---\n{CardData(**values).to_yaml()}\n---"


def model_index(rows: Sequence[Row], data: DataConfig) -> list[dict[str, object]]:
    """One entry per sub-network, with its scores on each split."""
    task, source = data.task, hub_data(data)
    kind, config = (source[0], source[1]) if source else (_slug(task.name), None)
    of_data = {"name": task.name, "type": kind} | ({"config": config} if config else {})
    return [
        {
            "name": f"{task.name} {sub}",
            "results": [
                {
                    "task": {"type": TASK, "name": "Text Classification"},
                    "dataset": of_data | {"split": row.split},
                    "metrics": [
                        {"type": METRICS.get(name, name), "name": name, "value": value}
                        for name, value in row.scores.items()
                    ],
                }
                for row in rows
                if row.sub == sub
            ],
        }
        for sub in dict.fromkeys(row.sub for row in rows)
    ]


def hub_data(data: DataConfig) -> tuple[str, str | None] | None:
    """The hub's name of the data set and its configuration; None if the data is not from there."""
    if data.train_file is not None or data.glue_folder is not None:
        return None
    named = data.hub or data.task.hub
    if named is None:
        return None
    path, _, config = named.partition(":")
    return path, config or None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "data"
