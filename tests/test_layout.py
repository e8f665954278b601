"""The house: where programs are compiled, what folders promise, and what the public functions leave alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dynabert_jax
from tiny_run import Finished

PACKAGE = Path(dynabert_jax.__file__).parent
FOLDERS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
COMPILERS = {
    "jax.jit", "jax.pmap", "data_parallel", "devices.data_parallel", "dynabert_jax.system.devices.data_parallel",
}  # fmt: skip
COMPILES = {
    "export/stablehlo.py", "model/bert.py", "model/dropout.py", "model/matmul.py", "system/devices.py",
    "train/importance.py", "train/step.py",
}  # fmt: skip


def names_in(file: Path) -> Iterator[str]:
    """Every name and dotted name that is used, such as `jax.jit`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_programs_are_compiled_in_the_named_places_only() -> None:
    found = set()
    for file in PACKAGE.rglob("*.py"):
        if COMPILERS & set(names_in(file)):
            found.add(file.relative_to(PACKAGE).as_posix())
    assert {place for place in found if not place.startswith("infer/")} == COMPILES
    assert "infer/in_jax.py" in found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_folder_says_what_it_is_and_has_tests(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    places = [Path(__file__).parent / folder.name, *Path(__file__).parent.glob(f"test_{folder.name}.py")]
    tested = [place for place in places if place.exists()]
    assert tested or folder.name == "infer"  # whose runners the batteries of export, choose, serve and evaluate try


def run_alone(program: str, *arguments: object) -> str:
    """What a program prints in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = "{'jax', 'flax', 'optax', 'orbax', 'transformers', 'datasets', 'torch'} & set(sys.modules)"


def test_the_package_is_imported_without_anything_heavy() -> None:
    assert run_alone(f"import sys, dynabert_jax; print({HEAVY})") == "set()\n"


READS = f"""
import sys
from pathlib import Path
from dynabert_jax import Limits, Question, Where, choose_run, read_finished, report_run

run, page = sys.argv[1:]
finished = read_finished(run)
assert finished.sub("w1_d0.5").name == "w1_d0.5"
choose_run(run, Question(Limits(max_parameters=1e9), Where()))
report_run(run, page)
print({HEAVY})
"""


def test_choosing_and_reporting_read_no_weights_and_need_no_jax(finished: Finished, tmp_path: Path) -> None:
    """Nothing else is printed either."""
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    for name in ("config.json", "model.json", "results.json", "importance.npz", "training.jsonl", "evaluations.jsonl"):
        (run / name).write_bytes((finished.folder / name).read_bytes())
    (run / "model" / "config.json").write_bytes((finished.folder / "model" / "config.json").read_bytes())
    assert run_alone(READS, run, tmp_path / "page.html") == "set()\n"


STATE = """
import csv, logging, os, signal, sys, warnings

def state():
    import jax
    return {
        "environment": dict(os.environ),
        "loggers": {name: (log.level, log.disabled, list(log.handlers)) for name, log in
                    logging.root.manager.loggerDict.items() if isinstance(log, logging.Logger) and
                    name.split(".")[0] in ("dynabert_jax", "absl", "asyncio", "jax", "orbax")},
        "root": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "warnings": list(warnings.filters),
        "cell": csv.field_size_limit(),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "hooks": (sys.excepthook, sys.unraisablehook),
        "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "jax": {name: value for name, value in jax.config.values.items()},
    }

# What libraries do to the process on import is theirs.
import datasets, orbax.checkpoint, sklearn.metrics, tensorboardX, torch._dynamo, torch._inductor.config, transformers
from transformers import BertForSequenceClassification
os.environ.pop("TRANSFORMERS_NO_ADVISORY_WARNINGS", None)  # these tests may have set it
from dynabert_jax import (BenchSettings, Limits, Predictor, Question, RunConfig, Where, bench_run, choose_run, dry_run,
                          evaluate_run, export_run, report_run, train_run)
from pathlib import Path

config = RunConfig.from_json(Path(sys.argv[1]).read_text())
run, before = config.run_dir, state()
dry_run(config)
train_run(config)
evaluate_run(run)
bench_run(run, BenchSettings(rounds=1))
choose_run(run, Question(Limits(max_latency_ms=1e6), Where()))
export_run(run, "stablehlo", run + "/export")
export_run(run, "hf", run + "/hf")
Predictor(run, batch_size=4)(["good film", "bad"])
report_run(run)
after = state()
print({name: (before[name], after[name]) for name in before if before[name] != after[name]})
"""


def test_public_functions_print_nothing_and_change_nothing_of_the_process(finished: Finished, tmp_path: Path) -> None:
    """A whole run and all that is done with it: no word on standard output, and the process is as it was."""
    config = finished.config.replace(run_dir=str(tmp_path / "run"), width=None, depth=None, final=None)
    (tmp_path / "config.json").write_text(config.to_json())
    assert run_alone(STATE, tmp_path / "config.json") == "{}\n"
