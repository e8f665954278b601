"""Exported models in use: ONNX Runtime against PyTorch, 8 bits against 32, one sentence, the first answer:

python -m benchmarks.deployed
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import harness, torch_bert
from dynabert_jax.choose.backends import BackendName, find_backend
from dynabert_jax.choose.bench import answer_on_host, random_inputs, timed_in_turn
from dynabert_jax.config import ModelConfig
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.export import onnx_file, stablehlo
from dynabert_jax.export.folder import write_tokenizer
from dynabert_jax.infer.runner import Source
from dynabert_jax.model.params import Model, cut_model
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.files import Params, save_model
from dynabert_jax.weights.names import init_params

TORCH, ONNX, INT8 = "torch fp32", "onnx fp32", "onnx int8"
ALONE, PREDICTOR = "compiled call alone", "Predictor"
ONNX_TARGET = 1.0  # times as long as PyTorch, at most
INT8_TARGETS = {8: 1 / 1.5}  # by batch size: times as long as in float32, at most
SENTENCES = 200  # calls of a few milliseconds each; both sides use jax, so no rest is needed between them
PREDICTOR_TARGET = 1.3  # times as long as the compiled call alone, at most
FIRST_ANSWER_TARGET = 3.0  # seconds, at most
SENTENCE = "A film that is both funny and sad , and never a minute too long , if not quite as new as it thinks it is ."


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; the weights are random"""
    size: tuple[tuple[float, float], ...] = ((1.0, 1.0), (0.5, 0.5))
    """widths and depths of the sub-networks"""
    batch: tuple[int, ...] = (1, 8)
    """sentences per batch"""
    length: int = 128
    """tokens per sentence, none of them padding"""
    rounds: int = 20
    """how often everything is timed, in turn"""


def main(settings: Settings) -> None:
    """Times exported models, the answer to one sentence, and the first answer of a new process."""
    config = harness.MODELS[settings.model]()
    params = init_params(config, seed=0)
    tables: dict[str, list[harness.Row]] = {}
    seconds: harness.Seconds = {}
    for width, depth in settings.size:
        sub = SubNetwork.uniform(config, width, depth)
        for batch in settings.batch:
            title = f"{settings.model} {sub.name}, batch {batch}, {settings.length} tokens"
            cases = deployed(config, params, sub, random_inputs(config, batch, settings.length))
            timed = harness.measure(cases, settings.rounds, harness.BUSY)
            tables[title] = harness.comparison(
                {name: timed[name] for name in (TORCH, ONNX)}, TORCH, {ONNX: ONNX_TARGET}
            )
            bits = {INT8: INT8_TARGETS[batch]} if batch in INT8_TARGETS else {}
            tables[f"{title}: 8 bits"] = harness.comparison({name: timed[name] for name in (ONNX, INT8)}, ONNX, bits)
            seconds |= {f"{title}, {name}": times for name, times in timed.items()}
    with tempfile.TemporaryDirectory(prefix="dynabert-deployed-") as folder:
        timed = timed_in_turn(one_sentence(config, params, Path(folder) / "model"), SENTENCES)
        tables["One sentence"] = harness.comparison(timed, ALONE, {PREDICTOR: PREDICTOR_TARGET})
        seconds |= timed
        timed = harness.measure(first_answers(config, params, Path(folder)), min(settings.rounds, 5))
        tables["The first answer of a new process, in seconds"] = first_answer_rows(timed)
        seconds |= timed
    harness.publish(f"deployed_{settings.model}", settings, tables, seconds, harness.machine() | torch_bert.describe())


# Exported models


def deployed(
    config: ModelConfig, params: Params, sub: SubNetwork, inputs: Inputs
) -> dict[str, Callable[[], np.ndarray]]:
    """One sub-network in PyTorch and in ONNX Runtime, each from a batch on the host to logits `[B, C]` on the host."""
    small, batch = cut_model(config, params, sub), Batch(inputs, labels=np.zeros(0), weights=np.zeros(0))
    cases = {TORCH: torch_bert.forward(small.config, small.params, batch, "fp32")}
    names: tuple[tuple[str, BackendName, str], ...] = (
        (ONNX, "onnxruntime", "float32"),
        (INT8, "onnxruntime-int8", "int8"),
    )
    for name, backend, dtype in names:
        cases[name] = functools.partial(answer_on_host, find_backend(backend).opens[dtype](small), inputs)
    expected = cases[TORCH]()
    np.testing.assert_allclose(cases[ONNX](), expected, rtol=0.0, atol=1e-4)
    return cases


# One sentence


def one_sentence(config: ModelConfig, params: Params, folder: Path) -> dict[str, Callable[[], Any]]:
    """A loaded Predictor from text to answer, and the program that it uses from token ids to logits."""
    write_model(config, params, folder)
    predictor, tokens = (
        Predictor(folder),
        load_tokenizer(folder, config).base(SENTENCE, padding="max_length", max_length=32),
    )
    inputs = Inputs(*(np.array([tokens[name]], np.int32) for name in Inputs._fields))
    alone = functools.partial(answer_on_host, find_backend("jax").opens["float32"](Model(config, params)), inputs)
    np.testing.assert_allclose(predictor.logits([SENTENCE]), alone(), rtol=0.0, atol=1e-4)
    return {ALONE: alone, PREDICTOR: lambda: predictor([SENTENCE])}


def write_model(config: ModelConfig, params: Params, folder: Path) -> None:
    """Writes a model with a full vocabulary that includes the words of the sentence."""
    save_model(folder, config, params)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(SENTENCE.lower().split())]
    words += [f"word{i}" for i in range(config.vocab_size - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")


# The first answer


def first_answers(config: ModelConfig, params: Params, folder: Path) -> dict[str, Callable[[], list[float]]]:
    """Each loads the exported folder in a new process and answers one sentence."""
    source = Source(Model(config, params), (SubNetwork.full(config),))
    answers: dict[str, Callable[[], list[float]]] = {}
    for name, write in (("onnx", onnx_file.write), ("stablehlo", stablehlo.write)):
        out = folder / name
        out.mkdir()
        write(source, out)
        write_tokenizer(out, load_tokenizer(folder / "model", config), config.max_length)
        answers[name] = functools.partial(first_answer, out, name, folder / "compiled")
    np.testing.assert_allclose(answers["onnx"](), answers["stablehlo"](), rtol=0.0, atol=1e-4)
    return answers


def first_answer(folder: Path, name: str, compiled: Path) -> list[float]:
    """Logits `[C]`, from a new process. Compiled programs are kept in a folder, so only the first process compiles."""
    keep = {"JAX_COMPILATION_CACHE_DIR": str(compiled), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "benchmarks.first_answer", str(folder), name, SENTENCE]
    result = subprocess.run(command, env=os.environ | keep, stdout=subprocess.PIPE, text=True, check=True)
    logits: list[float] = json.loads(result.stdout)
    return logits


def first_answer_rows(timed: harness.Seconds) -> list[harness.Row]:
    return [
        {
            "export": name,
            "median s": round(float(np.median(times)), 2),
            "slowest s": round(max(times), 2),
            "target": f"< {FIRST_ANSWER_TARGET:g}",
            "holds": harness.verdict(float(np.median(times)) < FIRST_ANSWER_TARGET),
        }
        for name, times in timed.items()
    ]


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
