"""The authors' format: the uncut model, which their code runs at any width and depth."""

import json
from pathlib import Path

from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer.runner import Source
from dynabert_jax.weights.files import file_type, with_stored_words
from dynabert_jax.weights.names import to_torch_names

WEIGHTS = "pytorch_model.bin"


def write(source: Source, folder: Path) -> None:
    """Writes config.json and pytorch_model.bin, for PyTorch of any version.

    Raises:
        ExportError: the model itself is cut.
    """
    import torch

    settings = source.model.config.to_hugging_face()
    if "dynabert" in settings:
        raise ExportError(
            "the run's model is a cut one, with different heads or neurons in each layer, but the authors' code runs "
            "only uncut models; use another format"
        )
    # Their configuration takes the number of labels from a key of its own.
    settings |= {"num_labels": source.model.config.num_labels} | file_type(source.stored)
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    arrays = with_stored_words(to_torch_names(source.model.config, source.model.params), source.stored)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    # The older of PyTorch's two formats, the only one when their code was written.
    torch.save(tensors, folder / WEIGHTS, _use_new_zipfile_serialization=False)
