"""Hugging Face's format, in two ways.

`hf`: transformers' own class. It gives every layer as many heads as fill the hidden size, and every layer as many
neurons, so what a sub-network has left out is zeros there; zeros add nothing, and the answers are the same. Layers
that were left out are gone.

`hf-exact`: exact shapes, for which a small modelling file of ours lies beside the weights.
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
from dynabert_jax.weights.files import save_model
from dynabert_jax.weights.names import param_shapes

MODELING = Path(__file__).with_name("modeling_dynabert.py")


def write_padded(source: Source, folder: Path) -> None:
    """The one sub-network for transformers' own class: config.json and model.safetensors."""
    model = padded(source.only)
    save_model(folder, model.config, model.params)


def padded(model: Model) -> Model:
    """The same network in a shape that is the same in every layer: zeros where heads and neurons were left out.

    Raises:
        ExportError: there is no such shape, because its heads do not fill the hidden size.
    """
    config = uniform(model.config)
    shapes = param_shapes(config)
    grown = {path: _grown(array, shapes[path]) for path, array in flatten_dict(model.params, sep="/").items()}
    return Model(config, unflatten_dict(grown, sep="/"))


def uniform(config: ModelConfig) -> ModelConfig:
    """The smallest shape of transformers' own class that holds a model of this one."""
    heads, rest = divmod(config.hidden_size, config.head_size)
    if rest or max(config.heads) > heads:
        raise ExportError(
            f"heads of size {config.head_size}, {max(config.heads)} in a layer, do not fit into a hidden size of "
            f"{config.hidden_size}, as transformers' own class needs them to; use --format hf-exact"
        )
    layers = config.num_layers
    return config.replace(heads=(heads,) * layers, neurons=(max(config.neurons),) * layers)


def _grown(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Zeros of this shape with the array in their first corner."""
    zeros = np.zeros(shape, np.float32)
    zeros[tuple(map(slice, array.shape))] = array
    return zeros


def write_exact(source: Source, folder: Path) -> None:
    """The one sub-network in its own shape, with the file that makes it a model of transformers'."""
    model = source.only
    save_model(folder, model.config, model.params)
    (folder / "config.json").write_text(json.dumps(exact_config(model.config), indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(MODELING, folder / MODELING.name)


def exact_config(config: ModelConfig) -> dict[str, Any]:
    """The contents of config.json: a model type of our own, so that no stock class takes the weights for its own."""
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
