"""The model card of an export: what it is, its scores, how it was made and how to use it."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from dynabert_jax import cost
from dynabert_jax.evaluate.rows import IN_UNITS, Row, named, shown
from dynabert_jax.evaluate.table import escaped
from dynabert_jax.export.card_data import Terms, front_matter
from dynabert_jax.export.folder import CARD
from dynabert_jax.export.formats import Format
from dynabert_jax.export.int8 import Loss
from dynabert_jax.export.smaller import Saving
from dynabert_jax.export.verify import Check
from dynabert_jax.infer.in_onnxruntime import FLOAT, INT8
from dynabert_jax.infer.runner import Source
from dynabert_jax.runs.finished import Finished
from dynabert_jax.runs.latency_card import LatencyError, read_card
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.packages import version

log = logging.getLogger(__name__)

KINDS = {"bert": "BERT", "roberta": "RoBERTa"}
EIGHT_BITS = f"To run {INT8}, give its name to the session instead of {FLOAT}."
LATENCY = (
    "- latency: {median_ms:.2f} ms for {batch} x {length} tokens on {device} ({backend}, {dtype}; measured for the "
    "run, not on this export)"
)


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """The contents of a card.

    Attributes:
        finished: the run that was exported.
        source: the exported model and sub-networks.
        format: the format.
        check: the verification.
        losses: the cost of quantizing; empty without it.
        terms: the licence and the languages.
        saving: what was saved on disk; None if nothing was made smaller.
    """

    finished: Finished
    source: Source
    format: Format
    check: Check
    losses: tuple[Loss, ...] = ()
    terms: Terms = dataclasses.field(default_factory=Terms)
    saving: Saving | None = None

    def write(self, folder: Path) -> None:
        (folder / CARD).write_text(self.text(folder), encoding="utf-8")

    def text(self, folder: Path) -> str:
        """The card's text; the folder must already have all other files."""
        task, model = escaped(self.finished.config.data.task.name), escaped(self.finished.config.model)
        kind = KINDS[self.source.model.config.model_type]
        parts = (
            front_matter(
                dataclasses.replace(self.finished, rows=self.rows),
                [sub.name for sub in self.source.subs],
                self.format.library,
                self.terms,
            ),
            f"# {task}: {', '.join(sub.name for sub in self.source.subs)}",
            f"A {kind} for the task {task}, from a DynaBERT that was trained from {model}. "
            f"Exported by {written_by()} for {self.format.title}.",
            *(self.about(sub) for sub in self.source.subs),
            f"## Files\n\n{files(folder)}",
            f"## Verified\n\n{self.check}.",
            *([f"## Smaller on disk\n\n{self.smaller()}"] if self.saving else []),
            *(f"{loss}." for loss in self.losses),
            f"## Use it\n\nIn this folder:\n\n```python\n{self.usage()}\n```",
            *([EIGHT_BITS] if self.losses else []),
            f"## What it is for, and its limits\n\n{self.limits()}",
            f"## How it was made\n\n{self.making()}",
        )
        return "\n\n".join(parts) + "\n"

    def about(self, sub: SubNetwork) -> str:
        """One sub-network: its shape, size, scores and latencies."""
        config = self.source.model.config
        lines = [
            f"- layers: {len(sub.layers)} of {config.num_layers}, indices {', '.join(map(str, sub.layers))}",
            f"- heads: {', '.join(map(str, sub.heads))}, of size {config.head_size}",
            f"- neurons: {', '.join(map(str, sub.neurons))}",
            f"- parameters: {cost.parameters(config, sub):,}",
            *(line for row in self.rows if row.sub == sub.name for line in self.scores(row)),
            *latencies(self.finished, sub.name, self.backends),
        ]
        return f"## {sub.name}\n\n" + "\n".join(lines)

    @property
    def rows(self) -> tuple[Row, ...]:
        """The scores of this export. One that was made smaller has other scores than the run."""
        return self.saving.rows(self.finished.rows) if self.saving else self.finished.rows

    def smaller(self) -> str:
        """What was saved on disk, and what that costs. "Before" is the run's network."""
        lines = [] if self.saving is None else self.saving.lines
        listed = "\n".join(f"- {escaped(line)}" for line in lines)
        return f"{listed}\n\nThe scores above are of this export; it was scored on these splits alone."

    def scores(self, row: Row) -> list[str]:
        """The scores on one split and, where the teacher has any, the gain or loss against it."""
        teacher = self.finished.teacher and self.finished.teacher.on(row.split)
        if not teacher:
            return [score(row)]
        change = row.points - teacher.points
        return [
            score(row),
            f"- {escaped(row.metric)} x 100 on {escaped(row.split)} against the teacher, from which all sizes learned: "
            f"{change:+.2f} (the teacher scores {teacher.points:.2f})",
        ]

    @property
    def backends(self) -> tuple[str, ...]:
        """The backends that time the same files; times of others do not apply to this export."""
        return (self.format.backend, *([f"{self.format.backend}-int8"] if self.losses else []))

    def usage(self) -> str:
        return self.format.usage.replace("{sub}", self.source.subs[0].name)

    def limits(self) -> str:
        """The intended use, and what no score tells."""
        config, data = self.source.model.config, self.finished.config.data
        labels = ", ".join(map(escaped, config.labels))
        is_number, is_pairs = config.is_regression, len(data.task.text_columns) == 2
        texts = "pairs of texts" if is_pairs else "texts"
        answer = f"a number, {labels}," if is_number else f"one of {labels}"
        lines = [
            f"It gives {answer} for {texts} like those of the task {escaped(data.task.name)}, on which it was trained "
            "and scored.",
            "It gives an answer to every text, also to one of another kind or language, where no score says how good "
            "it is. Score it on texts of your own before you rely on it.",
            f"It reads at most {data.max_length} tokens of a text, special tokens included; the rest has no effect.",
            *([] if is_number else ["Its probabilities are not calibrated: 0.9 does not mean right in 9 of 10 cases."]),
            "It may have learned prejudices from its pretrained model and from the texts and labels of its training. "
            "Do not let it decide alone on what matters to people.",
        ]
        return "\n".join(f"- {line}" for line in lines)

    def making(self) -> str:
        """The licence, and the run's stages and seed."""
        config = self.finished.config
        labels = [escaped(label) for label in self.source.model.config.labels]
        outputs = f"one number, {labels[0]}" if self.source.model.config.is_regression else ", ".join(labels)
        return "\n".join(
            [
                f"- pretrained model: {escaped(config.model)}",
                f"- license: {escaped(str(self.terms))}",
                f"- stages: {', '.join(config.stages)}; matmuls in {config.dtype}, seed {config.seed}",
                f"- texts of up to {config.data.max_length} tokens, special tokens included",
                f"- output: {outputs}",
                "- method: DynaBERT (Hou et al., NeurIPS 2020, https://arxiv.org/abs/2004.04037)",
            ]
        )


def written_by() -> str:
    """This program and, if known, its version."""
    return f"dynabert_jax {version('dynabert_jax') or ''}".strip()


def score(row: Row) -> str:
    """All metrics of a row; those in the unit of the labels are last."""
    parts = [
        ", ".join(
            f"{escaped(named(name, row.positive))} {shown(name, row.scores[name])}"
            for name in row.scores
            if (name in IN_UNITS) == last
        )
        for last in (False, True)
    ]
    units = f"; in the unit of the labels: {parts[1]}" if parts[1] else ""
    what = "scores" if row.against == "labels" else "agreement with the teacher"
    return f"- {what} on {escaped(row.split)} x 100 ({row.examples:,} examples): {parts[0]}{units}"


def latencies(finished: Finished, sub: str, backends: Sequence[str]) -> list[str]:
    """One line per measurement of the sub-network by these backends. An unusable card is logged and left out."""
    if not finished.card_file.exists():
        return []
    try:
        card = read_card(finished.card_file, finished.fingerprint)
    except LatencyError as error:
        log.warning("the model card has no latencies: %s", error)
        return []
    return [
        LATENCY.format(**row.model_dump() | {"device": escaped(row.device)})
        for row in card.rows
        if row.sub == sub and row.backend in backends
    ]


def files(folder: Path) -> str:
    """All files with their sizes, largest first."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != CARD}
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))
    return "\n".join(f"- {name}: {size_text(sizes[name])}" for name in largest)


def size_text(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
