"""The command line: python -m dynabert_jax COMMAND, or dynabert COMMAND."""

import functools
import json as json_library
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import tyro

from dynabert_jax.choose.backends import BackendName
from dynabert_jax.choose.choose import Cost
from dynabert_jax.cli import train
from dynabert_jax.cli.guard import guarded
from dynabert_jax.config.checked import Dtype
from dynabert_jax.export.formats import FORMATS, FormatName

if TYPE_CHECKING:
    from dynabert_jax.serve.predict import Prediction, Text

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


class Shown(Protocol):
    """What a command gives: in words as a string, and for programs as JSON."""

    def to_json(self) -> str: ...


def show(value: Shown, json: bool) -> None:
    print(value.to_json() if json else value)


def evaluate(run: Run, json: Flag = False) -> None:
    """Score every sub-network of a finished run again on this device; print and write the table.

    Args:
        run: the run's folder.
        json: print JSON instead of a table.
    """
    from dynabert_jax.train.results import evaluate_run

    show(evaluate_run(run), json)


def compare(checkpoint: Model, reference: Annotated[Path, arg(metavar="DIR")], json: Flag = False) -> None:
    """Run a checkpoint here and in the authors' PyTorch code; print how far each sub-network's answers differ.

    Args:
        checkpoint: a folder in Hugging Face's format, such as the model/ of a run, a hub name or sample:minilm.
        reference: the DynaBERT folder of a clone of the authors' repository, Pretrained-Language-Model.
        json: print JSON instead of a table.
    """
    from dynabert_jax.compare.compare import measure_differences

    comparison = measure_differences(checkpoint, reference)
    show(comparison, json)
    comparison.check()


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
    from dynabert_jax.serve.predict import Predictor, predict_file

    if not text and file is None:
        raise PredictError("there is nothing to predict; give --text, or --file with --out")
    if text and file is not None:
        raise PredictError("--text and --file are two ways to say what to predict; give one of them")
    if file is None:
        if out is not None or text_columns or force:
            raise PredictError("--out, --text-columns and --force go with --file; give one, or leave them out")
        texts = paired(text, text2)
        for one, prediction in zip(texts, Predictor(model, sub, batch)(texts), strict=True):
            print(json_line(one, prediction) if json else readable_line(one, prediction))
        return
    if out is None or text2 or json:
        raise PredictError("--file needs --out, whose extension is the format, and takes no --text2 and no --json")
    rows = predict_file(Predictor(model, sub, batch), file, out, text_columns, force=force)
    print(f"{rows:,} rows written to {out}")


def paired(texts: Sequence[str], seconds: Sequence[str]) -> "list[Text]":
    """The texts themselves or, where there are second ones, pairs of them.

    Raises:
        PredictError: they are not as many.
    """
    from dynabert_jax.serve.predict import PredictError

    if not seconds:
        return list(texts)
    if len(texts) != len(seconds):
        raise PredictError(f"got {len(texts)} first sentences and {len(seconds)} second ones; pairs need as many")
    return list(zip(texts, seconds, strict=True))


def json_line(text: "Text", prediction: "Prediction") -> str:
    parts = (text,) if isinstance(text, str) else text
    named = dict(zip(("text", "text2"), parts, strict=False))
    return json_library.dumps(named | prediction.columns, ensure_ascii=False)


def readable_line(text: "Text", prediction: "Prediction") -> str:
    shown = text if isinstance(text, str) else " | ".join(text)
    if prediction.label is None:
        return f"{prediction.number:.4f}  {shown}"
    shares = ", ".join(f"{name} {share:.4f}" for name, share in prediction.probabilities.items())
    return f"{prediction.label}  ({shares})  {shown}"


def report(run: Run, out: OptionalFile = None, pictures: OptionalFolder = None, json: Flag = False) -> None:
    """Write a page about a finished run: scores against costs, the best size of a budget, importance, training.

    Args:
        run: the run's folder.
        out: the page; left out, report.html in the run's folder.
        pictures: a folder for the same as PNG files, which need matplotlib.
        json: print JSON instead of words.
    """
    from dynabert_jax.report.report import report_run

    show(report_run(run, out, pictures), json)


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

    show(export_run(run, format, out, subs=sub, force=force, int8=int8), json)


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
    show(bench_run(run, settings, out), json)


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
    from dynabert_jax.choose.question import Question, ask
    from dynabert_jax.runs.latency_card import Where

    limits = Limits(
        max_latency_ms=max_latency_ms,
        max_parameters=None if max_parameters is None else parse_size(max_parameters),
        max_flops=None if max_flops is None else parse_size(max_flops),
        min_score=min_score,
    )
    where = Where(device=device, backend=backend, dtype=dtype, batch=batch, length=length)
    answer = ask(run, Question(limits, where, split, card, by))
    if json:  # also where nothing fits
        print(answer.to_json())
    _ = answer.best
    if not json:
        print(answer)


DESCRIPTION = """Trains a DynaBERT, and works with a run that is finished. RUN is its folder.

`dynabert train CONFIG` trains; `dynabert train --help` says more. The other commands print their results to standard
output and all else to standard error; with --json, the output is JSON alone. A command that cannot do its work ends
with a message and exit code 2. `dynabert COMMAND --help` says more."""


def main() -> int:
    if sys.argv[1:2] == ["train"]:  # its flags are those of the configuration
        return train.main(sys.argv[2:])
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
