"""StableHLO: one file of weights, and for each sub-network a small program that takes its corner of them.

A program takes the weights as arguments, so it is small, and all sub-networks share one file of weights. Batch and
length are dynamic. Each program is lowered for CPU, CUDA and TPU at once.
"""

import json
import shutil
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.infer import run_stablehlo
from dynabert_jax.infer.run_stablehlo import ENDING, LONGEST, WEIGHTS
from dynabert_jax.infer.runner import Source
from dynabert_jax.model.bert import Bert
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.embeddings import PATH as WORDS
from dynabert_jax.weights.embeddings import in_float16
from dynabert_jax.weights.names import param_shapes

PLATFORMS = ("cpu", "cuda", "tpu")

Shapes = dict[str, tuple[int, ...]]  # of arrays, by their paths in the uncut model


def write(source: Source, folder: Path) -> None:
    """Writes every sub-network's program, the weights that they need together, and the module that runs them."""
    for sub in source.subs:
        (folder / f"{sub.name}{ENDING}").write_bytes(program(source.model.config, sub))
    arrays = flatten_dict(source.model.params, sep="/")
    needed = common_shapes([corner_shapes(source.model.config, sub) for sub in source.subs])
    corners = {name: np.ascontiguousarray(arrays[name][tuple(map(slice, shape))]) for name, shape in needed.items()}
    if source.stored == "float16":
        corners[WORDS] = in_float16(corners[WORDS])
    save_file(corners, folder / WEIGHTS, metadata={LONGEST: str(source.model.config.max_length)})
    (folder / "config.json").write_text(
        json.dumps(source.model.config.to_hugging_face(), indent=2) + "\n", encoding="utf-8"
    )
    shutil.copymode(folder / "config.json", folder / WEIGHTS)  # safetensors makes files that only the owner can read
    shutil.copyfile(run_stablehlo.__file__, folder / Path(run_stablehlo.__file__).name)


def program(config: ModelConfig, sub: SubNetwork) -> bytes:
    """The cut sub-network as a function of its weights and a batch, for every platform."""
    small = config.replace(heads=sub.heads, neurons=sub.neurons)
    model, whole = Bert(small), SubNetwork.full(small)
    here = in_uncut(sub, param_shapes(small))

    def logits(weights: dict[str, jax.Array], *inputs: jax.Array) -> jax.Array:
        """Weights by their paths in the uncut model, and three inputs `[B, S]`, to logits `[B, C]`."""
        params = unflatten_dict({path: weights[name] for name, path in here.items()}, sep="/")
        return model.apply({"params": params}, *inputs, whole).logits

    shapes = corner_shapes(config, sub)
    weights = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    size = jax.export.symbolic_shape("batch, length", constraints=[f"length <= {config.max_length}"])
    inputs = [jax.ShapeDtypeStruct(size, jnp.int32)] * 3
    exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(weights, *inputs)
    return bytes(exported.serialize())


def corner_shapes(config: ModelConfig, sub: SubNetwork) -> Shapes:
    """The shape of the corner that a sub-network takes of each array of the uncut model."""
    shapes = param_shapes(config.replace(heads=sub.heads, neurons=sub.neurons))
    return {name: shapes[path] for name, path in in_uncut(sub, shapes).items()}


def in_uncut(sub: SubNetwork, paths: Shapes) -> dict[str, str]:
    """Paths in the cut model by paths in the uncut model, which counts all layers."""
    return {uncut_path(sub, path): path for path in paths}


def uncut_path(sub: SubNetwork, path: str) -> str:
    module, _, rest = path.partition("/")
    if not module.startswith("layer_"):
        return path
    return f"layer_{sub.layers[int(module.removeprefix('layer_'))]}/{rest}"


def common_shapes(shapes: list[Shapes]) -> Shapes:
    """The smallest corners that contain all of these."""
    common: Shapes = {}
    for own in shapes:
        for name, shape in own.items():
            common[name] = tuple(map(max, shape, common.get(name, shape)))
    return common
