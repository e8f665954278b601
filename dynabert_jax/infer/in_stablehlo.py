"""One program of a StableHLO export, on the first device that jax has here."""

from pathlib import Path

import jax
import jax.export

from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.infer.run_stablehlo import find_program, load_stablehlo
from dynabert_jax.infer.runner import Answers, Runner


def open_program(folder: Path, name: str) -> Runner:
    """The network of that name, such as `w0.5_d0.5`.

    Raises:
        FileNotFoundError: the folder has no such network.
    """
    network, layers = load_stablehlo(folder, name), count_layers(folder, name)

    def answer(inputs: Inputs) -> Answers:
        return Answers(network(*inputs), Work.dense(layers, *inputs.shape))

    return Runner(f"jax {jax.__version__} ({jax.default_backend()})", answer)


def count_layers(folder: Path, name: str) -> int:
    """The number of layers whose weights the program takes."""
    program = jax.export.deserialize(bytearray(find_program(folder, name).read_bytes()))
    (weights, *_), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    return len({path.partition("/")[0] for path in weights if path.startswith("layer_")})
