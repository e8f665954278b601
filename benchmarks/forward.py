"""Our forward pass against PyTorch's, at MiniLM's size:

python -m benchmarks.forward
"""

from collections.abc import Callable

import numpy as np
import tyro

from benchmarks import harness, torch_bert
from dynabert_jax import parallel, weights
from dynabert_jax.batches import Batch
from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.evaluate import forward_program

BASE = "torch fp32"
TARGETS = {"ours fp32": 1.5, "ours bf16": 0.6}


def main(settings: harness.Settings) -> None:
    """Times forward passes of the full network."""
    harness.share_the_accelerator()
    config = harness.minilm()
    params, batch = weights.init_params(config, seed=0), harness.random_batch(config, settings)
    cases = {
        BASE: torch_bert.forward(config, params, batch, "fp32"),
        "torch bf16 autocast": torch_bert.forward(config, params, batch, "bf16 autocast"),
        "ours fp32": ours(config, params, batch, "float32"),
        "ours bf16": ours(config, params, batch, "bfloat16"),
    }
    expected = cases[BASE]()
    agreement: list[harness.Row] = [
        {"case": name, "largest difference of a logit": f"{np.abs(case() - expected).max():.1e}"}
        for name, case in cases.items()
    ]
    seconds = harness.measure(cases, settings.rounds)
    tables = {
        "Forward pass": harness.comparison(seconds, BASE, TARGETS),
        f"The same answers: against {BASE}": agreement,
    }
    harness.publish("forward", settings, tables, seconds, harness.machine() | torch_bert.describe())


def ours(config: ModelConfig, params: weights.Params, batch: Batch, dtype: Dtype) -> Callable[[], np.ndarray]:
    """What an evaluation runs: from a batch on the host to logits `[B, C]` on the host."""
    program, everywhere = forward_program(config, dtype), parallel.replicate(params)

    def run() -> np.ndarray:
        logits: np.ndarray = parallel.join(program(everywhere, parallel.split(batch)))
        return logits

    return run


if __name__ == "__main__":
    main(tyro.cli(harness.Settings, description=__doc__))
