"""One program of a StableHLO export, on the first device that jax has here."""

from pathlib import Path

import jax
import jax.export

from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.infer.run_stablehlo import network_of, read_program
from dynabert_jax.infer.runner import Answers, Runner
from dynabert_jax.system import devices


def open_program(folder: Path, name: str) -> Runner:
    """The network of that name, such as `w0.5_d0.5`.

    Raises:
        FileNotFoundError: the folder has no such network.
        ProgramError: its program has custom calls.
    """
    device, program = devices.local()[0], read_program(folder, name)
    network, layers = network_of(folder, program), count_layers(program)

    def answer(inputs: Inputs) -> Answers:
        return Answers(network(*inputs), Work.dense(layers, *inputs.shape))

    return Runner(f"jax {jax.__version__} ({device.platform})", answer)


def count_layers(program: jax.export.Exported) -> int:
    """The number of layers whose weights the program takes."""
    (weights, *_), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    return len({path.partition("/")[0] for path in weights if path.startswith("layer_")})
