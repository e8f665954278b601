"""The other side of the benchmarks: the same model in PyTorch, from transformers."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from dynabert_jax.config import ModelConfig
from dynabert_jax.data.batches import Batch
from dynabert_jax.export.hugging_face import exact_config
from dynabert_jax.export.modeling_dynabert import DynaBertConfig, DynaBertForSequenceClassification
from dynabert_jax.model.params import Params
from dynabert_jax.system.devices import threads
from dynabert_jax.weights.names import to_torch_names

Precision = Literal["fp32", "bf16"]  # of weights and activations
Attention = Literal["eager", "sdpa"]  # separate matmuls, or PyTorch's fused kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_model(config: ModelConfig, params: Params, attention: Attention = "eager") -> Any:
    """BertForSequenceClassification with these parameters, in the exact shapes of a cut model."""
    torch.set_num_threads(threads())
    shape = DynaBertConfig.from_dict(exact_config(config))
    shape._attn_implementation = attention
    model: Any = DynaBertForSequenceClassification(shape)
    tensors = to_torch_names(config, params)
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    return model.to(DEVICE)


def forward(
    config: ModelConfig, params: Params, batch: Batch, precision: Precision, attention: Attention = "eager", *,
    compiled: bool = False,
) -> Callable[[], np.ndarray]:  # fmt: skip
    """From a batch on the host to logits `[B, C]` on the host; eager, or with `torch.compile` for this exact shape."""
    model = make_model(config, params, attention).eval()
    model = model.to(torch.bfloat16) if precision == "bf16" else model
    model = compile_alone(model, freezing=True) if compiled else model

    def run() -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = model(**to_device(batch)).logits.float().cpu().numpy()
        return logits

    return run


def compile_alone(function: Any, *, freezing: bool = False) -> Any:
    """`torch.compile` for exact shapes. It fails at its limit of programs instead of running eagerly.

    Args:
        freezing: treat weights as constants and lay them out for the matmuls beforehand; only for inference.
    """
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False, options={"freezing": freezing})


def to_device(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(a)).long().to(DEVICE) for name, a in batch.inputs._asdict().items()}


def describe() -> dict[str, str]:
    """The device and settings that PyTorch runs with."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "torch device": name,
        "torch threads": str(torch.get_num_threads()),
        "float32 products in torch": torch.get_float32_matmul_precision(),
    }
