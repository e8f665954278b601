"""The command line: python -m dynabert_jax COMMAND, or dynabert COMMAND."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from dynabert_jax import cli
from dynabert_jax.export import FormatName


def evaluate(run: Annotated[Path, tyro.conf.Positional]) -> None:
    """Score every sub-network of a finished run on this device, and print and write the table.

    Args:
        run: the run's folder.
    """
    from dynabert_jax.results import evaluate_run

    evaluate_run(run)


def compare(checkpoint: Annotated[str, tyro.conf.Positional], reference: Path) -> None:
    """Load a checkpoint here and in the authors' PyTorch code, and print the largest difference of each sub-network.

    Args:
        checkpoint: a folder in Hugging Face's format (the model/ of a run is one), a hub name or sample:minilm.
        reference: the DynaBERT folder of a clone of the authors' repository (Pretrained-Language-Model).
    """
    from dynabert_jax.compare import compare_with_reference

    compare_with_reference(checkpoint, reference)


def export(
    run: Annotated[Path, tyro.conf.Positional],
    format: FormatName,
    out: Path,
    sub: tuple[str, ...] = (),
    force: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    int8: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Write sub-networks of a finished run for other programs, after making sure that they answer the same there.

    Args:
        run: the run's folder.
        format: hf: transformers' own class, with zeros where heads were left out; hf-exact: transformers, in exact
            shapes, with a modelling file; reference: the uncut model, for the authors' code; onnx: for ONNX Runtime
            and others; stablehlo: for jax, any number of sub-networks with one file of weights.
        out: the folder to write.
        sub: names of sub-networks, such as w0.5_d0.5; left out, all that the run has, which only stablehlo
            can hold. For reference, leave it out.
        force: replace the folder where it is an earlier export.
        int8: write an ONNX file with weights in 8 bits, too, and say what that costs in score on the dev split.
    """
    from dynabert_jax.export import export

    export(run, format, out, subs=sub, force=force, int8=int8)


def main() -> int:
    commands: dict[str, Callable[..., None]] = {"evaluate": evaluate, "compare": compare, "export": export}
    return cli.guarded(lambda: tyro.extras.subcommand_cli_from_dict(commands, prog="dynabert"))


if __name__ == "__main__":
    sys.exit(main())
