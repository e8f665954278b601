"""What runs a sub-network answers as the network does, on the host, and tells what memory its program needs."""

from typing import get_args

import jax
import numpy as np
import pytest

from dynabert_jax.backends import BACKENDS, BackendName, Inputs
from dynabert_jax.config import Dtype
from dynabert_jax.cut import cut
from tiny import CONFIG, FULL, GRID, PER_LAYER, random_batch, random_params, run

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")


def test_every_name_has_a_backend() -> None:
    assert get_args(BackendName) == tuple(BACKENDS)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_backend_answers_as_the_network_does(name: BackendName, dtype: Dtype) -> None:
    params = jax.device_get(random_params(CONFIG))
    batch = random_batch(CONFIG)
    inputs = Inputs(batch.input_ids, batch.attention_mask, batch.token_type_ids)
    for sub in GRID:
        logits = BACKENDS[name](CONFIG, params, sub, dtype)(inputs).run(inputs)
        assert type(logits) is np.ndarray  # on the host: there is nothing left to wait for
        expected = run(CONFIG, params, batch, sub, dtype).logits
        np.testing.assert_allclose(logits, expected, rtol=0.0, atol=1e-5 if dtype == "float32" else 0.02)


def test_a_program_is_of_the_shape_of_its_inputs() -> None:
    make = BACKENDS["jax"](CONFIG, random_params(CONFIG), FULL, "float32")
    shapes = {
        (batch, length): make(Inputs(*[np.ones((batch, length), np.int32)] * 3)) for batch, length in ((1, 5), (3, 9))
    }
    for (batch, length), program in shapes.items():
        assert program.run(Inputs(*[np.ones((batch, length), np.int32)] * 3)).shape == (batch, CONFIG.num_labels)
    with pytest.raises(TypeError):
        shapes[1, 5].run(Inputs(*[np.ones((3, 5), np.int32)] * 3))


def test_memory_holds_the_weights_of_the_cut_alone() -> None:
    params = random_params(CONFIG)
    inputs = Inputs(*[np.ones((1, 5), np.int32)] * 3)
    needed = {}
    for sub in (FULL, PER_LAYER):
        memory = BACKENDS["jax"](CONFIG, params, sub, "float32")(inputs).memory_bytes
        weights = sum(leaf.nbytes for leaf in jax.tree.leaves(cut(CONFIG, params, sub).params))
        assert memory is not None
        assert memory >= weights
        needed[sub] = memory
    assert needed[PER_LAYER] < needed[FULL]
