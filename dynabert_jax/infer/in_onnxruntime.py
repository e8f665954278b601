"""An ONNX file in ONNX Runtime, on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.infer.runner import Answers, Runner

FLOAT, INT8 = "model.onnx", "model_int8.onnx"


def open_file(path: Path, layers: int, threads: int | None = None) -> Runner:
    """The network of a file that `export.onnx_file` wrote.

    Args:
        path: read completely; the file may be deleted afterwards.
        layers: the number of layers, for the work that is reported.
        threads: per operator; None leaves it to ONNX Runtime.
    """
    import onnxruntime

    session = open_session(path, threads)
    names = [given.name for given in session.get_inputs()]

    def answer(inputs: Inputs) -> Answers:
        (logits,) = session.run(None, {name: np.asarray(getattr(inputs, name), np.int64) for name in names})
        return Answers(logits, Work.dense(layers, *inputs.shape))

    return Runner(f"ONNX Runtime {onnxruntime.__version__}", answer)


def open_session(path: Path, threads: int | None = None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    # By default its threads wait for the next call in a busy loop, which slows down everything else in this process.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
