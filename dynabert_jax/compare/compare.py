"""Compares a checkpoint's answers here with those of the authors' PyTorch code, for every sub-network.

The authors' package is called `transformers`, like the library that we use. So it runs in a process of its own,
`child.py`, which gets a folder with everything it needs and writes its answers there.
"""

import dataclasses
import importlib.util
import json
import logging
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.stages import DepthStage
from dynabert_jax.data.batches import Inputs
from dynabert_jax.data.tokenizer import load_tokenizer, tokenize
from dynabert_jax.data.tokenizer_files import has_tokenizer
from dynabert_jax.errors import UserError
from dynabert_jax.infer import in_jax
from dynabert_jax.model.params import Model
from dynabert_jax.model.unit import out_of_unit
from dynabert_jax.subnetwork import SubNetwork, uniform_grid
from dynabert_jax.system import devices
from dynabert_jax.system.files import expanded
from dynabert_jax.system.packages import install_command
from dynabert_jax.weights.files import load_model, save_model

log = logging.getLogger(__name__)


# Largest absolute difference of a logit or hidden state that float32 sums in another order can explain.
TOLERANCE = 1e-4

_MODELING = Path("transformers", "modeling_bert.py")
_PACKAGES = {"boto3", "regex", "requests", "six", "tqdm"}  # imports of the authors' transformers, of 2019
_CHILD = Path(__file__).with_name("child.py")
_LENGTH = 32  # tokens
_SENTENCES = (
    ("A film that is both funny and sad, and never a minute too long.",),
    ("The plot makes no sense.", "Nothing in this story hangs together!"),
    ("Why?",),
)


class CompareError(UserError, RuntimeError):
    """A comparison that cannot be made, or that found a difference; the message says which, and what to do."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """A model's outputs for n sub-networks: logits `[n, B, C]` and last hidden states `[n, B, S, H]`."""

    logits: np.ndarray
    last_hidden: np.ndarray


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest absolute differences of one sub-network over the batch, without padding."""

    sub: SubNetwork
    logits: float
    last_hidden: float

    @property
    def is_rounding(self) -> bool:
        return self.logits <= TOLERANCE and self.last_hidden <= TOLERANCE  # false for NaN


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The differences of every sub-network of the paper's grid, largest sub-network first."""

    checkpoint: str
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        """The largest absolute differences as a Markdown table, without hidden states at padding."""
        rows = [f"| {d.sub.name} | {d.logits:.1e} | {d.last_hidden:.1e} |" for d in self.differences]
        table = "\n".join(["| sub-network | logits | last hidden state |", "| --- | ---: | ---: |", *rows])
        if self.different:
            return table
        return (
            f"{table}\nall {len(rows)} sub-networks agree with the authors' code; no difference is above {TOLERANCE:g}"
        )

    def to_json(self) -> str:
        """The same as JSON; a difference that is not finite is null."""
        values = {
            "checkpoint": self.checkpoint,
            "tolerance": TOLERANCE,
            "agree": not self.different,
            "differences": [
                {"sub": d.sub.name, "logits": _finite(d.logits), "last_hidden": _finite(d.last_hidden)}
                for d in self.differences
            ],
        }
        return json.dumps(values, indent=2)

    @property
    def different(self) -> tuple[Difference, ...]:
        """The differences that are larger than rounding."""
        return tuple(d for d in self.differences if not d.is_rounding)

    def check(self) -> None:
        """Raises CompareError if sub-networks differ by more than rounding."""
        if self.different:
            shown = ", ".join(f"{d.sub.name} ({d.logits:.1e}, {d.last_hidden:.1e})" for d in self.different)
            raise CompareError(
                f"{len(self.different)} of {len(self.differences)} sub-networks differ from the authors' code by more "
                f"than {TOLERANCE:g} (in logits, in the last hidden state): {shown}"
            )


def compare_with_reference(checkpoint: str, reference: str | Path) -> Comparison:
    """Runs a checkpoint here and in the authors' code, both in float32, and compares the answers.

    Every sub-network of the paper's grid gets the same batch: random tokens with padding and, if the checkpoint has a
    tokenizer, sentences.

    Args:
        checkpoint: a folder in Hugging Face's format (a run's `model/` is one), a hub name or `sample:minilm`.
        reference: the DynaBERT folder of a clone of the authors' repository, Pretrained-Language-Model.

    Raises:
        CompareError: a difference is larger than `TOLERANCE`, or the authors' code is missing or does not run.
        ModelNotFoundError, WeightsError, ConfigError, DataError: the checkpoint cannot be loaded.
    """
    comparison = measure_differences(checkpoint, reference)
    comparison.check()
    return comparison


def measure_differences(checkpoint: str, reference: str | Path) -> Comparison:
    """Like `compare_with_reference`, but does not raise for large differences."""
    reference = expanded(reference)
    check_reference(reference)
    loaded = load_model(checkpoint)
    model = Model(loaded.config, out_of_unit(loaded.params, loaded.config.unit))  # rounding depends on the unit
    subs = paper_grid(checkpoint, loaded.config)
    if loaded.new:
        missing = " and no ".join(loaded.new)
        log.warning("%s has no %s; both sides use the same random one", checkpoint, missing)
    inputs = make_inputs(loaded.config, loaded.folder)
    theirs = reference_answers(reference, model, inputs, subs)
    ours = our_answers(model, inputs, subs)
    return Comparison(checkpoint, compare(subs, ours, theirs, np.asarray(inputs.attention_mask, bool)))


def check_reference(reference: Path) -> None:
    """Raises CompareError unless the folder is the authors' and PyTorch is installed."""
    file = reference / _MODELING
    if not file.is_file():
        inner = reference / "DynaBERT"
        cure = f"name {inner}" if (inner / _MODELING).is_file() else "name the DynaBERT folder of its clone"
        raise CompareError(f"{reference} is not the authors' code, Pretrained-Language-Model: it has no {file}; {cure}")
    if "width_mult" not in file.read_text(encoding="utf-8"):
        raise CompareError(
            f"{file} has no width_mult, so it is not DynaBERT's; name the DynaBERT folder of a clone of the authors' "
            f"repository, Pretrained-Language-Model"
        )
    if importlib.util.find_spec("torch") is None:
        raise CompareError(f"the authors' code needs PyTorch; run `{install_command('torch')}`")


def paper_grid(checkpoint: str, config: ModelConfig) -> tuple[SubNetwork, ...]:
    """Every width and depth of the paper.

    Raises:
        CompareError: the model is cut, or too small for the grid.
    """
    if "dynabert" in config.to_hugging_face():
        raise CompareError(
            f"{checkpoint} is a cut model, but the authors' code runs only uncut ones; name the uncut model"
        )
    stage = DepthStage()
    try:
        return uniform_grid(config, stage.widths, stage.depths)
    except ValueError as error:
        raise CompareError(f"{checkpoint} is too small for the paper's grid: {error}") from error


def make_inputs(config: ModelConfig, folder: Path) -> Inputs:
    """A batch of random rows of several lengths and, if the folder has a tokenizer, of sentences."""
    length = min(_LENGTH, config.max_length)
    rows = [*_random_rows(config, length), *_sentence_rows(config, folder, length)]
    shape = (len(rows), length)
    inputs = Inputs(np.full(shape, config.pad_token_id, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32))
    for i, (ids, types) in enumerate(rows):
        inputs.input_ids[i, : len(ids)] = ids
        inputs.attention_mask[i, : len(ids)] = 1
        inputs.token_type_ids[i, : len(ids)] = types
    return inputs


def _random_rows(config: ModelConfig, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and token types, `[tokens]` each. In RoBERTa, padding within a text has no position of its own any more."""
    rng = np.random.default_rng(0)
    words = [word for word in range(config.vocab_size) if word != config.pad_token_id or config.model_type == "bert"]
    for tokens in (length, length // 2, length // 4 + 1, 1):
        yield rng.choice(words, size=tokens), rng.integers(config.type_vocab_size, size=tokens)


def _sentence_rows(config: ModelConfig, folder: Path, length: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and token types, `[tokens]` each; none without a tokenizer."""
    if not has_tokenizer(folder):
        return
    tokenizer = load_tokenizer(folder, config)
    for texts in _SENTENCES:
        yield from tokenize(tokenizer, [texts], length)


def our_answers(model: Model, inputs: Inputs, subs: Sequence[SubNetwork]) -> Answers:
    """The answers of this package."""
    on = devices.local()[:1]
    given = [in_jax.open_model(model.cut(sub), on=on, with_hidden=True)(inputs) for sub in subs]
    return Answers(
        logits=np.stack([np.asarray(answers.logits) for answers in given]),
        last_hidden=np.stack([np.asarray(answers.last_hidden) for answers in given]),
    )


def reference_answers(reference: Path, model: Model, inputs: Inputs, subs: Sequence[SubNetwork]) -> Answers:
    """The answers of the authors' code, from a process of its own.

    Raises:
        CompareError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="dynabert-compare-") as work:
        folder = Path(work)
        save_model(folder, model.config, model.params)
        # Their configuration takes the number of labels from a key of its own.
        settings = model.config.to_hugging_face() | {"num_labels": model.config.num_labels}
        (folder / "config.json").write_text(json.dumps(settings))
        (folder / "grid.json").write_text(json.dumps([{"width": sub.width, "depth": sub.depth} for sub in subs]))
        np.savez(folder / "inputs.npz", **inputs._asdict())
        _run_child(reference, folder)
        with np.load(folder / "answers.npz") as arrays:
            return Answers(arrays["logits"], arrays["last_hidden"])


def _run_child(reference: Path, folder: Path) -> None:
    paths = [str(reference.resolve()), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # -P keeps the child's own folder off its path: only the authors' modules are imported by their names.
    command = [sys.executable, "-P", str(_CHILD), str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise CompareError(f"the authors' code in {reference} failed{_cure(result.stderr)}:\n{_end(result.stderr)}")


def _cure(stderr: str) -> str:
    missing = re.search(r"No module named '(\w+)", stderr)
    if missing is None:
        return ""
    packages = " ".join(sorted(_PACKAGES | {missing[1]}))
    return f"; it needs packages that are not installed; try `{install_command(packages)}`"


def _end(text: str, lines: int = 8) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])


def compare(subs: Sequence[SubNetwork], ours: Answers, theirs: Answers, real: np.ndarray) -> tuple[Difference, ...]:
    """The largest difference of each sub-network.

    Args:
        subs: n sub-networks.
        ours, theirs: their answers.
        real: `[B, S]` bool, true at tokens. Outputs at padding are not compared: nothing reads them, and rounding alone
            can make them differ by 1e-4 in a trained model.

    Raises:
        CompareError: the answers differ in shape.
    """
    for name, array in vars(ours).items():
        other = getattr(theirs, name)
        if array.shape != other.shape:
            raise CompareError(f"{name} of the authors' code has shape {other.shape} instead of {array.shape}")
    logits = np.abs(ours.logits - theirs.logits).max((1, 2))  # [n]
    hidden = np.abs(ours.last_hidden - theirs.last_hidden)[:, real].max((1, 2))  # [n, tokens, H] to [n]
    return tuple(Difference(sub, float(a), float(b)) for sub, a, b in zip(subs, logits, hidden, strict=True))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
