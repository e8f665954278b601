"""What `import dynabert_jax` gives: every name, quickly, whatever was imported before."""

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import dynabert_jax

ROOT = Path(__file__).parents[1]
HEAVY = ("jax", "flax", "optax", "orbax", "torch", "transformers", "onnx", "onnxruntime", "datasets", "sklearn")


def python(program: str) -> str:
    """What a new process prints."""
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True).stdout


def test_importing_it_imports_nothing_heavy() -> None:
    program = f"import sys, dynabert_jax; dir(dynabert_jax); print([name for name in {HEAVY} if name in sys.modules])"
    assert python(program).strip() == "[]"


def test_every_name_is_a_function_or_class_with_words() -> None:
    for name in dynabert_jax.__all__:
        value = getattr(dynabert_jax, name)
        assert inspect.isfunction(value) or inspect.isclass(value), name
        assert inspect.getdoc(value), name
        assert name in dir(dynabert_jax)
    assert sorted(dynabert_jax.__all__) == dynabert_jax.__all__


def test_no_name_is_a_modules() -> None:
    modules = {module.name for module in pkgutil.iter_modules(dynabert_jax.__path__)}
    assert not modules & set(dynabert_jax.__all__)


def test_modules_that_were_imported_before_take_no_name() -> None:
    program = (
        "import importlib, pkgutil, types, dynabert_jax\n"
        "for module in pkgutil.iter_modules(dynabert_jax.__path__):\n"
        "    if module.name not in ('__main__', 'compare_child'):\n"
        "        importlib.import_module('dynabert_jax.' + module.name)\n"
        "print([n for n in dynabert_jax.__all__ if isinstance(getattr(dynabert_jax, n), types.ModuleType)])"
    )
    assert python(program).strip() == "[]"


def test_a_name_that_there_is_not_tells_those_that_are() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'predictor'; it has BenchSettings, Bert"):
        _ = dynabert_jax.predictor  # type: ignore[attr-defined]
