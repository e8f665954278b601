"""Writes and quantizes ONNX files."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer.in_onnxruntime import FLOAT, INT8
from dynabert_jax.infer.runner import Source

LARGEST = 2**31 - 1  # bytes that one file of this format can hold


def write(source: Source, folder: Path) -> None:
    """Writes the one sub-network as model.onnx, and a config.json with the names of the labels.

    Raises:
        ExportError: the sub-network is too large for one file.
    """
    import onnx

    from dynabert_jax.export.onnx_graph import onnx_model

    small = source.only
    model = onnx_model(small, source.stored)
    if model.ByteSize() > LARGEST:
        raise ExportError(
            f"{model.ByteSize() / 2**30:.1f} GiB of weights do not fit into one ONNX file of at most 2 GiB; export "
            f"a smaller sub-network, or another format"
        )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / FLOAT)
    (folder / "config.json").write_text(json.dumps(small.config.to_hugging_face(), indent=2) + "\n", encoding="utf-8")


def quantize(folder: Path) -> None:
    """Writes model_int8.onnx next to model.onnx.

    Weights have 8 bits and one scale per output; activations are quantized at run time. Only 7 of the weights' 8 bits
    are used. CPUs without VNNI instructions add two products in 16 bits, where larger weights overflow, so answers
    would differ between machines. Embeddings have 8 bits and one scale per table, except for word embeddings that
    model.onnx itself stores in 16 or 8 bits, which stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from dynabert_jax.export.onnx_graph import STORED

    with _quiet():
        quantize_dynamic(
            folder / FLOAT,
            folder / INT8,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[STORED, f"{STORED}_steps"],
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences ONNX Runtime's advice to optimize first, which this graph does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
