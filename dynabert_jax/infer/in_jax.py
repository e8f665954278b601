"""A whole (cut) model in jax: the one compiled forward pass, for scoring, predicting, timing and verifying.

Letters in shapes: B texts in a batch, S tokens, H hidden size, C labels.
"""

import functools
from collections.abc import Sequence

import jax

from dynabert_jax.config.checked import Dtype
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Array, Inputs
from dynabert_jax.infer.runner import Answers, Runner
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.matmul import rounded_kernels
from dynabert_jax.model.microbatch import in_microbatches
from dynabert_jax.model.params import Model, Params
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices


def open_model(
    model: Model, dtype: Dtype = "float32", *, on: Sequence[jax.Device] | None = None, with_hidden: bool = False
) -> Runner:
    """Puts the model on its devices. Each shape of inputs is compiled when it is first run.

    Args:
        model: run as a whole; for a sub-network, cut it out first.
        dtype: of the matmuls.
        on: devices of this host that share a batch; None: all.
        with_hidden: whether answers include the last hidden state.
    """
    on = devices.local() if on is None else on
    params = devices.replicate(rounded_kernels(model.params, dtype), on)
    program = forward_program(model.config, dtype, with_hidden)

    def answer(inputs: Inputs) -> Answers:
        outputs = program(params, devices.shard_rows(inputs, on))
        logits, last_hidden = outputs if with_hidden else (outputs, None)
        return Answers(logits, Work.dense(model.config.num_layers, *inputs.shape), last_hidden)

    def memory_bytes(inputs: Inputs) -> int | None:
        return planned(program.lower(params, devices.shard_rows(inputs, on)).compile())

    return Runner(f"jax {jax.__version__} ({on[0].platform})", answer, len(on), memory_bytes)


@functools.lru_cache(maxsize=256)
def forward_program(config: ModelConfig, dtype: Dtype, with_hidden: bool = False) -> jax.stages.Wrapped:
    """Parameters and `Inputs` `[B, S]` to logits `[B, C]` or, with the last hidden state, a pair of both.

    It runs on the devices that its arrays are on. A CPU splits the batch into microbatches (`model.microbatch`).
    """
    network, full = Bert(config, dtype), SubNetwork.full(config)

    def forward(params: Params, inputs: Inputs) -> jax.Array | tuple[jax.Array, jax.Array]:
        def run(*part: Array) -> jax.Array | tuple[jax.Array, jax.Array]:
            outputs = network.apply({"params": params}, *part, full)
            return (outputs.logits, outputs.hidden_states[-1]) if with_hidden else outputs.logits

        return in_microbatches(run, *inputs)

    return jax.jit(forward)


def planned(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of a compiled program's arguments (weights included), results and temporaries, as its compiler planned.

    A device's own peak covers everything that the process ever held and cannot be reset, so it cannot measure one size.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return None
    return stats.argument_size_in_bytes + stats.output_size_in_bytes + stats.temp_size_in_bytes
