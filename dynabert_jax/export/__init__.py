"""Sub-networks of a finished run in the formats that others run: transformers, ONNX Runtime, StableHLO."""

from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.formats import FORMATS, FormatName
from dynabert_jax.export.run_stablehlo import load_stablehlo
from dynabert_jax.export.walk import Exported, export_run

__all__ = ["FORMATS", "ExportError", "Exported", "FormatName", "export_run", "load_stablehlo"]
