"""DynaBERT in JAX: one set of BERT or RoBERTa weights out of which a network of any width and depth can be cut.

All that is meant to be used from Python stands here: what a configuration is written with, and a function for every
command of `dynabert`. What needs jax is imported when it is first used, so that reading a configuration stays fast.
No name here is also that of a module: importing a module would put it in the name's place.
"""

import importlib
from typing import TYPE_CHECKING

from dynabert_jax.config import (
    DataConfig,
    DepthStage,
    FinalStage,
    FineTune,
    Importance,
    ModelConfig,
    Optimizer,
    RunConfig,
    WidthStage,
)
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.tasks import Task, task

if TYPE_CHECKING:
    from dynabert_jax.bench import BenchSettings, bench_run
    from dynabert_jax.bert import Bert
    from dynabert_jax.choose import Limits
    from dynabert_jax.chosen import Question, choose_run
    from dynabert_jax.compare import compare_with_reference
    from dynabert_jax.cut import Cut
    from dynabert_jax.cut import cut as cut_model
    from dynabert_jax.export import export_run, load_stablehlo
    from dynabert_jax.finished import read_finished
    from dynabert_jax.latency import Where
    from dynabert_jax.page import report_run
    from dynabert_jax.predict import Prediction, Predictor, predict_file, predict_texts
    from dynabert_jax.results import evaluate_run
    from dynabert_jax.weights import Pretrained
    from dynabert_jax.weights import load as load_model
    from dynabert_jax.weights import save as save_model
else:
    # By their names the modules that have them; a second part is what the module calls it, where that differs.
    _LAZY = {
        "BenchSettings": "bench",
        "Bert": "bert",
        "Cut": "cut",
        "Limits": "choose",
        "Prediction": "predict",
        "Predictor": "predict",
        "Pretrained": "weights",
        "Question": "chosen",
        "Where": "latency",
        "bench_run": "bench",
        "choose_run": "chosen",
        "compare_with_reference": "compare",
        "cut_model": "cut:cut",
        "evaluate_run": "results",
        "export_run": "export",
        "load_model": "weights:load",
        "load_stablehlo": "export",
        "predict_file": "predict",
        "predict_texts": "predict",
        "read_finished": "finished",
        "report_run": "page",
        "save_model": "weights:save",
    }

    def __getattr__(name: str) -> object:
        """What is imported when it is first asked for."""
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
        module, _, original = _LAZY[name].partition(":")
        found = getattr(importlib.import_module(f"{__name__}.{module}"), original or name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "BenchSettings",
    "Bert",
    "Cut",
    "DataConfig",
    "DepthStage",
    "FinalStage",
    "FineTune",
    "Importance",
    "Limits",
    "ModelConfig",
    "Optimizer",
    "Prediction",
    "Predictor",
    "Pretrained",
    "Question",
    "RunConfig",
    "SubNetwork",
    "Task",
    "Where",
    "WidthStage",
    "bench_run",
    "choose_run",
    "compare_with_reference",
    "cut_model",
    "evaluate_run",
    "export_run",
    "load_model",
    "load_stablehlo",
    "predict_file",
    "predict_texts",
    "read_finished",
    "report_run",
    "save_model",
    "task",
]
