"""Hugging Face's format, in two variants.

`hf`: transformers' own class. Its layers all have as many heads as fill the hidden size, and the same number of
neurons. Heads and neurons that a sub-network left out are zeros, which do not change the answers. Layers that it left
out are removed.

`hf-exact`: exact shapes, with a small modelling file of ours next to the weights.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer.runner import Source
from dynabert_jax.model.params import Model
from dynabert_jax.weights.files import file_type, save_model
from dynabert_jax.weights.names import param_shapes

MODELING = Path(__file__).with_name("modeling_dynabert.py")


def write_padded(source: Source, folder: Path) -> None:
    """Writes the one sub-network for transformers' own class: config.json and model.safetensors."""
    model = padded(source.only)
    save_model(folder, model.config, model.params, stored=source.stored)


def padded(model: Model) -> Model:
    """The same network with all layers in one shape: left-out heads and neurons are zeros.

    Raises:
        ExportError: there is no such shape, because heads of this size do not fill the hidden size.
    """
    config = uniform(model.config)
    shapes = param_shapes(config)
    grown = {path: _grown(array, shapes[path]) for path, array in flatten_dict(model.params, sep="/").items()}
    return Model(config, unflatten_dict(grown, sep="/"))


def uniform(config: ModelConfig) -> ModelConfig:
    """The smallest shape of transformers' own class that a model of this shape fits into."""
    heads, rest = divmod(config.hidden_size, config.head_size)
    if rest or max(config.heads) > heads:
        raise ExportError(
            f"heads of size {config.head_size}, {max(config.heads)} in a layer, do not fit into a hidden size of "
            f"{config.hidden_size} as transformers' own class requires; use --format hf-exact"
        )
    layers = config.num_layers
    return config.replace(heads=(heads,) * layers, neurons=(max(config.neurons),) * layers)


def _grown(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in the first corner of zeros of this shape."""
    zeros = np.zeros(shape, np.float32)
    zeros[tuple(map(slice, array.shape))] = array
    return zeros


def write_exact(source: Source, folder: Path) -> None:
    """Writes the one sub-network in its own shape, with the modelling file that lets transformers load it."""
    model = source.only
    save_model(folder, model.config, model.params, stored=source.stored)
    values = exact_config(model.config) | file_type(source.stored)
    (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(MODELING, folder / MODELING.name)


def exact_config(config: ModelConfig) -> dict[str, Any]:
    """The contents of config.json. Its own model type keeps stock classes from loading the weights."""
    kind = {"bert": "DynaBert", "roberta": "DynaRoberta"}[config.model_type]
    shape = {"head_size": config.head_size, "heads": config.heads, "neurons": config.neurons}
    return config.to_hugging_face() | {
        "model_type": kind.lower(),
        "architectures": [f"{kind}ForSequenceClassification"],
        "auto_map": {
            "AutoConfig": f"{MODELING.stem}.{kind}Config",
            "AutoModelForSequenceClassification": f"{MODELING.stem}.{kind}ForSequenceClassification",
        },
        "dynabert": {"model_type": config.model_type, **shape},
    }
