"""Exports a finished run: from its folder to a verified folder in another format."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path

from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.export.card_data import terms_of
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.folder import check_target, whole_folder, write_tokenizer
from dynabert_jax.export.formats import FormatName, check_count, find_format
from dynabert_jax.export.int8 import Loss, check_possible, quantize
from dynabert_jax.export.manifest import Manifest, Structure, checksums, write_manifest
from dynabert_jax.export.model_card import ModelCard, written_by
from dynabert_jax.export.push import Pushed, check_push, push_export
from dynabert_jax.export.smaller import Saving, check_smaller, made_smaller, saving_of
from dynabert_jax.export.verify import Check, Exportable, read_sentences, verify
from dynabert_jax.infer.runner import Source
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import expanded
from dynabert_jax.weights.embeddings import Stored


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, how it was verified, what was saved, what 8 bits cost in score, and where it was pushed."""

    folder: Path
    subs: tuple[SubNetwork, ...]
    check: Check
    losses: tuple[Loss, ...]
    saving: Saving | None = None
    pushed: Pushed | None = None

    def __str__(self) -> str:
        """The largest difference of the answers, gains and costs, the folder, and its page on the hub."""
        saved, pushed = self.saving.lines if self.saving else [], [self.pushed] if self.pushed else []
        return "\n".join(map(str, (self.check, *saved, *self.losses, f"written to {self.folder}", *pushed)))

    def to_json(self) -> str:
        """The same as JSON; scores are fractions."""
        values = {
            "folder": str(self.folder),
            "subs": [sub.name for sub in self.subs],
            "largest_difference": self.check.largest,
            "compared_sentences": self.check.sentences,
            "compared_by": self.check.by,
            "saving": self.saving and self.saving.to_values(),
            "int8": [dataclasses.asdict(loss) for loss in self.losses],
            "pushed": self.pushed and dataclasses.asdict(self.pushed),
        }
        return json.dumps(values, indent=2)


def export_run(
    run: str | Path,
    format: FormatName,
    out: str | Path,
    *,
    subs: Sequence[str] = (),
    force: bool = False,
    int8: bool = False,
    vocabulary_of: Sequence[str | Path] = (),
    embeddings: Stored = "float32",
    license: str | None = None,
    languages: Sequence[str] = (),
    push: str | None = None,
    public: bool = False,
) -> Exported:
    """Writes sub-networks of a finished run in another format, with tokenizer and model card, and verifies them.

    Args:
        run: the run's folder.
        format: the format; see `dynabert_jax.export.formats`.
        out: the folder to write. It appears atomically, once its answers were compared with those of `bert.py`.
        subs: the names of the sub-networks; empty means all of the run's.
        force: replace `out` if it is an earlier export.
        int8: also write a quantized ONNX file, and score both.
        vocabulary_of: files of texts (.csv, .tsv, .jsonl, .parquet with the run's text columns, or .txt with a text a
            line). The export has the tokens of their words alone, and those that spell any other word.
        embeddings: the type of the word embeddings in the file: float32, float16 or, in ONNX, int8.
        license: for the model card, the hub's name of it, such as `apache-2.0`; None: the pretrained model's, if its
            own card has one.
        languages: for the model card, codes such as `en`.
        push: also upload the folder to this repository of the hub, as `push_export` does.
        public: everybody may read that repository.

    Raises:
        ExportError: the format is unknown, cannot hold these sub-networks; `out` exists or cannot be
            written; or the export gives wrong answers.
        PushError: the hub refuses it; the folder is written all the same.
        MissingPackageError: a package that the format needs is not installed.
        RunFolderError, WeightsError, ConfigError, DataError: the run is damaged, or has no sub-network of that name.
    """
    out = expanded(out)
    for name, value in (("subs", subs), ("vocabulary_of", vocabulary_of)):
        if isinstance(value, str | Path):
            raise ExportError(f"{name} must be a list of names; got the single name {str(value)!r}; put it in [ ]")
    subs, chosen = tuple(dict.fromkeys(subs)), find_format(format)
    check_target(out, force)
    if push is not None:
        check_push(push)
    elif public:
        raise ExportError("public says who may read what is pushed; name a repository with --push, or leave it out")
    finished = read_finished(run)
    check_count(format, subs, [sub.name for sub in finished.subs])
    source, data = source_of(finished, subs, uncut=chosen.holds == "uncut"), finished.config.data
    terms = terms_of(finished.config.model, license, languages)
    tokenizer = load_tokenizer(finished.folder.model, finished.shape)
    whole = Exportable(source, tokenizer, read_sentences(finished, tokenizer))
    if int8:
        check_possible(format, whole.sentences)
    check_smaller(format, embeddings, vocabulary_of, whole.sentences)
    smaller = made_smaller(whole, embeddings, vocabulary_of, data.task.text_columns, data.max_length)
    written = smaller.written
    with whole_folder(out, force) as folder:
        chosen.write(written.source, folder)
        write_tokenizer(folder, written.tokenizer, data.max_length)
        open_written = functools.partial(chosen.open, folder)
        check = verify(smaller.exact, written, open_written)
        saving = saving_of(smaller, data.task, folder / chosen.weights, open_written)
        losses = quantize(written.source, data.task, written.sentences, folder) if int8 else ()
        ModelCard(finished, written.source, chosen, check, losses, terms, saving).write(folder)
        write_manifest(folder, manifest_of(finished, written.source, format, folder, saving))
    pushed = None if push is None else push_export(out, push, public)
    return Exported(out, source.subs, check, losses, saving, pushed)


def manifest_of(
    finished: Finished, source: Source, format: FormatName, folder: Path, saving: Saving | None
) -> Manifest:
    """The manifest of a folder that has all other files."""
    config, data = source.model.config, finished.config.data
    return Manifest(
        format=format,
        subs=tuple(map(Structure.of, source.subs)),
        text_columns=data.task.text_columns,
        lengths=data.lengths,
        labels=config.labels,
        head=config.head,
        files=checksums(folder),
        written_by=written_by(),
        saving=saving,
    )


def source_of(finished: Finished, subs: Sequence[str], uncut: bool) -> Source:
    """The run's model with these sub-networks, or all; if uncut, with the full network, which contains them all."""
    model = finished.model
    wanted = (SubNetwork.full(model.config),) if uncut else tuple(map(finished.sub, subs)) or finished.subs
    return Source(model, wanted)
