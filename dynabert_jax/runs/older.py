"""The configuration that a run has stored: what an older version left out of it is as that version worked."""

from collections.abc import Mapping
from typing import Any

from dynabert_jax.config.complete import CompleteRun


def read_config(values: Mapping[str, Any]) -> CompleteRun:
    """The stored configuration, from the contents of its JSON object.

    Raises:
        ConfigError: it is damaged, or a later version has written it.
        TypeError: it is not an object.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"a configuration is an object; got {values!r}")
    values, data = dict(values), values.get("data")
    task = data.get("task") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(task, dict):
        values["data"] = {**data, "task": {**left_out(task), **task}}
    return CompleteRun.from_values(values)


def left_out(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that older versions did not have, with the values by which they worked."""
    is_regression = task.get("kind") == "regression" or task.get("regression") is True
    return {"standardise": not is_regression}
