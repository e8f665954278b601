"""An exported network and its tokenizer: texts to answers, with ONNX Runtime and tokenizers alone.

Letters in shapes: B texts in a batch, S tokens, C labels.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

FLOAT, INT8 = "model.onnx", "model_int8.onnx"

Text = str | tuple[str, str]  # a sentence, or a pair of them


class ExportError(ValueError):
    """The folder cannot be served; the message says why and what to do."""


class Network:
    """One export of `dynabert export --format onnx`, loaded.

    Args:
        folder: the export.
        file: `model.onnx`, or `model_int8.onnx` of an export with --int8.
        threads: of ONNX Runtime; 0 takes all cores.

    Attributes:
        labels: the classes; for a regression, the name of its one output.
        takes_pairs: whether a text is a pair of sentences.

    Raises:
        ExportError: the folder is no such export, or a file was changed since.
    """

    def __init__(self, folder: Path, file: str = FLOAT, threads: int = 0):
        manifest = read_manifest(folder)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", file):
            check_file(folder, name, manifest["files"])
        self.labels: list[str] = manifest["labels"]
        self.takes_pairs = len(manifest["text_columns"]) == 2
        self.is_regression = manifest["head"] == "regression"
        self._pad = json.loads((folder / "config.json").read_text(encoding="utf-8"))["pad_token_id"]
        self._tokenizer, self._has_segments = open_tokenizer(folder, manifest["lengths"][-1])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads do not take the CPU
        self._session = onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """One answer for each text: `label` and `probabilities`, or `number` for a regression."""
        logits = self._logits(self._tokenizer.encode_batch(list(texts)))
        if self.is_regression:
            return [{"number": number} for number in logits[:, 0].tolist()]
        rows = zip(logits.argmax(axis=1), softmax(logits).tolist(), strict=True)
        return [
            {"label": self.labels[best], "probabilities": dict(zip(self.labels, shares, strict=True))}
            for best, shares in rows
        ]

    def _logits(self, encoded: Sequence[Encoding]) -> np.ndarray:
        """Logits `[B, C]` of a batch that is as long as its longest text."""
        shape = (len(encoded), max(len(one.ids) for one in encoded))
        inputs = {
            "input_ids": np.full(shape, self._pad, np.int64),
            "attention_mask": np.zeros(shape, np.int64),
            "token_type_ids": np.zeros(shape, np.int64),
        }
        for row, one in enumerate(encoded):
            inputs["input_ids"][row, : len(one.ids)] = one.ids
            inputs["attention_mask"][row, : len(one.ids)] = 1
            if self._has_segments:
                inputs["token_type_ids"][row, : len(one.ids)] = one.type_ids
        names = [given.name for given in self._session.get_inputs()]
        return self._session.run(["logits"], {name: inputs[name] for name in names})[0]


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """What `dynabert export` wrote about the folder."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        found = manifest["format"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{folder} is no export with a manifest.json ({error}); name one") from error
    if found != "onnx":
        raise ExportError(f"{folder} is an export in the format {found}; make one with --format onnx")
    return manifest


def check_file(folder: Path, name: str, checksums: Mapping[str, str]) -> None:
    """Raises ExportError unless the file is as it was exported."""
    if name not in checksums or not (folder / name).is_file():
        cure = "; export with --int8" if name == INT8 else "; export it again"
        raise ExportError(f"{folder} has no {name}{cure}")
    with (folder / name).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != checksums[name]:
        raise ExportError(f"{folder / name} is damaged, or was changed after it was written; copy or export it again")


def open_tokenizer(folder: Path, longest: int) -> tuple[Tokenizer, bool]:
    """The tokenizer as the network was trained with it, and whether the network reads its segments.

    tokenizer.json has the rest: on which side a text is truncated, and what frames a text and a pair.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    direction = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.enable_truncation(longest, strategy="longest_first", direction=direction)
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(settings.get("split_special_tokens", False))
    return tokenizer, "token_type_ids" in settings["model_input_names"]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[B, C]` from logits `[B, C]`."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
