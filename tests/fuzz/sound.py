"""Files that can be read, made once: what is damaged is a copy of theirs. The same bytes in every process."""

import functools
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

import tiny_run
import torch_files
from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.runs.latency_card import Card, Measurement, Origin, fingerprint
from dynabert_jax.subnetwork import uniform_grid
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.names import to_torch_names

Files = dict[str, bytes]  # by their names in a folder

ROWS = [{"text": text, "label": label, "rating": i / 2} for i, (text, label) in enumerate(tiny_run.sentences(12, 0))]
LARGE = tiny_run.MODEL.replace(vocab_size=100)  # has an embedding for every token of the tokenizers below
SUBS = uniform_grid(tiny_run.MODEL, (1.0, 0.5), (1.0, 0.5))
FINGERPRINT = fingerprint(tiny_run.MODEL, SUBS)


@functools.cache
def run_config() -> CompleteRun:
    return tiny_run.Materials(Path("materials")).config(Path("run"), final=None)


CONFIG_FILE = b"""\
from dynabert_jax import DataConfig, DepthStage, FineTune, Importance, Optimizer, RunConfig, Task, WidthStage

config = RunConfig(
    model="sample:minilm",
    run_dir="runs/fuzz",
    data=DataConfig(
        task=Task(name="words", text_columns=("text",), labels=("bad", "good"), metrics=("accuracy", "f1")),
        train_file="train.csv",
        lengths=(16, 32),
        batch_size=8,
        split_seed=3,
    ),
    fine_tune=FineTune(epochs=2, optimizer=Optimizer(learning_rate=1e-3, warmup=0.1)),
    importance=Importance(split="dev", max_examples=100),
    width=WidthStage(widths=(1.0, 0.5), keep="last", hidden_weight=0.1),
    depth=DepthStage(widths=(1.0, 0.5), depths=(1.0, 0.5), teacher_width="full"),
    final=None,
    seed=1,
    dtype="bfloat16",
    log_every=5,
)
"""


@functools.cache
def tables() -> Files:
    """The same rows in each of the formats."""
    header = list(ROWS[0])
    cells = [[str(row[name]) for name in header] for row in ROWS]
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), parquet)
    commas = "\n".join(map(",".join, [header, *cells])).encode() + b"\n"
    return {
        "train.csv": commas,
        "train.csv.gz": gzip.compress(commas, mtime=0),
        "train.tsv": "\n".join(map("\t".join, [header, *cells])).encode() + b"\n",
        "train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
        "train.parquet": parquet.getvalue(),
    }


@functools.cache
def model() -> Files:
    """config.json, the weights in three formats, and a tokenizer's vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        tiny_run.write_model(Path(folder), tiny_run.MODEL)
        return _files(Path(folder)) | _torch_files(Path(folder))


def _torch_files(folder: Path) -> Files:
    """All weights as views of one storage."""
    tensors = to_torch_names(tiny_run.MODEL, load_model(folder).params)
    storage = b"".join(tensor.tobytes() for tensor in tensors.values())
    state, start = b"\x80\x02}", 0
    for name, tensor in tensors.items():
        strides = tuple(stride // 4 for stride in tensor.strides)
        view = torch_files.state_pickle(start, tensor.shape, strides, len(storage) // 4)
        state += torch_files.opcodes(name) + view.removeprefix(b"\x80\x02}" + torch_files.opcodes("w"))[:-1]
        start += tensor.size
    torch_files.write_zip(folder / "zip", state + b".", storage)
    torch_files.write_legacy(folder / "legacy", state + b".", storage)
    return {"zip": (folder / "zip").read_bytes(), "legacy": (folder / "legacy").read_bytes()}


@functools.cache
def tokenizer() -> Files:
    """A vocabulary in every form, as transformers writes it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_bytes(model()["vocab.txt"])
        load_tokenizer(folder, tiny_run.MODEL).base.save_pretrained(folder)
        return _files(Path(folder))


@functools.cache
def roberta_tokenizer() -> Files:
    """The two files of a byte pair encoding."""
    tokens = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz\u0120", "go", "od")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return {"vocab.json": json.dumps(vocabulary).encode(), "merges.txt": b"#version: 0.2\ng o\no d\n"}


def rows() -> list[dict[str, Any]]:
    """What results.json says of the sub-networks."""
    return [
        Row(
            sub=sub.name, width=sub.width, depth=sub.depth, split="dev", examples=21, metric="accuracy",
            scores={"accuracy": 0.75}, parameters=5000, flops=90_000, length=12,
        ).model_dump()
        for sub in SUBS
    ]  # fmt: skip


def card() -> Card:
    measured = {"device": "CPU", "time": "2025-01-31T12:00:00Z"}
    origin = Origin(**measured, platform="cpu", threads=2, versions={"jax": "0.10"}, memory="planned")
    times = dict.fromkeys(("median_ms", "p95_ms", "speed_up", "speed_up_low", "speed_up_high", "ideal_speed_up"), 1.5)
    common = {**measured, **times, "backend": "jax", "dtype": "float32", "batch": 1, "length": 12, "rounds": 20}
    rows = tuple(Measurement(**common, sub=sub.name) for sub in SUBS)
    return Card(model=FINGERPRINT, origins=(origin,), rows=rows)


@functools.cache
def run() -> Files:
    """A finished run's folder, its model's excepted, without having trained."""
    importance = {f"{kind}_{i}": np.arange(size, dtype=np.float32)
                  for kind, size in (("heads", 4), ("neurons", 24)) for i in range(2)}  # fmt: skip
    npz = io.BytesIO()
    np.savez(npz, **importance)
    log = [{"stage": "width", "epoch": 0, "step": step, "loss": 1.0 / step} for step in range(1, 9)]
    scores = [{"stage": "width", "step": step, "metric": "accuracy", "scores": {"accuracy": 0.5}} for step in (4, 8)]
    return {
        "config.json": run_config().to_json().encode(),
        "results.json": json.dumps({"rows": rows(), "provenance": {"jax": "0.10"}}).encode(),
        "latency.json": card().to_json().encode(),
        "importance.npz": npz.getvalue(),
        "training.jsonl": "".join(json.dumps(line) + "\n" for line in log).encode(),
        "evaluations.jsonl": "".join(json.dumps(line) + "\n" for line in scores).encode(),
    }


def model_folder() -> Files:
    """What lies in a run's folder `model`."""
    return {name: model()[name] for name in ("config.json", "model.safetensors", "vocab.txt")}


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
