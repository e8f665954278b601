"""What exports are tried on: tiny random models of every kind, and the answers that `bert.py` gives for them."""

from collections.abc import Callable

import numpy as np

from dynabert_jax.config import ModelConfig
from dynabert_jax.config.unit import Unit
from dynabert_jax.cost import Work
from dynabert_jax.infer.runner import Runner, Source
from dynabert_jax.model.params import Model
from dynabert_jax.model.unit import in_unit
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, FULL, GRID, PER_LAYER, ROBERTA, random_batch, random_params, run

TOLERANCE = 1e-5  # of tiny models, whose sums are short

REGRESSION = CONFIG.replace(labels=("price",), head="regression", unit=Unit(mean=57_000.0, deviation=21_000.0))
CUT = CONFIG.replace(heads=(2, 1, 4), neurons=(9, 20, 1))  # itself cut out of another
KINDS: dict[str, tuple[ModelConfig, SubNetwork]] = {
    **{f"bert-{sub.name}": (CONFIG, sub) for sub in GRID},
    "roberta": (ROBERTA, FULL),
    "roberta-per-layer": (ROBERTA, PER_LAYER),
    "regression": (REGRESSION, GRID[1]),
    "cut": (CUT, SubNetwork.full(CUT)),
    "cut-again": (CUT, SubNetwork((0, 2), (1, 3), (9, 1))),
}
# What differs in how the arrays are read; the others differ in their sizes alone.
FEW_KINDS = ("bert-l0h3n5_l2h1n17", "roberta", "cut-again")


def source_of(config: ModelConfig, *subs: SubNetwork) -> Source:
    return Source(Model(config, in_unit(random_params(config), config.unit)), subs)


def assert_answers(source: Source, open_written: Callable[[SubNetwork], Runner]) -> None:
    """What was written says what `bert.py` says, to batches of several sizes and lengths."""
    config, params = source.model.config, source.model.params
    runners = {sub: open_written(sub) for sub in source.subs}
    for rows, length in ((4, 7), (1, 3)):
        batch = random_batch(config, rows, length)
        for sub, runner in runners.items():
            wanted = np.asarray(run(config, params, batch, sub).logits)
            answers = runner(batch.inputs)
            assert answers.work == Work.dense(len(sub.layers), rows, length)
            answer = np.asarray(answers.logits)
            assert answer.shape == wanted.shape
            tolerance = config.unit.tolerance(TOLERANCE)
            np.testing.assert_allclose(answer, wanted, rtol=0, atol=tolerance, err_msg=f"{sub.name} {rows}x{length}")
