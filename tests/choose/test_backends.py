"""What runs a sub-network answers as the network does, on the host, and tells what memory its program needs."""

import importlib.util
import shlex
import sys
from typing import Any, get_args

import jax
import numpy as np
import pytest

from dynabert_jax.choose.backends import BACKENDS, BackendName, find_backend
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.errors import MissingPackageError
from dynabert_jax.infer import in_onnxruntime
from dynabert_jax.infer.in_onnxruntime import open_session
from dynabert_jax.model.params import Model, cut_model
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.devices import threads
from dynabert_jax.system.packages import is_installed
from tiny import CONFIG, FULL, GRID, PER_LAYER, ROBERTA, random_batch, random_params, run

open_in_jax = BACKENDS["jax"].opens["float32"]
needs_onnx = pytest.mark.skipif(
    not all(map(is_installed, BACKENDS["onnxruntime"].packages)), reason="needs onnx and onnxruntime"
)


def logits_of(name: BackendName, dtype: str, config: ModelConfig, sub: SubNetwork) -> tuple[np.ndarray, np.ndarray]:
    """A backend's answers to a batch with padding, and the network's own in float32."""
    params, batch = jax.device_get(random_params(config)), random_batch(config)
    answers = BACKENDS[name].opens[dtype](cut_model(config, params, sub))(batch.inputs)
    assert answers.work == Work.dense(len(sub.layers), *batch.inputs.shape)
    return np.asarray(answers.logits), np.asarray(run(config, params, batch, sub).logits)


def test_every_name_has_a_backend() -> None:
    assert get_args(BackendName) == tuple(BACKENDS)


def test_every_backend_says_in_which_dtypes_it_runs() -> None:
    wanted: tuple[Dtype, ...] = ("bfloat16",)
    assert {name: tuple(backend.opens) for name, backend in BACKENDS.items()} == {
        "jax": get_args(Dtype),
        "onnxruntime": ("float32",),
        "onnxruntime-int8": ("int8",),
    }
    assert [backend.dtypes(wanted) for backend in BACKENDS.values()] == [("bfloat16",), ("float32",), ("int8",)]


@pytest.mark.parametrize("sub", GRID, ids=lambda sub: sub.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_jax_answers_as_the_network_does(dtype: Dtype, tolerance: float, sub: SubNetwork) -> None:
    logits, _ = logits_of("jax", dtype, CONFIG, sub)
    expected = run(CONFIG, random_params(CONFIG), random_batch(CONFIG), sub, dtype).logits
    np.testing.assert_allclose(logits, expected, rtol=0.0, atol=tolerance)


@needs_onnx
@pytest.mark.parametrize(("config", "sub"), [*((CONFIG, sub) for sub in GRID), (ROBERTA, FULL)])
def test_onnx_runtime_answers_as_the_network_does(config: ModelConfig, sub: SubNetwork) -> None:
    logits, expected = logits_of("onnxruntime", "float32", config, sub)
    np.testing.assert_allclose(logits, expected, rtol=0.0, atol=1e-4)


@needs_onnx
@pytest.mark.parametrize("sub", [FULL, PER_LAYER], ids=lambda sub: sub.name)
def test_onnx_runtime_in_8_bits_answers_nearly_so(sub: SubNetwork) -> None:
    logits, expected = logits_of("onnxruntime-int8", "int8", CONFIG, sub)
    assert 0.0 < np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


@needs_onnx
def test_onnx_runtime_has_as_many_threads_as_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, given_session = list[Any](), open_session
    monkeypatch.setattr(
        in_onnxruntime, "open_session", lambda *given: opened.append(given_session(*given)) or opened[-1]
    )  # fmt: skip
    runner = BACKENDS["onnxruntime"].opens["float32"](Model(CONFIG, random_params(CONFIG)))
    assert runner.memory_bytes(inputs_of((1, 5))) is None  # it does not say
    (session,) = opened
    assert session.get_session_options().intra_op_num_threads == threads()
    for shape in ((1, 5), (3, 9)):  # one session for all
        assert runner(inputs_of(shape)).logits.shape == (shape[0], CONFIG.num_labels)


def test_a_package_that_is_missing_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_backend("jax") is BACKENDS["jax"]
    for name in ("onnxruntime", "onnxruntime-int8"):
        with pytest.raises(MissingPackageError) as error:
            find_backend(name)
        command = f'{shlex.quote(sys.executable)} -m pip install "dynabert_jax[onnx]"'
        assert str(error.value) == f"--backend {name} needs onnx and onnxruntime; run `{command}`"


def inputs_of(shape: tuple[int, int]) -> Inputs:
    return Inputs(*[np.ones(shape, np.int32)] * 3)


def test_jax_takes_batches_of_every_shape_on_its_first_device() -> None:
    runner = open_in_jax(Model(CONFIG, random_params(CONFIG)))
    assert runner.devices == 1
    for shape in ((1, 5), (3, 9)):
        logits = runner(inputs_of(shape)).logits
        assert logits.shape == (shape[0], CONFIG.num_labels)
        assert logits.devices() == {jax.local_devices()[0]}


def test_memory_holds_the_weights_of_the_cut_alone() -> None:
    params = random_params(CONFIG)
    needed = {}
    for sub in (FULL, PER_LAYER):
        memory = open_in_jax(cut_model(CONFIG, params, sub)).memory_bytes(inputs_of((1, 5)))
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(cut_model(CONFIG, params, sub).params))
        assert memory is not None
        assert memory >= weights
        needed[sub] = memory
    assert needed[PER_LAYER] < needed[FULL]
