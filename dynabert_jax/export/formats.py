"""The export formats: how each is written and opened, and what it needs."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from dynabert_jax.errors import nearest
from dynabert_jax.export import hugging_face, onnx_file, reference, stablehlo
from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer import in_onnxruntime, in_stablehlo, in_transformers
from dynabert_jax.infer.run_stablehlo import WEIGHTS
from dynabert_jax.infer.runner import Runner, Source
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.packages import require
from dynabert_jax.weights.embeddings import Stored

FormatName = Literal["hf", "hf-exact", "reference", "onnx", "stablehlo"]


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        title: a description for the model card.
        write: writes the weights and the files that belong to them into a folder.
        open: opens a sub-network that `write` wrote.
        usage: a program for the model card, to run in the folder. It truncates texts where the run did.
        holds: how many sub-networks a folder holds: one, any number, or all in the uncut model.
        library: the Hugging Face hub's name of the library that loads it.
        backend: the backend of `dynabert bench` that times the same files; empty if none does.
        weights: the name of the file of weights.
        embeddings: the types of the word embeddings that it can store.
        packages: what it needs in addition to this package's dependencies.
        extra: the extra that has them; empty: they are installed by their names.
    """

    title: str
    write: Callable[[Source, Path], None]
    open: Callable[[Path, SubNetwork], Runner]
    usage: str
    holds: Literal["one", "some", "uncut"] = "one"
    library: str = "transformers"
    backend: str = ""
    weights: str = "model.safetensors"
    embeddings: tuple[Stored, ...] = ("float32", "float16")
    packages: tuple[str, ...] = ()
    extra: str = ""


FORMATS: dict[str, Format] = {  # by `FormatName`
    "hf": Format(
        title="transformers' own class, with zeros where heads were left out",
        write=hugging_face.write_padded,
        open=lambda folder, _: in_transformers.open_folder(folder),
        usage="""\
from transformers import pipeline

classify = pipeline("text-classification", model=".", truncation=True)
print(classify("Never a minute too long."))""",
    ),
    "hf-exact": Format(
        title="transformers, in exact shapes, with the modelling file next to the weights",
        write=hugging_face.write_exact,
        open=lambda folder, _: in_transformers.open_folder(folder, trust_remote_code=True),
        usage="""\
from transformers import pipeline

classify = pipeline("text-classification", model=".", truncation=True, trust_remote_code=True)
print(classify("Never a minute too long."))""",
    ),
    "reference": Format(
        title="the authors' code, which runs it at any width and depth",
        write=reference.write,
        open=lambda folder, _: in_transformers.open_folder(folder),
        usage="""\
# This runs the full network in transformers. The authors' code takes this folder as its model_dir.
from transformers import pipeline

classify = pipeline("text-classification", model=".", truncation=True)
print(classify("Never a minute too long."))""",
        holds="uncut",
        weights=reference.WEIGHTS,
        packages=("torch",),
    ),
    "onnx": Format(
        title="ONNX Runtime and other programs that read ONNX",
        write=onnx_file.write,
        open=lambda folder, sub: in_onnxruntime.open_file(folder / in_onnxruntime.FLOAT, len(sub.layers)),
        usage="""\
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
tokens = tokenizer(["Never a minute too long."], padding=True, truncation=True, return_tensors="np")
session = onnxruntime.InferenceSession("model.onnx")
zeros = np.zeros_like(tokens["input_ids"])  # without them, all are 0
inputs = {given.name: tokens.get(given.name, zeros).astype(np.int64) for given in session.get_inputs()}
print(session.run(["logits"], inputs)[0])""",
        library="onnx",
        backend="onnxruntime",
        weights=in_onnxruntime.FLOAT,
        embeddings=("float32", "float16", "int8"),
        packages=("onnx", "onnxruntime"),
        extra="onnx",
    ),
    "stablehlo": Format(
        title="JAX without this package, as StableHLO: one file of weights and one program per sub-network",
        write=stablehlo.write,
        open=lambda folder, sub: in_stablehlo.open_program(folder, sub.name),
        usage="""\
import numpy as np
from run_stablehlo import load_stablehlo
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
tokens = tokenizer(["Never a minute too long."], padding=True, truncation=True, return_tensors="np")
network = load_stablehlo(".", "{sub}")
types = tokens.get("token_type_ids", np.zeros_like(tokens["input_ids"]))  # without them, all are 0
print(network(tokens["input_ids"], tokens["attention_mask"], types))""",
        holds="some",
        library="jax",
        backend="jax",
        weights=WEIGHTS,
    ),
}


def find_format(name: str) -> Format:
    """The format of that name, after checking that its packages are installed.

    Raises:
        ExportError: there is no such format.
        MissingPackageError: a package that it needs is not installed.
    """
    if name not in FORMATS:
        raise ExportError(f"there is no format {name!r}; {nearest(name, FORMATS)}there are {', '.join(FORMATS)}")
    found = FORMATS[name]
    require(found.packages, f"--format {name}", found.extra)
    return found


def check_count(name: str, subs: Sequence[str], available: Sequence[str]) -> None:
    """Raises ExportError if a format cannot hold these sub-networks.

    Args:
        name: the format's name.
        subs: the names of the wanted sub-networks; empty means all of the run's.
        available: the names of the run's sub-networks.
    """
    holds = FORMATS[name].holds
    if holds == "uncut" and subs:
        raise ExportError(
            f"--format {name} writes the uncut model, which contains {', '.join(available)}; leave --sub out"
        )
    if holds == "one" and len(subs or available) != 1:
        raise ExportError(f"--format {name} holds one sub-network; name it with --sub: one of {', '.join(available)}")
