"""Settings of all tests, most of which must be made before jax is imported, and the runs that several files test.

The platform is not chosen here: jax takes an accelerator where it finds one, and JAX_PLATFORMS=cpu keeps it on the CPU.
"""

import contextlib
import functools
import io
import os
from collections.abc import Iterable, Iterator
from typing import Any

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
# Arrays must have the same number of dimensions to be combined, in the processes that tests start as well.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import hypothesis
import jax
import optax
import pytest

import golden_cases
import tiny_run
from dynabert_jax.train.run import train_run
from dynabert_jax.train.step import Programs

# Arrays must have the same type as well. This setting is for this process alone, because training needs an exception to
# it: optax raises a float to the power of the step's number.
jax.config.update("jax_numpy_dtype_promotion", "strict")
bias_correction = optax.tree.bias_correction


def bias_correction_with_promotion(*args: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):
        return bias_correction(*args)


optax.tree.bias_correction = bias_correction_with_promotion

# Tests of properties try the same few examples each time; --hypothesis-profile long tries other ones, and many.
hypothesis.settings.register_profile("few", max_examples=10, derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("long", max_examples=300, database=None, deadline=None, print_blob=True)
hypothesis.settings.load_profile("few")


def pytest_configure() -> None:
    if not golden_cases.FOLDER.is_dir():
        raise pytest.UsageError(f"no folder of golden cases at {golden_cases.FOLDER}; correct DYNABERT_GOLDEN")


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and jax.default_backend() == "cpu":
        skip = pytest.mark.skip(reason="needs an accelerator, and jax finds only the CPU")
        for item in marked:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> tiny_run.Materials:
    """What a run needs: a tiny pretrained model and sentences."""
    return tiny_run.write_materials(tmp_path_factory.mktemp("materials"))


@pytest.fixture(scope="session")
def shared_programs() -> Iterator[None]:
    """Runs in this process compile what they have in common once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dynabert_jax.train.loop.programs_for", functools.cache(Programs))
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
    config, errors = materials.config(folder / "run"), io.StringIO()
    with (
        tiny_run.programs_kept_in(folder / "programs"),
        tiny_run.messages_logged() as messages,
        contextlib.redirect_stderr(errors),
    ):
        results = train_run(config)
    return tiny_run.Finished(config, results, messages, errors.getvalue(), folder / "programs")


@pytest.fixture
def kept_programs(finished: tiny_run.Finished) -> Iterator[None]:
    """What the finished run compiled need not be compiled again, even where it cannot be shared."""
    with tiny_run.programs_kept_in(finished.programs):
        yield
