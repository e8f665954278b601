"""Where dev has no labels, the answers of the run's teacher take their place. They are kept in the run's folder."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.data.encode import Split, TaskData
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.folder import AGAIN, RunFolder
from dynabert_jax.runs.origin import Origin, settings_of

PART = "answers"


def unlabelled_dev(data: TaskData) -> dict[str, Split]:
    """The dev splits that have no labels, by name."""
    return {name: split for name, split in data.dev.items() if split.against is None}


def with_answers(data: TaskData, folder: RunFolder, config: CompleteRun, weights: str | None) -> TaskData:
    """The data with the teacher's answers for labels where dev has none.

    Args:
        folder: of the run, which has written the answers.
        config: the run's.
        weights: the fingerprint of the pretrained weights; None if it is not known.

    Raises:
        RunFolderError: the answers are missing, damaged, or to other texts.
    """
    missing = unlabelled_dev(data)
    if not missing:
        return data
    origin = Origin(PART, settings_of(config, PART), data.fingerprint_of_labelled, weights, None)
    answers = folder.read_answers(origin)
    bad = next((name for name, split in missing.items() if not _fit(answers, name, split)), None)
    if bad is not None:
        raise RunFolderError(f"{folder.answers_file} has no answers to the texts of {bad}; {AGAIN}")
    filled = {name: split.answered(answers[name]) for name, split in missing.items()}
    return dataclasses.replace(data, dev={**data.dev, **filled})


def _fit(answers: Mapping[str, np.ndarray], name: str, split: Split) -> bool:
    return name in answers and answers[name].shape == split.labels.shape
