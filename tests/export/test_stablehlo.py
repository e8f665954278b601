"""Programs of StableHLO answer as the sub-networks do, in a process that has nothing of this package, too."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest
from safetensors.numpy import load_file

from dynabert_jax.export import stablehlo
from dynabert_jax.infer.in_stablehlo import open_program
from dynabert_jax.infer.run_stablehlo import load_stablehlo
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
