"""Runs the networks in a folder that `dynabert export --format stablehlo` wrote. It needs only jax and safetensors.

Every `.stablehlo` file is the program of one sub-network. `weights.safetensors` has the weights of all of them: a
program takes the first rows and columns of each array, as many as it needs.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from safetensors import safe_open

WEIGHTS = "weights.safetensors"
ENDING = ".stablehlo"
LONGEST = "longest"  # key in the metadata of the weights: the most tokens that a text can have

# The only custom call that a program may have: jax's check that sizes agree. Others run native code of the process with
# arguments of the file's choice; `infeed` and the like wait for, or send to, somebody else.
ALLOWED = "stablehlo.custom_call @shape_assertion("
OUTSIDE = re.compile(r"custom_call|\bstablehlo\.(?:infeed|outfeed|send|recv)\b")
NAMES = "#loc"  # begins the lines that say which lines of which source file an operation comes from

Network = Callable[[Any, Any, Any], jax.Array]


class ProgramError(ValueError):
    """A program that is not run, because it would call native code."""


def load_stablehlo(folder: str | Path, name: str | None = None) -> Network:
    """A network as a function: (input_ids, attention_mask, token_type_ids), ints `[B, S]` each, to logits `[B, C]`.

    It is compiled for each new batch size and length, so pad to a few of them. It runs on jax's default device.

    Args:
        folder: the exported folder.
        name: the sub-network, such as `w0.5_d0.5`; may be omitted if there is only one.

    Raises:
        FileNotFoundError: the folder has no such network.
        ProgramError: its program has custom calls.
    """
    return network_of(Path(folder), read_program(Path(folder), name))


def network_of(folder: Path, program: jax.export.Exported) -> Network:
    """The program with its weights, as `load_stablehlo` returns it."""
    weights, longest = jax.device_put(read_weights(folder, program)), read_longest(folder)
    run = jax.jit(program.call)

    def network(input_ids: Any, attention_mask: Any, token_type_ids: Any) -> jax.Array:
        length = jnp.shape(input_ids)[1]
        if length > longest:
            raise ValueError(f"{length} tokens do not fit: the network has positions for {longest}; truncate the texts")
        return run(weights, *(jnp.asarray(ids, jnp.int32) for ids in (input_ids, attention_mask, token_type_ids)))

    return network


def read_program(folder: Path, name: str | None) -> jax.export.Exported:
    """The program of a network, after a look at what it calls.

    Raises:
        FileNotFoundError: the folder has no such network.
        ProgramError: it calls anything outside of itself.
    """
    file = find_program(folder, name)
    program = jax.export.deserialize(bytearray(file.read_bytes()))
    if called := calls_outside(program.mlir_module()):
        raise ProgramError(
            f"{file} is not run, because its program calls native code or another device: {called}. No program of this "
            f"exporter does; get the file from whom you trust, or export it again"
        )
    return program


def calls_outside(text: str) -> str | None:
    """The first line of a program's text that calls anything but jax's check of sizes, shortened; None if none does.

    Nothing else is allowed even within a message, so that no way of writing a call can hide it.
    """
    lines = (line.strip() for line in text.splitlines() if not line.startswith(NAMES))
    return next((line[:100] for line in lines if OUTSIDE.search(line.replace(ALLOWED, ""))), None)


def find_program(folder: Path, name: str | None) -> Path:
    programs = {path.name.removesuffix(ENDING): path for path in sorted(folder.glob(f"*{ENDING}"))}
    if name is None and len(programs) == 1:
        return next(iter(programs.values()))
    if name not in programs:
        asked = "name the network" if name is None else f"it has no network {name!r}"
        raise FileNotFoundError(f"{folder}: {asked}; there are {', '.join(programs) or 'none'}")
    return programs[name]


def read_weights(folder: Path, program: jax.export.Exported) -> dict[str, Any]:
    """The parts of the arrays that the program takes, by name, in its type: the file may have smaller ones."""
    (shapes, *_), _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        return {
            name: file.get_slice(name)[tuple(map(slice, wanted.shape))].astype(wanted.dtype)
            for name, wanted in shapes.items()
        }


def read_longest(folder: Path) -> int:
    """The most tokens that a text can have."""
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        return int(file.metadata()[LONGEST])
