"""Asks transformers what it makes of an exported folder; where PyTorch is not installed, our own model."""

import importlib.metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dynabert_jax import weights
from dynabert_jax.batches import Batch
from dynabert_jax.bert import Bert
from dynabert_jax.export.source import Reader, Source
from dynabert_jax.packages import is_installed
from dynabert_jax.subnetwork import SubNetwork


def open_stock(source: Source, folder: Path) -> Reader:  # noqa: ARG001
    """Opens a folder that transformers' own class can load."""
    return open_folder(folder, trust_remote_code=False)


def open_exact(source: Source, folder: Path) -> Reader:  # noqa: ARG001
    """Opens a folder that brings its own modelling file."""
    return open_folder(folder, trust_remote_code=True)


def open_folder(folder: Path, trust_remote_code: bool) -> Reader:
    """The folder in transformers or, where that has no PyTorch, its weights in our own model."""
    return open_in_transformers(folder, trust_remote_code) if is_installed("torch") else open_in_own(folder)


def open_in_transformers(folder: Path, trust_remote_code: bool) -> Reader:
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, local_files_only=True, trust_remote_code=trust_remote_code
    ).eval()

    def answer(_: SubNetwork, batch: Batch) -> np.ndarray:
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: torch.from_numpy(np.asarray(getattr(batch, name), np.int64)) for name in names}
        with torch.no_grad():
            return model(**inputs).logits.numpy()

    versions = " and ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch"))
    return Reader(f"{type(model).__name__} of {versions}", answer)


def open_in_own(folder: Path) -> Reader:
    """Reads the written weights back."""
    read = weights.load(folder)
    model, whole = Bert(read.config), SubNetwork.full(read.config)
    forward = jax.jit(lambda *inputs: model.apply({"params": read.params}, *inputs, whole).logits)

    def answer(_: SubNetwork, batch: Batch) -> np.ndarray:
        return np.asarray(forward(batch.input_ids, batch.attention_mask, batch.token_type_ids))

    return Reader(
        "dynabert_jax itself, which read the written weights back (PyTorch is not installed here, so transformers was "
        "not asked)",
        answer,
    )
