"""Runs the authors' PyTorch code on a folder that `compare.py` made. Only `compare.py` starts it:

    PYTHONPATH=THE_AUTHORS_FOLDER python -P child.py FOLDER

In this process `transformers` is the authors' package, so nothing of this package may be imported.
"""

import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

# Their code makes a pooler for every model. A RoBERTa classifier does not use it, and we do not keep it.
UNUSED = "roberta.pooler."


def main(folder: Path) -> None:
    """Reads config.json, model.safetensors, inputs.npz and grid.json, and writes answers.npz."""
    model = load_model(folder)
    with np.load(folder / "inputs.npz") as arrays:
        inputs = {name: torch.from_numpy(arrays[name]).long() for name in arrays.files}
    logits, last_hidden = [], []
    for size in json.loads((folder / "grid.json").read_text()):
        model.apply(functools.partial(choose, **size))
        with torch.no_grad():
            answer, hidden_states = model(**inputs)[:2]
        logits.append(answer.numpy())
        last_hidden.append(hidden_states[-1].numpy())
    np.savez(folder / "answers.npz", logits=np.stack(logits), last_hidden=np.stack(last_hidden))


def choose(module: Any, width: float, depth: float) -> None:
    """Chooses the sub-network, as the authors' `eval_glue.py` does."""
    module.width_mult, module.depth_mult = width, depth


def load_model(folder: Path) -> Any:
    """The checkpoint in the authors' class, with their flags set to return all outputs."""
    transformers: Any = importlib.import_module("transformers")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    is_roberta = json.loads((folder / "config.json").read_text())["model_type"] == "roberta"
    kind = "Roberta" if is_roberta else "Bert"
    config = getattr(transformers, f"{kind}Config").from_pretrained(str(folder))
    config.output_attentions = config.output_hidden_states = config.output_intermediate = True
    model_class = getattr(transformers, f"{kind}ForSequenceClassification")
    model, found = model_class.from_pretrained(str(folder), config=config, output_loading_info=True)
    missing = [name for name in found["missing_keys"] if not name.startswith(UNUSED)]
    if missing or found["unexpected_keys"]:
        sys.exit(f"the weights do not fit: missing {missing}, unknown {found['unexpected_keys']}")
    return model


if __name__ == "__main__":
    main(Path(sys.argv[1]))
