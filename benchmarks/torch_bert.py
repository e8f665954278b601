"""The other side of the benchmarks: the same model in PyTorch, as transformers has it."""

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

Precision = Literal["fp32", "bf16"]  # of the weights and of all between them
Attention = Literal["eager", "sdpa"]  # one product after the other, or PyTorch's own kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_model(config: ModelConfig, params: Params, attention: Attention = "eager") -> Any:
    """BertForSequenceClassification with these parameters, in exact shapes where it was cut."""
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
    """From a batch on the host to logits `[B, C]` on the host; eager, or by `torch.compile` for just this shape."""
    model = make_model(config, params, attention).eval()
    model = model.to(torch.bfloat16) if precision == "bf16" else model
    model = compile_alone(model, freezing=True) if compiled else model

    def run() -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = model(**to_device(batch)).logits.float().cpu().numpy()
        return logits

    return run


def compile_alone(function: Any, *, freezing: bool = False) -> Any:
    """`torch.compile` for the shapes that come; beyond its limit of programs it fails, rather than running eagerly.

    Args:
        freezing: weights are constants, laid out for the products beforehand; only for what is never trained.
    """
    torch._dynamo.config.recompile_limit = 256
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=False, options={"freezing": freezing})


def to_device(batch: Batch) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(a)).long().to(DEVICE) for name, a in batch.inputs._asdict().items()}


def describe() -> dict[str, str]:
    """What PyTorch runs on."""
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return {
        "torch device": name,
        "torch threads": str(torch.get_num_threads()),
        "float32 products in torch": torch.get_float32_matmul_precision(),
    }
