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
from dynabert_jax.cli.next_steps import after_choice, after_export, after_timing, after_training, tell
from dynabert_jax.config.checked import Dtype
from dynabert_jax.export.formats import FORMATS, FormatName
from dynabert_jax.weights.embeddings import Stored

if TYPE_CHECKING:
    from dynabert_jax.serve.predict import Prediction, Text

# --help shows what a setting is. The text names the default where that is useful.
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
    """The result of a command: text as a string, and JSON for programs."""

    def to_json(self) -> str: ...


def show(value: Shown, json: bool) -> None:
    print(value.to_json() if json else value)


def init(
    train_file: Annotated[str, tyro.conf.Positional, arg(metavar="TRAIN_FILE")],
    dev: Annotated[str | None, arg(metavar="FILE")] = None,
    test: Annotated[str | None, arg(metavar="FILE")] = None,
    model: Annotated[str, arg(metavar="MODEL")] = "bert-base-uncased",
    out: Annotated[Path, arg(metavar="FILE")] = Path("my_task.py"),
    text_columns: Names = (),
    label_column: OptionalName = None,
    regression: Flag = False,
) -> None:
    """Write a configuration that trains on your table of texts and labels; what is guessed of the table is marked.

    Args:
        train_file: a .csv, .tsv, .jsonl or .parquet file with a column of texts and a column of labels.
        dev: a file of the same columns, to score on; default: a tenth of the rows is held out.
        test: another one, scored at the end.
        model: a name on the Hugging Face hub, or a folder in its format; default: bert-base-uncased.
        out: the Python file to write; it must not exist; default: my_task.py.
        text_columns: the column of the texts, or two columns for pairs; if left out, guessed.
        label_column: the column of the labels; if left out, guessed.
        regression: the labels are numbers to predict, and no classes.
    """
    from dynabert_jax.train.new_config import init_config

    print(init_config(train_file, out, dev, test, model, text_columns, label_column, regression))


def evaluate(run: Run, json: Flag = False) -> None:
    """Score every sub-network of a finished run again on this device; print and write the table.

    Args:
        run: the run's folder.
        json: print JSON instead of a table.
    """
    from dynabert_jax.train.results import evaluate_run

    show(evaluate_run(run), json)


def compare(checkpoint: Model, reference: Annotated[Path, arg(metavar="DIR")], json: Flag = False) -> None:
    """Run a checkpoint here and in the authors' PyTorch code; print how much each sub-network's answers differ.

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
    escape_formulas: Flag = False,
) -> None:
    """Predict labels or numbers for texts, or for every row of a file, with a run, an export or a model.

    Args:
        model: the folder of a finished run, of an export, or of a fine-tuned model in Hugging Face's format.
        text: sentences, or the first sentences of pairs.
        text2: the second sentences of the pairs.
        file: a .csv, .tsv, .jsonl or .parquet file instead of texts; --out gets its rows with their predictions.
        out: the .csv, .tsv or .jsonl file to write.
        text_columns: the file's column with the sentence, or two columns for pairs; a run knows its own.
        sub: the sub-network, such as w0.5_d0.5; default: the largest of a run, or the only one of an export.
        batch: texts per batch.
        json: print a JSON object for each text.
        force: overwrite an existing file.
        escape_formulas: in --out, write an apostrophe before cells such as =1+1, which a spreadsheet would run.
    """
    from dynabert_jax.serve.open import PredictError
    from dynabert_jax.serve.predict import Predictor, predict_file

    if not text and file is None:
        raise PredictError("there is nothing to predict; give --text, or --file with --out")
    if text and file is not None:
        raise PredictError("got both --text and --file; give only one of them")
    if file is None:
        if out is not None or text_columns or force or escape_formulas:
            raise PredictError(
                "--out, --text-columns, --force and --escape-formulas need --file; add it, or leave them out"
            )
        texts = paired(text, text2)
        for one, prediction in zip(texts, Predictor(model, sub, batch)(texts), strict=True):
            print(json_line(one, prediction) if json else readable_line(one, prediction))
        return
    if out is None or text2 or json:
        raise PredictError("--file needs --out (its extension sets the format), and takes neither --text2 nor --json")
    rows = predict_file(
        Predictor(model, sub, batch), file, out, text_columns, force=force, escape_formulas=escape_formulas
    )
    print(f"{rows:,} rows written to {out}")


def paired(texts: Sequence[str], seconds: Sequence[str]) -> "list[Text]":
    """The texts themselves, or pairs if there are second texts.

    Raises:
        PredictError: the numbers of first and second texts differ.
    """
    from dynabert_jax.serve.open import PredictError

    if not seconds:
        return list(texts)
    if len(texts) != len(seconds):
        raise PredictError(f"got {len(texts)} first sentences and {len(seconds)} second ones; give as many of both")
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
    """Write a page about a finished run: scores against costs, the best size for a budget, importance, training.

    Args:
        run: the run's folder.
        out: the page to write; default: report.html in the run's folder.
        pictures: a folder for the same charts as PNG files; needs matplotlib.
        json: print JSON instead of text.
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
    vocabulary_of: Files = (),
    embeddings: Stored = "float32",
    license: OptionalName = None,
    language: Names = (),
    push: OptionalName = None,
    public: Flag = False,
    json: Flag = False,
) -> None:
    """Write sub-networks of a finished run for other programs, after checking that they give the same answers there.

    Args:
        run: the run's folder.
        out: the folder to write.
        sub: names of sub-networks, such as w0.5_d0.5; default: all of the run. Only stablehlo holds more than one.
        force: replace the folder if it is an earlier export.
        int8: also write an ONNX file with 8-bit weights, and report what that costs in score on the dev split.
        vocabulary_of: files of texts (.csv, .tsv, .jsonl, .parquet, or .txt with a text a line) such as the model will
            read; the export has the vocabulary of their words alone, and spells other words with it.
        embeddings: the type of the word embeddings in the file, which take most of a small size's disk: float32,
            float16 or, in onnx, int8; what it costs is reported; default: float32.
        license: for the model card, such as apache-2.0; default: the pretrained model's, if its own card has one.
        language: for the model card, codes of the texts' languages, such as en.
        push: also upload the folder to this repository of the Hugging Face hub, owner/name, as `dynabert push` does.
        public: everybody may read that repository; default: its owner alone.
        json: print JSON instead of text.
    """
    from dynabert_jax.export.export import export_run

    exported = export_run(
        run, format, out, subs=sub, force=force, int8=int8, vocabulary_of=vocabulary_of, embeddings=embeddings,
        license=license, languages=language, push=push, public=public,
    )  # fmt: skip
    show(exported, json)
    if not json:
        tell(after_export(exported.folder, [sub.name for sub in exported.subs]))


def push(
    folder: Annotated[Path, tyro.conf.Positional, arg(metavar="FOLDER")],
    name: Annotated[str, tyro.conf.Positional, arg(metavar="OWNER/NAME")],
    public: Flag = False,
    json: Flag = False,
) -> None:
    """Upload an export to the Hugging Face hub, in the place of an earlier export there.

    Args:
        folder: what `dynabert export` wrote; its README.md may have been edited.
        name: the repository; it is created if there is none.
        public: everybody may read the repository; default: its owner alone.
        json: print JSON instead of text.
    """
    from dynabert_jax.export.push import push_export

    show(push_export(folder, name, public), json)


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
        sub: names of sub-networks, such as w1_d1 w0.5_d0.5; default: all.
        batch: sentences per batch; default: 1. This option, --length, --dtype and --backend take several values.
        length: tokens per sentence; default: the longest length of the run.
        dtype: the dtype of matmuls in jax; if left out, the run's. Each of the other backends has only one.
        rounds: how often everything is timed; fewer than 6 give no estimate of noise.
        backend: what runs the network: jax, onnxruntime in float32, or onnxruntime-int8 with 8-bit weights; the
            latter two need `pip install "dynabert_jax[onnx]"` and run on the CPU.
        out: the latency card; default: latency.json in the run's folder. Its rows for other devices and shapes stay.
        json: print JSON instead of a table.
    """
    from dynabert_jax.choose.bench import BenchSettings, bench_run

    settings = BenchSettings(subs=sub, batches=batch, lengths=length, dtypes=dtype, backends=backend, rounds=rounds)
    show(bench_run(run, settings, out), json)
    if not json:
        tell(after_timing(run))


def choose(
    run: Run,
    max_latency_ms: OptionalNumber = None,
    max_parameters: OptionalSize = None,
    max_flops: OptionalSize = None,
    min_score: OptionalNumber = None,
    max_loss: OptionalNumber = None,
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
        max_latency_ms: milliseconds per batch, as measured by `dynabert bench`.
        max_parameters: parameters of the sub-network, such as 30M.
        max_flops: FLOPs for one sentence of the run's longest length, such as 5G.
        min_score: the task's main metric x 100, such as 80; with no other limit, the cheapest that reaches it is best.
        max_loss: how far the metric x 100 may be below the teacher's, such as 1; likewise with no other limit.
        by: the cost that ranks sub-networks and draws the front; if left out, the first limited cost, else flops.
        device: the device to use latencies of: its name, or a part that no other one has. This option and the next
            four are needed only where the card has more than one.
        backend: what ran the network, such as jax or onnxruntime.
        dtype: the dtype of its matmuls.
        batch: sentences per batch.
        length: tokens per sentence.
        split: the split to use scores of; default: the run's first dev split.
        card: additional latency cards, from other devices.
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
        max_loss=max_loss,
    )
    where = Where(device=device, backend=backend, dtype=dtype, batch=batch, length=length)
    answer = ask(run, Question(limits, where, split, card, by))
    if json:  # also where nothing fits
        print(answer.to_json())
    _ = answer.best
    if not json:
        print(answer)
        tell(after_choice(run, answer.best.sub, answer.measured[0].backend if answer.measured else None))


def shrink(
    source: Annotated[str, tyro.conf.Positional, arg(metavar="RUN_OR_MODEL")],
    out: Annotated[Path, arg(metavar="DIR")],
    train: OptionalFile = None,
    dev: OptionalFile = None,
    unlabelled: Files = (),
    text_columns: Names = ("text",),
    label_column: Annotated[str, arg(metavar="NAME")] = "label",
    regression: Flag = False,
    max_latency_ms: OptionalNumber = None,
    max_parameters: OptionalSize = None,
    max_flops: OptionalSize = None,
    min_score: OptionalNumber = None,
    max_loss: OptionalNumber = None,
    backend: BackendName | None = None,
    format: FormatName | None = None,
    run_dir: OptionalFolder = None,
    force: Flag = False,
    json: Flag = False,
) -> None:
    """Make one small model: train a model's sizes if needed, time them if a latency is limited, choose one, export it.

    Without a limit, it is the cheapest size that scores at most 1 point less than the teacher. Repeat the command to
    resume it, or with another limit to choose again: what is finished is not done again.

    Args:
        source: the folder of a finished run, or a model: a folder in Hugging Face's format or a hub name. A model
            whose head fits the data is the teacher; any other is fine-tuned first.
        out: the folder to write.
        train: a .csv, .tsv, .jsonl or .parquet file of texts with labels to train a model on.
        dev: the same to score on; default: a tenth of the training data.
        unlabelled: files of texts to train on as well, or instead; also .txt with one text a line.
        text_columns: the files' column with the sentence, or two columns for pairs; default: text.
        label_column: the files' column with the label; default: label.
        regression: labels are numbers, not classes.
        max_latency_ms: milliseconds for one sentence of the longest length, measured on this device.
        max_parameters: parameters of the sub-network, such as 30M.
        max_flops: FLOPs for one sentence of the longest length, such as 5G.
        min_score: the task's main metric x 100, such as 80.
        max_loss: how far the metric x 100 may be below the teacher's; default without any limit: 1.
        backend: what will run it: jax, onnxruntime or onnxruntime-int8; default: what runs the format.
        format: of the export; default: onnx for onnxruntime, else hf.
        run_dir: where a model is trained; default: runs/ and the name of the --out folder.
        force: replace the --out folder if it is an earlier export.
        json: print JSON instead of text.
    """
    from dynabert_jax.choose.choose import Limits, parse_size
    from dynabert_jax.config.data import DataConfig
    from dynabert_jax.config.tasks import METRICS, Kind, Task
    from dynabert_jax.shrink.shrink import POINT, ShrinkError, shrink_run

    limits = Limits(
        max_latency_ms=max_latency_ms,
        max_parameters=None if max_parameters is None else parse_size(max_parameters),
        max_flops=None if max_flops is None else parse_size(max_flops),
        min_score=min_score,
        max_loss=max_loss,
    )
    data = None
    if train or unlabelled:
        kind: Kind = "regression" if regression else "classification"
        metrics = METRICS[kind] if regression else METRICS[kind][:1]
        data = DataConfig(
            task=Task(name=out.name, text_columns=text_columns, label_column=label_column, kind=kind, metrics=metrics),
            train_file=None if train is None else str(train),
            dev_file=None if dev is None else str(dev),
            unlabelled_files=tuple(map(str, unlabelled)),
        )
    elif dev or regression or text_columns != ("text",) or label_column != "label":
        raise ShrinkError("--dev, --text-columns, --label-column and --regression need --train or --unlabelled")
    shrunk = shrink_run(
        source, out, data, POINT if limits == Limits() else limits, backend=backend, format=format, run_dir=run_dir,
        force=force,
    )  # fmt: skip
    show(shrunk, json)
    if not json:
        tell([*after_export(shrunk.exported.folder, [shrunk.best.sub]), *after_training(shrunk.run)[-1:]])


COMMANDS: dict[str, Callable[..., None]] = {
    "init": init,
    "shrink": shrink,
    "predict": predict,
    "report": report,
    "evaluate": evaluate,
    "bench": bench,
    "choose": choose,
    "export": export,
    "push": push,
    "compare": compare,
}


def complete_train(config: Annotated[Path, tyro.conf.Positional, arg(metavar="CONFIG")]) -> None:
    """Train what a configuration describes."""
    raise AssertionError(config)  # stands for `train` in the completion with the tab key, and is never called


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command of `cli/menu.py`; returns the exit code.

    Args:
        arguments: the command line's, with a command first; None: those of this process.
    """
    name, *rest = sys.argv[1:] if arguments is None else arguments
    if name == "train":  # its flags are those of the configuration
        return train.main(rest)
    if name not in COMMANDS:  # tyro's own flags, for completion with the tab key
        every: dict[str, Callable[..., None]] = {"train": complete_train, **COMMANDS}
        return guarded(lambda: tyro.extras.subcommand_cli_from_dict(every, prog="dynabert", args=[name, *rest]))
    return guarded(lambda: tyro.cli(COMMANDS[name], prog=f"dynabert {name}", args=rest))
