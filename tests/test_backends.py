"""What runs a sub-network answers as the network does, on the host, and tells what memory its program needs."""

import importlib.util
from typing import Any, get_args

import jax
import numpy as np
import pytest

from dynabert_jax.backends import BACKENDS, BackendName, Inputs, find_backend, threads
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.cut import cut
from dynabert_jax.errors import MissingPackageError
from dynabert_jax.export import onnx_file
from dynabert_jax.packages import is_installed
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, FULL, GRID, PER_LAYER, ROBERTA, random_batch, random_params, run

jax_runs = BACKENDS["jax"].takers["float32"]
needs_onnx = pytest.mark.skipif(
    not all(map(is_installed, BACKENDS["onnxruntime"].packages)), reason="needs onnx and onnxruntime"
)


def logits_of(name: BackendName, dtype: str, config: ModelConfig, sub: SubNetwork) -> tuple[np.ndarray, np.ndarray]:
    """A backend's answers to a batch with padding, and the network's own in float32."""
    params, batch = jax.device_get(random_params(config)), random_batch(config)
    inputs = Inputs(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    logits = BACKENDS[name].takers[dtype](config, params, sub)(inputs).run(inputs)
    assert type(logits) is np.ndarray  # on the host: there is nothing left to wait for
    return logits, np.asarray(run(config, params, batch, sub).logits)


def test_every_name_has_a_backend() -> None:
    assert get_args(BackendName) == tuple(BACKENDS)


def test_every_backend_says_in_which_dtypes_it_runs() -> None:
    wanted: tuple[Dtype, ...] = ("bfloat16",)
    assert {name: tuple(backend.takers) for name, backend in BACKENDS.items()} == {
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
    opened, open_session = list[Any](), onnx_file.open_session
    monkeypatch.setattr(
        onnx_file, "open_session", lambda *given: opened.append(open_session(*given)) or opened[-1]
    )  # fmt: skip
    program = BACKENDS["onnxruntime"].takers["float32"](CONFIG, random_params(CONFIG), FULL)(inputs_of((1, 5)))
    assert program.memory_bytes is None  # it does not tell
    (session,) = opened
    assert session.get_session_options().intra_op_num_threads == threads()
    for shape in ((1, 5), (3, 9)):  # one session for all
        assert program.run(inputs_of(shape)).shape == (shape[0], CONFIG.num_labels)


def test_a_package_that_is_missing_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_backend("jax") is BACKENDS["jax"]
    for name in ("onnxruntime", "onnxruntime-int8"):
        with pytest.raises(MissingPackageError) as error:
            find_backend(name)
        told = f'--backend {name} needs onnx and onnxruntime; run `pip install "dynabert_jax[onnx]"`'
        assert str(error.value) == told


def inputs_of(shape: tuple[int, int]) -> Inputs:
    return Inputs(*[np.ones(shape, np.int32)] * 3)


def test_a_program_is_of_the_shape_of_its_inputs() -> None:
    make = jax_runs(CONFIG, random_params(CONFIG), FULL)
    shapes = {shape: make(inputs_of(shape)) for shape in ((1, 5), (3, 9))}
    for shape, program in shapes.items():
        assert program.run(inputs_of(shape)).shape == (shape[0], CONFIG.num_labels)
    with pytest.raises(TypeError):
        shapes[1, 5].run(inputs_of((3, 5)))


def test_memory_holds_the_weights_of_the_cut_alone() -> None:
    params = random_params(CONFIG)
    needed = {}
    for sub in (FULL, PER_LAYER):
        memory = jax_runs(CONFIG, params, sub)(inputs_of((1, 5))).memory_bytes
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(cut(CONFIG, params, sub).params))
        assert memory is not None
        assert memory >= weights
        needed[sub] = memory
    assert needed[PER_LAYER] < needed[FULL]
