"""A finished run, read back: its model and its scores. Measuring, choosing and exporting start here."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.data.tokenizer_files import files_there
from dynabert_jax.errors import nearest
from dynabert_jax.evaluate.rows import Majority, Row, Teacher
from dynabert_jax.evaluate.table import table
from dynabert_jax.plan import plan_run, results_of
from dynabert_jax.runs import latency_card
from dynabert_jax.runs.files import RunFolderError, unsealed
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.origin import Origin, Record
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import first_damage, reason

if TYPE_CHECKING:
    from dynabert_jax.weights.files import Pretrained


@dataclasses.dataclass(frozen=True, eq=False)
class Finished:
    """The results of a finished run. Its weights are read when `model` is first used; all else needs no jax.

    Attributes:
        folder: the run's.
        config: the run's, with its current folder as run_dir.
        shape: of the model that every sub-network is cut from.
        rows: the scores of every sub-network on every dev and test split.
        record: what the model was made from; empty in a run of an older version.
        teacher: the scores of the network that all sizes learn from; None if nothing does, if it could not be scored,
            or in a run of an older version.
        majorities: what always answering the most frequent class would score, on every split; empty for a regression
            and in a run of an older version.
        warnings: what is probably wrong with the scores, a sentence or two each.
        scored: fingerprints of the splits that were scored, by name; empty in a run of an older version.
    """

    folder: RunFolder
    config: CompleteRun
    shape: ModelConfig
    rows: tuple[Row, ...]
    record: Record
    teacher: Teacher | None = None
    majorities: tuple[Majority, ...] = ()
    warnings: tuple[str, ...] = ()
    scored: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.table}\n\nwritten to {self.path / TABLE}"

    @property
    def table(self) -> str:
        """The scores of all sub-networks, as in results.md."""
        return table(self.rows, self.teacher, self.majorities, self.warnings)

    @property
    def path(self) -> Path:
        """The run's folder, which other functions take."""
        return self.folder.path

    @functools.cached_property
    def model(self) -> "Pretrained":
        """The weights that every sub-network is cut from; its own folder holds the tokenizer.

        Raises:
            WeightsError, RunFolderError: they are damaged, or are not those of the run.
        """
        from dynabert_jax.weights.files import load_model

        check_files(self.folder, self.record)
        return load_model(self.folder.model)

    @functools.cached_property
    def subs(self) -> tuple[SubNetwork, ...]:
        """The sub-networks that the run was trained for, largest first."""
        return results_of(self.shape, plan_run(self.shape, self.config))

    @property
    def card_file(self) -> Path:
        """Where `dynabert bench` keeps the latencies."""
        return self.folder.path / latency_card.CARD

    @functools.cached_property
    def fingerprint(self) -> str:
        """The fingerprint in latency cards of this model."""
        return latency_card.fingerprint(self.shape, self.subs)

    @property
    def origin(self) -> Origin:
        """What the model was made from, as far as it was recorded."""
        return Origin("model", self.config, self.record.get("data"), self.record.get("weights"), None)

    def sub(self, name: str) -> SubNetwork:
        """The sub-network of that name, such as `w0.5_d0.5`.

        Raises:
            RunFolderError: the run has no sub-network of that name; the message lists those that it has.
        """
        by_name = {sub.name: sub for sub in self.subs}
        if name not in by_name:
            raise RunFolderError(
                f"{self.folder.path} has no sub-network {name!r}; {nearest(name, by_name, cutoff=0.0)}it has "
                f"{', '.join(by_name)}"
            )
        return by_name[name]


def read_finished(path: str | Path) -> Finished:
    """Reads the folder of a run.

    Raises:
        RunFolderError: it is not a run's folder, the run has not finished, or a file is damaged or of another run.
        ConfigError: its model's config.json is damaged.
    """
    folder = RunFolder.existing(Path(path))
    config = finished_config(folder)
    record = read_model_record(folder, config)
    check_files(folder, record, only=("config.json",))
    found = read_scores(folder, record)
    return Finished(folder, config, read_shape(folder), record=record, **found._asdict())


def finished_config(folder: RunFolder) -> CompleteRun:
    """The run's configuration, with its current folder as run_dir: the folder may have been moved.

    Raises:
        RunFolderError: the run has not finished.
    """
    if not folder.model.is_dir():
        raise RunFolderError(f"{folder.path} has no finished model; run its training command again to finish it")
    return folder.config().replace(run_dir=str(folder.path))


TABLE = "results.md"  # the scores for people, in the run's folder
TRAIN_AGAIN = "run the training command again to write the model again"


def read_model_record(folder: RunFolder, config: CompleteRun) -> Record:
    """What the model was made from; empty in a run of an older version.

    Raises:
        RunFolderError: it is damaged, or the model is of another configuration than the run's.
    """
    try:
        record = unsealed(folder.model_file.read_bytes())
    except FileNotFoundError:
        if _scored_model(folder) is None:
            return {}
        raise RunFolderError(f"{folder.model_file} is missing; restore it, or {TRAIN_AGAIN}") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder.model_file} is damaged ({error}); {TRAIN_AGAIN}") from error
    Origin("model", config, None, None, None).check(record, folder.model, f"Restore it, or {TRAIN_AGAIN}")
    return record


def _scored_model(folder: RunFolder) -> str | None:
    """The fingerprint of the model that the results are of; None in an older run, or if they cannot be read."""
    try:
        return unsealed(folder.results_file.read_bytes()).get("model")
    except (OSError, ValueError):
        return None


def check_files(folder: RunFolder, record: Record, only: Sequence[str] | None = None) -> None:
    """Raises RunFolderError if files of the model are not those that the run wrote; all, or only those of a name."""
    written = record.get("files", {})
    for file in files_there(folder.model) if written else ():
        if file.name not in written:
            raise RunFolderError(f"{file} is not of this run, and would change its tokens; remove it, or {TRAIN_AGAIN}")
    damage = first_damage(folder.model, {name: sha for name, sha in written.items() if only is None or name in only})
    if damage:
        raise RunFolderError(f"{damage}. Restore the file of this run, or {TRAIN_AGAIN}")


def read_shape(folder: RunFolder) -> ModelConfig:
    """The shape of the run's model.

    Raises:
        RunFolderError: its config.json is missing or cannot be read.
        ConfigError: it is damaged.
    """
    try:
        return ModelConfig.read(folder.model / "config.json")
    except OSError as error:
        raise RunFolderError(
            f"{folder.model / 'config.json'} cannot be read ({reason(error)}); {TRAIN_AGAIN}"
        ) from error


class Scores(NamedTuple):
    """What results.json says of the scores; see `Finished`."""

    rows: tuple[Row, ...]
    teacher: Teacher | None
    majorities: tuple[Majority, ...]
    warnings: tuple[str, ...]
    scored: Mapping[str, str]


def read_scores(folder: RunFolder, record: Record) -> Scores:
    """The final scores, as written at the end of the run or by the last `evaluate`.

    Args:
        record: what the run's model was made from.

    Raises:
        RunFolderError: it is missing, damaged, or of another model.
    """
    file = folder.results_file
    again = f"run `dynabert evaluate {folder.path}` to write it again"
    try:
        values = unsealed(file.read_bytes())
        found = _scores(values)
    except FileNotFoundError:
        raise RunFolderError(f"{file} is missing: the run has not finished; {again}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); {again}") from error
    if values.get("model") != record.get("start"):
        raise RunFolderError(f"{file} has the scores of another model than {folder.model}; {again}")
    teachers = found.teacher.rows if found.teacher else ()
    bad = next((row for row in (*found.rows, *teachers) if not _is_scored(row)), None)
    if bad is not None:
        raise RunFolderError(f"{file} is damaged ({bad.sub} has no score on {bad.split}); {again}")
    if not found.rows:
        raise RunFolderError(f"{file} is damaged (it has no rows); {again}")
    return found


def _scores(values: Mapping[str, Any]) -> Scores:
    """The scores in the values of results.json; older versions wrote only rows."""
    teacher, warnings = values.get("teacher"), values.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        raise ValueError("its warnings are not a list of texts")
    return Scores(
        tuple(Row(**row) for row in values["rows"]),
        None if teacher is None else Teacher.from_values(teacher),
        tuple(Majority(**one) for one in values.get("majorities", [])),
        tuple(warnings),
        dict(values.get("scored", {})),
    )


def _is_scored(row: Row) -> bool:
    """Whether the main metric is present and finite and, if it is an accuracy, between 0 and 1."""
    if row.examples < 1 or row.metric not in row.scores:
        return False
    return 0 <= row.score <= 1 if row.metric == "accuracy" else math.isfinite(row.score)
