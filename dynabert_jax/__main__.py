"""The command line: python -m dynabert_jax COMMAND, or dynabert COMMAND."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from dynabert_jax import cli
from dynabert_jax.backends import BackendName
from dynabert_jax.choose import Cost
from dynabert_jax.config import Dtype


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


def bench(
    run: Annotated[Path, tyro.conf.Positional],
    subs: tuple[str, ...] = (),
    batch: tuple[int, ...] = (1,),
    length: tuple[int, ...] = (),
    dtype: tuple[Dtype, ...] = (),
    rounds: int = 20,
    backend: tuple[BackendName, ...] = ("jax",),
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Time the sub-networks of a finished run on this device, and print and write its latency card.

    Args:
        run: the run's folder.
        subs: names of sub-networks, such as w1_d1 w0.5_d0.5; none: all.
        batch: sentences a batch; several are measured one after the other, as with all that follows.
        length: tokens a sentence; none: the longest of the run.
        dtype: what products multiply in; none: what the run was trained in.
        rounds: how often everything is timed.
        backend: what runs the network.
        out: the card; left out: latency.json in the run's folder. What it holds of other devices and shapes stays.
        json: print JSON instead of a table.
    """
    from dynabert_jax.bench import BenchSettings, bench_run

    settings = BenchSettings(
        subs=subs, batches=batch, lengths=length, dtypes=dtype, backends=backend, rounds=rounds
    )  # fmt: skip
    bench_run(run, settings, out, as_json=json)


def choose(
    run: Annotated[Path, tyro.conf.Positional],
    max_latency_ms: float | None = None,
    max_parameters: str | None = None,
    max_flops: str | None = None,
    min_score: float | None = None,
    by: Cost | None = None,
    device: str | None = None,
    backend: str | None = None,
    dtype: str | None = None,
    batch: int | None = None,
    length: int | None = None,
    split: str | None = None,
    card: tuple[Path, ...] = (),
    json: bool = False,
) -> None:
    """Print the best sub-network of a finished run that fits a budget, and the Pareto front around it.

    Args:
        run: the run's folder.
        max_latency_ms: milliseconds a batch, as `dynabert bench` has measured them.
        max_parameters: such as 30M.
        max_flops: of one sentence of the run's longest length, such as 5G.
        min_score: of the task's main metric, as a fraction; with no other limit the cheapest that reaches it is best.
        by: what cheap means and the front is drawn by; left out: the first cost that is limited, else flops.
        device: whose latencies; like the four that follow, left out where the card has but one.
        backend: what ran the network.
        dtype: what products multiplied in.
        batch: sentences a batch.
        length: tokens a sentence.
        split: whose scores; left out: the run's first dev split.
        card: latency cards beside the run's own, from other devices.
        json: print JSON instead of a table.
    """
    from dynabert_jax.choose import Limits, parse_size
    from dynabert_jax.chosen import Question, choose_run
    from dynabert_jax.latency import Where

    limits = Limits(
        max_latency_ms=max_latency_ms,
        max_parameters=None if max_parameters is None else parse_size(max_parameters),
        max_flops=None if max_flops is None else parse_size(max_flops),
        min_score=min_score,
    )
    where = Where(device=device, backend=backend, dtype=dtype, batch=batch, length=length)
    choose_run(run, Question(limits, where, split, card, by), as_json=json)


def main() -> int:
    commands: dict[str, Callable[..., None]] = {
        "evaluate": evaluate, "bench": bench, "choose": choose, "compare": compare
    }  # fmt: skip
    return cli.guarded(lambda: tyro.extras.subcommand_cli_from_dict(commands, prog="dynabert"))


if __name__ == "__main__":
    sys.exit(main())
