"""A folder in Hugging Face's format, opened in transformers or, without PyTorch, in our own network."""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.runner import Answers, Runner
from dynabert_jax.system import devices
from dynabert_jax.system.packages import is_installed
from dynabert_jax.weights.files import load_model


def open_folder(folder: Path, trust_remote_code: bool = False) -> Runner:
    """The network of the folder, in transformers or, without PyTorch, in our own network.

    Args:
        folder: has config.json, the weights and, if it needs code of its own, the modelling file.
        trust_remote_code: whether the folder's modelling file may run.
    """
    return open_in_transformers(folder, trust_remote_code) if is_installed("torch") else open_in_own(folder)


def open_in_transformers(folder: Path, trust_remote_code: bool) -> Runner:
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        ).eval()
    finally:
        if shown:
            logging.enable_progress_bar()

    def answer(inputs: Inputs) -> Answers:
        tensors = {name: torch.from_numpy(np.asarray(array, np.int64)) for name, array in inputs._asdict().items()}
        with torch.no_grad():
            logits = model(**tensors).logits.numpy()
        return Answers(logits, Work.dense(model.config.num_hidden_layers, *inputs.shape))

    versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch"))
    return Runner(f"{type(model).__name__} of {versions}", answer)


def open_in_own(folder: Path) -> Runner:
    """Reads the written weights back."""
    runner = in_jax.open_model(load_model(folder), on=devices.local()[:1])
    by = (
        "dynabert_jax itself, which read the written weights back (PyTorch is not installed here, so transformers was "
        "not used)"
    )
    return Runner(by, runner.answer)
