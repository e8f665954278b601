"""What every test stands on: the settings that must be made before jax is imported, and the golden values.

The platform is not chosen here: jax takes an accelerator where it finds one, and JAX_PLATFORMS=cpu keeps it on the CPU.
"""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

XLA_FLAGS = {
    "--xla_force_host_platform_device_count": 4,  # for the tests of data parallelism; not for accelerators
    "--xla_backend_optimization_level": 0,  # the networks are tiny: compiling them takes nearly all of the time
}
for flag, value in XLA_FLAGS.items():
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={value}".strip()
# Tests that start processes of their own share the accelerator with them.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import hypothesis
import jax
import pytest

import tiny_run
import train

# Tests of properties try the same few examples each time; --hypothesis-profile long tries other ones, and many.
hypothesis.settings.register_profile("few", max_examples=10, derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("long", max_examples=300, database=None, deadline=None, print_blob=True)
hypothesis.settings.load_profile("few")


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and jax.default_backend() == "cpu":
        skip = pytest.mark.skip(reason="needs an accelerator, and jax finds only the CPU")
        for item in marked:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder of golden values: DYNABERT_GOLDEN where that is set, else the ones in the repository."""
    folder = Path(os.environ.get("DYNABERT_GOLDEN") or Path(__file__).parent / "golden")
    assert folder.is_dir(), f"no folder of golden values at {folder}; set DYNABERT_GOLDEN to one, or unset it"
    return folder


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> tiny_run.Materials:
    """What a run needs: a tiny pretrained model and sentences."""
    return tiny_run.write_materials(tmp_path_factory.mktemp("materials"))


@pytest.fixture(scope="session")
def shared_programs() -> Iterator[None]:
    """Runs in this process compile what they have in common once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynabert_jax.train.context.Programs", tiny_run.shared_programs())
        patch.setattr("dynabert_jax.train.loop.make_update", tiny_run.shared_updates())
        yield


@pytest.fixture(scope="session")
def finished(
    materials: tiny_run.Materials,
    shared_programs: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> tiny_run.Finished:
    """A whole run of four stages that nothing interrupted. Tests read its folder and write nothing into it."""
    folder = tmp_path_factory.mktemp("finished")
    config = materials.config(folder / "run")
    output, errors = io.StringIO(), io.StringIO()
    with (
        tiny_run.programs_kept_in(folder / "programs"),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        rows = train.run(config)
    return tiny_run.Finished(config, rows, output.getvalue(), errors.getvalue(), folder / "programs")


@pytest.fixture
def kept_programs(finished: tiny_run.Finished) -> Iterator[None]:
    """What the finished run compiled need not be compiled again, even where it cannot be shared."""
    with tiny_run.programs_kept_in(finished.programs):
        yield
