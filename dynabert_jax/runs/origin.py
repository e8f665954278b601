"""What a file of a run is of: recorded in the file, and compared when it is read back."""

import dataclasses
import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.config.run import RunConfig
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.older import read_config

Record = Mapping[str, Any]

# Settings that may change when a run resumes: results stay the same except for the order of sums.
CHANGEABLE = ("gradient_accumulation", "rematerialize", "data.eval_batch_size", "log_every", "checkpoint_every")
# Where things lie. What lies there has fingerprints of its own.
PLACES = ("run_dir", "model", "data.train_file", "data.dev_file", "data.test_file", "data.unlabelled_files",
          "data.glue_folder", "data.hub")  # fmt: skip
# Not in the name of a run: lines of older versions, which had no such settings, keep theirs.
NEW = ("data.task.standardise", "data.task.positive_label")
# Fingerprints, in words that users know.
MADE_FROM = {
    "data": "train or dev data (texts, labels or tokens)",
    "weights": "pretrained weights",
    "start": "weights than the stage before it has now",
}
OLDER = ", perhaps because an older version held out other rows for dev"


@dataclasses.dataclass(frozen=True)
class Origin:
    """What one part of a run is made from.

    Attributes:
        part: the name of a stage, `answers`, `importance` or `model`.
        config: what the part depends on of the run's configuration; see `settings_of`.
        data: fingerprint of train and dev; None: not known, and not compared. Likewise for the next ones.
        weights: fingerprint of the pretrained weights.
        start: fingerprint of the weights that the part begins with; for the model, of its own.
    """

    part: str
    config: CompleteRun
    data: str | None
    weights: str | None
    start: str | None

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {
            "config": self.config.to_values()
        }

    @property
    def run(self) -> str | None:
        """A short fingerprint of the configuration, the data and the weights, for the lines of logs.

        None if data or weights are not known. Settings at their defaults are left out: later versions have more.
        """
        if None in (self.data, self.weights):
            return None
        settings = dict(_flat(self.config.model_dump(mode="json", exclude_defaults=True)))
        fixed = {name: value for name, value in settings.items() if name not in (*PLACES, *CHANGEABLE, *NEW)}
        text = json.dumps([fixed, self.data, self.weights], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def check(self, record: Record, file: object, cure: str) -> None:
        """Raises RunFolderError unless the record is of the same origin. Older versions recorded less.

        Args:
            record: read from the file.
            file: its path, for the message.
            cure: what to do, for the message.
        """
        problems = list(self.differences(record))
        if problems:
            raise RunFolderError(f"{file} does not belong here: {'; '.join(problems)}. {cure}")

    def differences(self, record: Record) -> Iterator[str]:
        """How a record of another origin differs, in words."""
        if record.get("part", self.part) != self.part:
            yield f"it is of {record['part']}, not of {self.part}"
        if "config" in record:
            yield from changed_since(record["config"], self.config, (*PLACES, *CHANGEABLE))
        for name, words in MADE_FROM.items():
            here, there = getattr(self, name), record.get(name)
            if None not in (here, there) and here != there:
                yield f"it was made with other {words}" + (OLDER if name == "data" and "part" not in record else "")
                return  # the others follow from it


def settings_of(config: CompleteRun, part: str) -> CompleteRun:
    """The settings that a part of the run depends on: those of later parts are left out."""
    if part == "model":
        return config
    if part == "answers":
        return config.replace(fine_tune=None, importance=None, width=None, depth=None, final=None)
    if part == "importance":
        return config.replace(width=None, depth=None, final=None)
    until = config.until(part)
    return until if until.width else until.replace(importance=None)


def changed_since(recorded: Any, config: CompleteRun, free: Container[str]) -> Iterator[str]:
    """The settings that differ from a recorded configuration, in words."""
    try:
        old = read_config(recorded)
    except (ConfigError, TypeError) as error:  # TypeError: not an object
        yield f"its configuration cannot be read ({error})"
        return
    yield from changed_settings(old, config, free)


def changed_settings(old: RunConfig, new: RunConfig, free: Container[str]) -> Iterator[str]:
    """The settings that differ, such as `seed was 1 and is 2`, except for those that are free to."""
    before, now = (dict(_flat(run.to_values())) for run in (old, new))
    for key in sorted(before.keys() | now.keys()):
        if key not in free and before.get(key) != now.get(key):
            yield f"{key} was {before.get(key)!r} and is {now.get(key)!r}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of nested tables, such as `("data.batch_size", 32)`."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
