"""DynaBERT in JAX: one set of BERT or RoBERTa weights from which a network of any width and depth can be cut.

This is the public API: the classes that a configuration is written with, and a function for every command of
`dynabert`. What needs jax is imported when it is first used, so that reading a configuration stays fast.
No name here is also the name of a module, because importing that module would replace the name.
"""

import importlib
from typing import TYPE_CHECKING

from dynabert_jax.config.data import DataConfig
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.config.run import RunConfig
from dynabert_jax.config.stages import DepthStage, FinalStage, FineTune, Importance, Optimizer, WidthStage
from dynabert_jax.config.tasks import Task, task
from dynabert_jax.subnetwork import SubNetwork

if TYPE_CHECKING:
    from dynabert_jax.choose.bench import BenchSettings, bench_run
    from dynabert_jax.choose.choose import Limits
    from dynabert_jax.choose.question import Question, choose_run
    from dynabert_jax.compare.compare import compare_with_reference
    from dynabert_jax.export.export import export_run
    from dynabert_jax.export.push import push_export
    from dynabert_jax.infer.run_stablehlo import load_stablehlo
    from dynabert_jax.model.bert import Bert
    from dynabert_jax.model.params import Model, cut_model
    from dynabert_jax.model.params import Model as Cut
    from dynabert_jax.report.report import report_run
    from dynabert_jax.runs.finished import read_finished
    from dynabert_jax.runs.latency_card import Where
    from dynabert_jax.serve.predict import Prediction, Predictor, predict_file, predict_texts
    from dynabert_jax.shrink.shrink import Shrunk, shrink_run
    from dynabert_jax.train.new_config import init_config
    from dynabert_jax.train.results import evaluate_run
    from dynabert_jax.train.run import dry_run, train_one_stage, train_run
    from dynabert_jax.weights.files import Pretrained, load_model, save_model
else:
    # The module of each name, and after a colon the name in that module if it differs.
    _LAZY = {
        "BenchSettings": "choose.bench",
        "Bert": "model.bert",
        "Cut": "model.params:Model",
        "Limits": "choose.choose",
        "Prediction": "serve.predict",
        "Predictor": "serve.predict",
        "Model": "model.params",
        "Pretrained": "weights.files",
        "Question": "choose.question",
        "Where": "runs.latency_card",
        "bench_run": "choose.bench",
        "choose_run": "choose.question",
        "compare_with_reference": "compare.compare",
        "cut_model": "model.params",
        "dry_run": "train.run",
        "evaluate_run": "train.results",
        "export_run": "export.export",
        "init_config": "train.new_config",
        "load_model": "weights.files",
        "load_stablehlo": "infer.run_stablehlo",
        "predict_file": "serve.predict",
        "predict_texts": "serve.predict",
        "push_export": "export.push",
        "read_finished": "runs.finished",
        "report_run": "report.report",
        "save_model": "weights.files",
        "Shrunk": "shrink.shrink",
        "shrink_run": "shrink.shrink",
        "train_one_stage": "train.run",
        "train_run": "train.run",
    }

    def __getattr__(name: str) -> object:
        """Imports a name when it is first used."""
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
    "Model",
    "ModelConfig",
    "Optimizer",
    "Prediction",
    "Predictor",
    "Pretrained",
    "Question",
    "RunConfig",
    "Shrunk",
    "SubNetwork",
    "Task",
    "Where",
    "WidthStage",
    "bench_run",
    "choose_run",
    "compare_with_reference",
    "cut_model",
    "dry_run",
    "evaluate_run",
    "export_run",
    "init_config",
    "load_model",
    "load_stablehlo",
    "predict_file",
    "predict_texts",
    "push_export",
    "read_finished",
    "report_run",
    "save_model",
    "shrink_run",
    "task",
    "train_one_stage",
    "train_run",
]
