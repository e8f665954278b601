"""Our training step against PyTorch's, at MiniLM's size:

python -m benchmarks.train_step
"""

from collections.abc import Callable

import jax
import tyro

from benchmarks import harness, torch_bert
from dynabert_jax import stages, weights
from dynabert_jax.batches import Batch
from dynabert_jax.bert import Bert
from dynabert_jax.config import Dtype, FineTune, ModelConfig

BASE = "torch fp32"
TARGETS = {"ours fp32": 1.5, "ours bf16": 0.8}
TOTAL_STEPS = 10_000  # of the schedule; more than are run


def main(settings: harness.Settings) -> None:
    """Times whole fine-tuning steps: forward with dropout, loss, backward, clip, AdamW."""
    harness.share_the_accelerator()
    config = harness.minilm()
    params, batch = weights.init_params(config, seed=0), harness.random_batch(config, settings)
    cases = {
        BASE: torch_bert.train_step(config, params, batch, "fp32"),
        "torch bf16 autocast": torch_bert.train_step(config, params, batch, "bf16 autocast"),
        "ours fp32": ours(config, params, batch, "float32"),
        "ours bf16": ours(config, params, batch, "bfloat16"),
    }
    seconds = harness.measure(cases, settings.rounds)
    tables = {"Training step": harness.comparison(seconds, BASE, TARGETS)}
    harness.publish("train_step", settings, tables, seconds, harness.machine() | torch_bert.describe())


def ours(config: ModelConfig, params: weights.Params, batch: Batch, dtype: Dtype) -> Callable[[], None]:
    """What the fine-tuning stage runs for a batch."""
    objective = stages.fine_tune(config, FineTune())
    programs = stages.Programs(Bert(config, dtype))
    update = stages.make_update(objective, TOTAL_STEPS)
    state = stages.init_state(objective, params, TOTAL_STEPS)
    key = jax.random.key(0)

    def run() -> None:
        nonlocal state, key
        key, own = jax.random.split(key)
        state, _ = stages.train_step(programs, update, objective, state, None, batch, own)
        jax.block_until_ready(state)

    return run


if __name__ == "__main__":
    main(tyro.cli(harness.Settings, description=__doc__))
