"""The first answer of an exported model, including everything that has to be loaded; `deployed.py` runs this.

python -m benchmarks.first_answer FOLDER FORMAT prints the logits of one sentence as JSON. It imports nothing from
this package, like a user who has only the folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

LENGTH = 32  # tokens, padding included


def main(folder: str, kind: str, sentence: str) -> None:
    """Prints the logits `[C]` of a sentence, from a folder that was exported as onnx or stablehlo."""
    inputs = encode(folder, sentence)
    print(json.dumps({"onnx": ask_onnx, "stablehlo": ask_stablehlo}[kind](folder, inputs).tolist()))


def encode(folder: str, sentence: str) -> dict[str, np.ndarray]:
    """The three input arrays, `[1, S]` each."""
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    encoded = tokenizer.encode(sentence)
    columns = {
        "input_ids": encoded.ids,
        "attention_mask": encoded.attention_mask,
        "token_type_ids": encoded.type_ids,
    }
    return {name: np.array([column], np.int64) for name, column in columns.items()}


def ask_onnx(folder: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0][0]


def ask_stablehlo(folder: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    sys.path.append(folder)
    from run_stablehlo import load_stablehlo  # type: ignore[import-not-found] # part of the exported folder

    return np.asarray(load_stablehlo(folder)(*inputs.values()))[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
