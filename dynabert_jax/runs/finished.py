"""A finished run, read back: its model and its scores. Measuring, choosing and exporting start here."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.errors import nearest
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.plan import plan_run, results_of
from dynabert_jax.runs import latency_card
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import reason

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
    """

    folder: RunFolder
    config: RunConfig
    shape: ModelConfig
    rows: tuple[Row, ...]

    @functools.cached_property
    def model(self) -> "Pretrained":
        """The weights that every sub-network is cut from; its own folder holds the tokenizer.

        Raises:
            WeightsError: they are damaged.
        """
        from dynabert_jax.weights.files import load_model

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
        RunFolderError: it is not a run's folder, the run has not finished, or its results are damaged.
        ConfigError: its model's config.json is damaged.
    """
    folder = RunFolder.existing(Path(path))
    config = finished_config(folder)
    return Finished(folder, config, read_shape(folder), read_rows(folder))


def finished_config(folder: RunFolder) -> RunConfig:
    """The run's configuration, with its current folder as run_dir: the folder may have been moved.

    Raises:
        RunFolderError: the run has not finished.
    """
    if not folder.model.is_dir():
        raise RunFolderError(f"{folder.path} has no finished model; run its training command again to finish it")
    return folder.config().replace(run_dir=str(folder.path))


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
            f"{folder.model / 'config.json'} cannot be read ({reason(error)}); run the training command again to "
            f"write the model again"
        ) from error


def read_rows(folder: RunFolder) -> tuple[Row, ...]:
    """The final table, as written at the end of the run or by the last `evaluate`.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    file = folder.results_file
    again = f"run `dynabert evaluate {folder.path}` to write it again"
    try:
        rows = tuple(Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"])
    except FileNotFoundError:
        raise RunFolderError(f"{file} is missing: the run has not finished; {again}") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); {again}") from error
    bad = next((row for row in rows if not _is_scored(row)), None)
    if bad is not None:
        raise RunFolderError(f"{file} is damaged ({bad.sub} has no score on {bad.split}); {again}")
    if not rows:
        raise RunFolderError(f"{file} is damaged (it has no rows); {again}")
    return rows


def _is_scored(row: Row) -> bool:
    """Whether the main metric is present and finite and, if it is an accuracy, between 0 and 1."""
    if row.examples < 1 or row.metric not in row.scores:
        return False
    return 0 <= row.score <= 1 if row.metric == "accuracy" else math.isfinite(row.score)
