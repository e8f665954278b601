"""The wheel: it holds the whole package and nothing else, and what it installs works away from the project."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import pages
from tiny_run import Materials, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that a clone has, with the setuptools that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pages.copy_project(folder / "clone")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "clone"))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path) -> Path:
    """A folder that the wheel is installed in, and nothing else."""
    folder = wheel.with_name("site")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_it_holds_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "dynabert_jax"]
    names = subprocess.run(listed, cwd=pages.ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    assert held == {name for name in names if name and (pages.ROOT / name).exists()}
    assert {"dynabert_jax/py.typed", "dynabert_jax/report/page.css", "dynabert_jax/infer/run_stablehlo.py"} <= held


def test_it_trains_reports_and_exports(site: Path, materials: Materials, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.py", materials.fine_tuning(tmp_path / "run"))

    def python(*arguments: str) -> str:
        return output([sys.executable, *arguments], site, tmp_path)

    where = python("-c", "import dynabert_jax, pathlib; print(pathlib.Path(dynabert_jax.__file__).parent)")
    assert Path(where.strip()) == site / "dynabert_jax"
    table = python("-m", "dynabert_jax", "train", str(config))
    assert (tmp_path / "run" / "results.md").read_text() in table
    python("-m", "dynabert_jax", "report", "run")
    assert "<style>" in (tmp_path / "run" / "report.html").read_text()
    python("-m", "dynabert_jax", "export", "run", "--format", "stablehlo", "--out", "small")
    assert (tmp_path / "small" / "run_stablehlo.py").exists()
    answer = "import sys; sys.path.insert(0, 'small'); import run_stablehlo; run_stablehlo.load_stablehlo('small')"
    python("-c", answer)
    assert "good film" in python("-m", "dynabert_jax", "predict", "small", "--text", "good film")


def output(command: Sequence[str], site: Path, folder: Path) -> str:
    """What a command prints that finds the package only where the wheel was installed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
