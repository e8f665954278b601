"""Programs of StableHLO answer as the sub-networks do, in a process that has nothing of this package, too."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dynabert_jax.export import stablehlo
from dynabert_jax.infer.in_stablehlo import open_program
from dynabert_jax.infer.run_stablehlo import ProgramError, calls_outside, load_stablehlo
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, GRID, PER_LAYER, random_batch, run
from tiny_export import KINDS, TOLERANCE, assert_answers, source_of


@pytest.fixture(scope="module")
def grid_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole grid in one folder."""
    folder = tmp_path_factory.mktemp("grid")
    stablehlo.write(source_of(CONFIG, *GRID), folder)
    return folder


def test_many_networks_share_one_file_of_weights(grid_folder: Path) -> None:
    source = source_of(CONFIG, *GRID)
    assert_answers(source, lambda sub: open_program(grid_folder, sub.name))
    assert {path.stem for path in grid_folder.glob("*.stablehlo")} == {
        "w1_d1", "w0.5_d0.666667", "w0.75_d0.333333", PER_LAYER.name
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["roberta-per-layer", "regression", "cut-again"])
def test_networks_of_every_kind_answer_the_same(kind: str, tmp_path: Path) -> None:
    source = source_of(*KINDS[kind])
    stablehlo.write(source, tmp_path)
    assert_answers(source, lambda sub: open_program(tmp_path, sub.name))


def test_a_program_is_for_every_platform_and_holds_no_weights(grid_folder: Path) -> None:
    program = jax.export.deserialize(bytearray((grid_folder / "w1_d1.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    weights = load_file(grid_folder / "weights.safetensors")
    largest = max(weights, key=lambda name: weights[name].nbytes)
    assert weights[largest].tobytes() not in (grid_folder / "w1_d1.stablehlo").read_bytes()
    assert len(program.in_avals) == len(weights) + 3


def test_the_file_of_weights_holds_what_is_needed_and_no_more(tmp_path: Path) -> None:
    """Of layers 0 and 2 the most heads and neurons that one of the two takes."""
    other = SubNetwork(layers=(0,), heads=(1,), neurons=(9,))
    stablehlo.write(source_of(CONFIG, PER_LAYER, other), tmp_path)
    shapes = {name: array.shape for name, array in load_file(tmp_path / "weights.safetensors").items()}
    assert shapes["layer_0/query/kernel"] == (12, 3, 3)
    assert shapes["layer_0/up/kernel"] == (12, 9)
    assert shapes["layer_2/down/kernel"] == (17, 12)
    assert not any(name.startswith("layer_1/") for name in shapes)


ALONE = """
import sys
sys.modules |= dict.fromkeys(("dynabert_jax", "flax", "transformers", "torch"))  # None: an import of it fails
import numpy as np
from run_stablehlo import load_stablehlo
with np.load("batch.npz") as batch:
    np.save("logits.npy", load_stablehlo(".", "w0.5_d0.666667")(**batch))
"""


def test_jax_and_safetensors_are_enough(grid_folder: Path) -> None:
    """What an exported folder holds runs without this package and without what it is made of."""
    batch = random_batch(CONFIG)
    np.savez(grid_folder / "batch.npz", **batch.inputs._asdict())
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, cwd=grid_folder, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    wanted = run(CONFIG, source_of(CONFIG).model.params, batch, GRID[1]).logits
    np.testing.assert_allclose(np.load(grid_folder / "logits.npy"), wanted, rtol=0, atol=TOLERANCE)


def test_a_network_that_is_not_there(grid_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no network 'w9'; there are .*w1_d1"):
        load_stablehlo(grid_folder, "w9")
    with pytest.raises(FileNotFoundError, match=r"name the network; there are .*w1_d1"):
        load_stablehlo(grid_folder)
    with pytest.raises(FileNotFoundError, match="there are none"):
        load_stablehlo(tmp_path)


def test_a_sentence_that_is_too_long(grid_folder: Path) -> None:
    ids = np.ones((1, CONFIG.max_length + 1), np.int32)
    with pytest.raises(ValueError, match="17 tokens do not fit: the network has positions for 16"):
        load_stablehlo(grid_folder, "w1_d1")(ids, ids, 0 * ids)


def written(folder: Path, network: Callable[..., jax.Array], *targets: str) -> Path:
    """A folder whose one network is this function of a batch, with custom calls that jax is made to write."""
    checks = [jax.export.DisabledSafetyCheck.custom_call(target) for target in targets]
    inputs = [jax.ShapeDtypeStruct((2, 3), jnp.int32)] * 3  # jax cannot write a composite of a size that is not known
    exported = jax.export.export(
        jax.jit(lambda weights, *ids: network(*ids) + weights["a"]), platforms=("cpu",), disabled_checks=checks
    )({"a": jax.ShapeDtypeStruct((), jnp.float32)}, *inputs)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w1_d1.stablehlo").write_bytes(exported.serialize())
    save_file({"a": np.zeros((), np.float32)}, folder / "weights.safetensors", metadata={"longest": "16"})
    return folder


def call(target: str) -> jax.Array:
    return jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((), jnp.float32), has_side_effect=True)(index=np.uint64(0))


def summed(ids: jax.Array, mask: jax.Array, types: jax.Array) -> jax.Array:
    return (ids + mask + types).astype(jnp.float32)


def hidden_in_a_loop(*inputs: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 2, lambda _, sums: sums + call("xla_ffi_python_cpu_callback"), summed(*inputs))


def hidden_in_a_branch(*inputs: jax.Array) -> jax.Array:
    sums = summed(*inputs)
    return jax.lax.cond(sums.sum() > 9.0, lambda: sums + call("xla_ffi_python_cpu_callback"), lambda: sums)


def hidden_in_a_composite(*inputs: jax.Array) -> jax.Array:
    named = jax.lax.composite(lambda a: a + call("xla_ffi_python_cpu_callback"), "chlo.erf")
    return named(summed(*inputs))


def hidden_in_a_function(*inputs: jax.Array) -> jax.Array:
    return jax.jit(lambda a: a + call("xla_ffi_python_cpu_callback"))(summed(*inputs))


@pytest.mark.parametrize("network", [hidden_in_a_loop, hidden_in_a_branch, hidden_in_a_composite, hidden_in_a_function])
def test_a_program_with_a_call_of_native_code_is_not_run(network: Callable[..., jax.Array], tmp_path: Path) -> None:
    """This target of jaxlib takes an address from the file and calls it: the process would end by a signal."""
    folder = written(tmp_path, network, "xla_ffi_python_cpu_callback")
    with pytest.raises(ProgramError, match=r"w1_d1\.stablehlo is not run, .*custom_call @xla_ffi_python_cpu_callback"):
        load_stablehlo(folder)


@pytest.mark.parametrize("target", ["shape_assertion2", "a shape_assertion", "shape_assertion(", "Sharding", "evil"])
def test_a_target_is_known_by_its_whole_name(target: str, tmp_path: Path) -> None:
    folder = written(tmp_path, lambda *inputs: summed(*inputs) + call(target), target)
    with pytest.raises(ProgramError, match="calls native code"):
        load_stablehlo(folder)


def test_calls_that_jax_itself_makes_of_native_code_are_not_run(tmp_path: Path) -> None:
    """The exporter writes none of these."""
    folder = written(tmp_path, lambda *inputs: summed(*inputs) + jnp.linalg.cholesky(jnp.eye(2))[0, 0])
    with pytest.raises(ProgramError, match="custom_call @lapack_spotrf_ffi"):
        load_stablehlo(folder)


@pytest.mark.parametrize(
    ("line", "is_outside"),
    [
        ('%1 = stablehlo.custom_call @shape_assertion(%6, %0) {error_message = "Input"}', False),
        ("%1 = stablehlo.custom_call @shape_assertion2(%6, %0)", True),
        ('%1 = "stablehlo.custom_call"(%0) <{call_target_name = "shape_assertion"}>', True),
        ("%1 = mhlo.custom_call @shape_assertion(%6, %0)", True),
        ('%1 = "stablehlo.infeed"(%0)', True),
        ("%1 = stablehlo.add %0, %0 loc(#loc1)", False),
        ('#loc1 = loc("/home/custom_call/bert.py":1:2)', False),
    ],
)
def test_what_a_program_calls_is_found_in_its_text(line: str, is_outside: bool) -> None:
    assert (calls_outside(f"module {{\n{line}\n}}") is not None) == is_outside


def test_a_program_without_calls_is_run(tmp_path: Path) -> None:
    ids = np.ones((2, 3), np.int32)
    np.testing.assert_array_equal(load_stablehlo(written(tmp_path, summed))(ids, ids, ids), 3.0 * ids)
