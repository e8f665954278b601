"""The command line: python -m dynabert_jax COMMAND, or dynabert COMMAND."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from dynabert_jax.choose.backends import BackendName
from dynabert_jax.choose.choose import Cost
from dynabert_jax.cli.guard import guarded
from dynabert_jax.config.checked import Dtype
from dynabert_jax.export.formats import FORMATS, FormatName

# How settings are shown in --help: by what they are, and with a default only where it tells something.
arg = functools.partial(tyro.conf.arg, help_behavior_hint="")
Run = Annotated[Path, tyro.conf.Positional, arg(metavar="RUN")]
Model = Annotated[str, tyro.conf.Positional, arg(metavar="MODEL")]
Texts = Annotated[tuple[str, ...], arg(metavar="TEXT [TEXT ...]")]
Names = Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")]
OptionalName = Annotated[str | None, arg(metavar="NAME")]
OptionalFile = Annotated[Path | None, arg(metavar="FILE")]
OptionalFolder = Annotated[Path | None, arg(metavar="DIR")]
OptionalNumber = Annotated[float | None, arg(metavar="NUMBER")]
OptionalCount = Annotated[int | None, arg(metavar="INT")]
OptionalSize = Annotated[str | None, arg(metavar="SIZE")]
Counts = Annotated[tuple[int, ...], arg(metavar="INT [INT ...]")]
Files = Annotated[tuple[Path, ...], arg(metavar="FILE [FILE ...]")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, arg()]


def evaluate(run: Run, json: Flag = False) -> None:
    """Score every sub-network of a finished run again on this device; print and write the table.

    Args:
        run: the run's folder.
        json: print JSON instead of a table.
    """
    from dynabert_jax.train.results import evaluate_run

    evaluate_run(run, as_json=json)


def compare(checkpoint: Model, reference: Annotated[Path, arg(metavar="DIR")], json: Flag = False) -> None:
    """Run a checkpoint here and in the authors' PyTorch code; print how far each sub-network's answers differ.

    Args:
        checkpoint: a folder in Hugging Face's format, such as the model/ of a run, a hub name or sample:minilm.
        reference: the DynaBERT folder of a clone of the authors' repository, Pretrained-Language-Model.
        json: print JSON instead of a table.
    """
    from dynabert_jax.compare.compare import compare_with_reference

    compare_with_reference(checkpoint, reference, as_json=json)


def predict(
    model: Model,
    text: Texts = (),
    text2: Texts = (),
    file: OptionalFile = None,
    out: OptionalFile = None,
    text_columns: Names = (),
    sub: OptionalName = None,
    batch: int = 32,
    json: Flag = False,
    force: Flag = False,
) -> None:
    """Say what texts are, with a run, an export or a model: texts given here, or every row of a file.

    Args:
        model: the folder of a finished run, of an export, or of a fine-tuned model in Hugging Face's format.
        text: sentences, or the first ones of pairs.
        text2: the second ones of the pairs.
        file: a .csv, .tsv, .jsonl or .parquet instead; out gets its rows with their predictions.
        out: a .csv, .tsv or .jsonl to write.
        text_columns: the file's column of the sentence, or two of a pair; a run knows its own.
        sub: the sub-network, such as w0.5_d0.5; left out, a run's largest, or the only one of an export.
        batch: texts at once.
        json: print a JSON object for each text.
        force: write over a file that is there.
    """
    from dynabert_jax.serve.open import PredictError
    from dynabert_jax.serve.predict import Predictor, paired, predict_file, print_predictions

    if not text and file is None:
        raise PredictError("there is nothing to predict; give --text, or --file with --out")
    if text and file is not None:
        raise PredictError("--text and --file are two ways to say what to predict; give one of them")
    if file is None:
        if out is not None or text_columns or force:
            raise PredictError("--out, --text-columns and --force go with --file; give one, or leave them out")
        print_predictions(Predictor(model, sub, batch), paired(text, text2), as_json=json)
        return
    if out is None or text2 or json:
        raise PredictError("--file needs --out, whose extension is the format, and takes no --text2 and no --json")
    rows = predict_file(Predictor(model, sub, batch), file, out, text_columns, force=force)
    print(f"{rows:,} rows written to {out}")


def report(run: Run, out: OptionalFile = None, pictures: OptionalFolder = None, json: Flag = False) -> None:
    """Write a page about a finished run: scores against costs, the best size of a budget, importance, training.

    Args:
        run: the run's folder.
        out: the page; left out, report.html in the run's folder.
        pictures: a folder for the same as PNG files, which need matplotlib.
        json: print JSON instead of words.
    """
    from dynabert_jax.report.report import report_run

    report_run(run, out, pictures, as_json=json)


def export(
    run: Run,
    format: Annotated[FormatName, arg(help="; ".join(f"{name}: {entry.title}" for name, entry in FORMATS.items()))],
    out: Annotated[Path, arg(metavar="DIR")],
    sub: Names = (),
    force: Flag = False,
    int8: Flag = False,
    json: Flag = False,
) -> None:
    """Write sub-networks of a finished run for other programs, after making sure that they answer the same there.

    Args:
        run: the run's folder.
        out: the folder to write.
        sub: names of sub-networks, such as w0.5_d0.5; left out, all that the run has. All but stablehlo hold one.
        force: replace the folder where it is an earlier export.
        int8: write an ONNX file with weights in 8 bits, too, and say what that costs in score on the dev split.
        json: print JSON instead of words.
    """
    from dynabert_jax.export.export import export_run

    export_run(run, format, out, subs=sub, force=force, int8=int8, as_json=json)


def bench(
    run: Run,
    sub: Names = (),
    batch: Counts = (1,),
    length: Counts = (),
    dtype: tuple[Dtype, ...] = (),
    rounds: int = 20,
    backend: tuple[BackendName, ...] = ("jax",),
    out: OptionalFile = None,
    json: Flag = False,
) -> None:
    """Time the sub-networks of a finished run on this device, and print and write its latency card.

    Args:
        run: the run's folder.
        sub: names of sub-networks, such as w1_d1 w0.5_d0.5; none: all.
        batch: sentences a batch, by default 1; several are measured one after the other, as with all that follows.
        length: tokens a sentence; none: the longest of the run.
        dtype: what products multiply in with jax; none: what the run was trained in. Other backends have but one.
        rounds: how often everything is timed; fewer than 6 tell nothing of noise.
        backend: what runs the network: jax, onnxruntime in float32, or onnxruntime-int8 with weights in 8 bits; the
            latter two need `pip install "dynabert_jax[onnx]"` and run on the CPU.
        out: the card; left out: latency.json in the run's folder. What it holds of other devices and shapes stays.
        json: print JSON instead of a table.
    """
    from dynabert_jax.choose.bench import BenchSettings, bench_run

    settings = BenchSettings(subs=sub, batches=batch, lengths=length, dtypes=dtype, backends=backend, rounds=rounds)
    bench_run(run, settings, out, as_json=json)


def choose(
    run: Run,
    max_latency_ms: OptionalNumber = None,
    max_parameters: OptionalSize = None,
    max_flops: OptionalSize = None,
    min_score: OptionalNumber = None,
    by: Cost | None = None,
    device: OptionalName = None,
    backend: OptionalName = None,
    dtype: OptionalName = None,
    batch: OptionalCount = None,
    length: OptionalCount = None,
    split: OptionalName = None,
    card: Files = (),
    json: Flag = False,
) -> None:
    """Print the best sub-network of a finished run that fits a budget, and the Pareto front around it.

    Args:
        run: the run's folder.
        max_latency_ms: milliseconds a batch, as `dynabert bench` has measured them.
        max_parameters: such as 30M.
        max_flops: of one sentence of the run's longest length, such as 5G.
        min_score: of the task's main metric, as a fraction; with no other limit the cheapest that reaches it is best.
        by: what cheap means and the front is drawn by; left out: the first cost that is limited, else flops.
        device: whose latencies: a name, or a part that no other one has. Like the four that follow, left out where
            the card has but one.
        backend: what ran the network, such as jax or onnxruntime.
        dtype: what products multiplied in.
        batch: sentences a batch.
        length: tokens a sentence.
        split: whose scores; left out: the run's first dev split.
        card: latency cards beside the run's own, from other devices.
        json: print JSON instead of a table.
    """
    from dynabert_jax.choose.choose import Limits, parse_size
    from dynabert_jax.choose.question import Question, choose_run
    from dynabert_jax.runs.latency_card import Where

    limits = Limits(
        max_latency_ms=max_latency_ms,
        max_parameters=None if max_parameters is None else parse_size(max_parameters),
        max_flops=None if max_flops is None else parse_size(max_flops),
        min_score=min_score,
    )
    where = Where(device=device, backend=backend, dtype=dtype, batch=batch, length=length)
    choose_run(run, Question(limits, where, split, card, by), as_json=json)


DESCRIPTION = """What to do with a run that `python train.py CONFIG` has finished. RUN is its folder.

All print to the standard output and tell the rest on the standard error; with --json, that is JSON alone. What cannot
be done ends with a message and exit code 2. `dynabert COMMAND --help` tells more."""


def main() -> int:
    commands: dict[str, Callable[..., None]] = {
        "predict": predict,
        "report": report,
        "evaluate": evaluate,
        "bench": bench,
        "choose": choose,
        "export": export,
        "compare": compare,
    }
    return guarded(lambda: tyro.extras.subcommand_cli_from_dict(commands, prog="dynabert", description=DESCRIPTION))


if __name__ == "__main__":
    sys.exit(main())
