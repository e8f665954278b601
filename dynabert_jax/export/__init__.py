"""Exports sub-networks of a finished run for other programs: transformers, ONNX Runtime, StableHLO."""

from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import Exported, export_run
from dynabert_jax.export.formats import FORMATS, FormatName
from dynabert_jax.export.push import Pushed, PushError, push_export
from dynabert_jax.infer.run_stablehlo import load_stablehlo

__all__ = [
    "FORMATS",
    "ExportError",
    "Exported",
    "FormatName",
    "PushError",
    "Pushed",
    "export_run",
    "load_stablehlo",
    "push_export",
]
