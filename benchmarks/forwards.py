"""The forward pass of every cut sub-network against PyTorch's and ONNX Runtime's of the same size:

python -m benchmarks.forwards
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Literal

import numpy as np
import tyro
from tqdm import tqdm

from benchmarks import harness, torch_bert
from dynabert_jax import cost
from dynabert_jax.choose.backends import find_backend
from dynabert_jax.choose.bench import answer_on_host
from dynabert_jax.config import DepthStage, Dtype, ModelConfig
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.model.matmul import matmul_rate
from dynabert_jax.model.params import Model, cut_model
from dynabert_jax.subnetwork import SubNetwork, uniform_grid
from dynabert_jax.weights.files import Params
from dynabert_jax.weights.names import init_params

BASE = "torch fp32"
COMPILED = "torch compiled bf16"
DTYPES: dict[str, Dtype] = {"ours fp32": "float32", "ours bf16": "bfloat16"}
BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}  # of a number in a kernel
ON_CPU = {"ours fp32": 1.0, "ours bf16": 1 / 2.5}  # times as long as BASE, at most
ON_GPU = {"ours bf16": 1.0}  # times as long as COMPILED, at most
Case = Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed, and how often."""

    model: Literal["minilm", "bert-base"] = "minilm"
    """the shape of the model; the weights are random"""
    sub: tuple[str, ...] = ()
    """sub-networks, such as w0.5_d0.5; default: all twelve"""
    batch: tuple[int, ...] = (1, 8, 32)
    """sentences per batch"""
    length: tuple[int, ...] = (32, 128)
    """tokens per sentence, none of them padding"""
    compiled: tuple[str, ...] = ("w1_d1", "w0.5_d0.5")
    """sub-networks to also time with torch.compile, which takes half a minute for each of them and each shape"""
    rounds: int = 10
    """how often everything is timed, in turn"""


def main(settings: Settings) -> None:
    """Times each from a batch on the host to logits on the host, without dropout."""
    harness.share_the_accelerator()
    config = harness.MODELS[settings.model]()
    params, subs = init_params(config, seed=0), find_subs(config, settings)
    shapes = [harness.Settings(length, batch) for length in settings.length for batch in settings.batch]
    tables: dict[str, list[harness.Row]] = {}
    seconds: harness.Seconds = {}
    for shape in tqdm(shapes, unit=" shapes", leave=False):
        batch = harness.random_batch(config, shape.batch, shape.length)
        title = f"{settings.model}, {shape.batch} x {shape.length} tokens"
        tables[title] = []
        for sub in subs:
            cases = make_cases(config, params, sub, batch, sub.name in settings.compiled)
            expected = cases[BASE]()
            errors = {case: float(np.abs(run() - expected).max()) for case, run in cases.items()}
            found = harness.measure(cases, settings.rounds, harness.BUSY)
            tables[title].append(row(config, sub, shape, found, errors))
            seconds |= {f"{title}, {sub.name}, {case}": times for case, times in found.items()}
    about = harness.machine() | torch_bert.describe() | harness.product_rates()
    harness.publish(f"forwards_{settings.model}", settings, tables, seconds, about)


def find_subs(config: ModelConfig, settings: Settings) -> list[SubNetwork]:
    """The requested sub-networks, or all twelve."""
    stage = DepthStage()
    there = {sub.name: sub for sub in uniform_grid(config, stage.widths, stage.depths)}
    unknown = {*settings.sub, *settings.compiled} - there.keys()
    if unknown:
        raise SystemExit(f"no sub-network is called {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    return [sub for name, sub in there.items() if not settings.sub or name in settings.sub]


def make_cases(config: ModelConfig, params: Params, sub: SubNetwork, batch: Batch, compiled: bool) -> dict[str, Case]:
    """The functions that run a batch, by name."""
    small = cut_model(config, params, sub)
    cases: dict[str, Case] = {
        BASE: torch_bert.forward(small.config, small.params, batch, "fp32"),
        "torch sdpa bf16": torch_bert.forward(small.config, small.params, batch, "bf16", "sdpa"),
    }
    if compiled:
        cases["torch compiled fp32"] = torch_bert.forward(
            small.config, small.params, batch, "fp32", "sdpa", compiled=True
        )
        cases[COMPILED] = torch_bert.forward(small.config, small.params, batch, "bf16", "sdpa", compiled=True)
    for name, dtype in DTYPES.items():
        cases[name] = case("jax", dtype, small, batch.inputs)
    if torch_bert.DEVICE == "cpu":
        cases["ONNX Runtime fp32"] = case("onnxruntime", "float32", small, batch.inputs)
    return cases


def case(backend: Literal["jax", "onnxruntime"], dtype: Dtype, model: Model, inputs: Inputs) -> Case:
    return functools.partial(answer_on_host, find_backend(backend).opens[dtype](model), inputs)


def row(
    config: ModelConfig, sub: SubNetwork, shape: harness.Settings, seconds: harness.Seconds, errors: dict[str, float]
) -> harness.Row:
    """PyTorch's milliseconds, the ratio of all others to them, and how close ours come to the limit of this device."""
    ratios = {
        case: f"{harness.ratio(seconds[case], seconds[BASE]):.2f}" if case in seconds else ""
        for case in ("torch sdpa bf16", "torch compiled fp32", COMPILED, "ONNX Runtime fp32", *DTYPES)
    }
    used = {
        f"% of the floor, {case}": harness.percent_of_floor(floor(config, sub, shape, dtype), seconds[case])
        for case, dtype in DTYPES.items()
    }
    base = {f"{BASE}, ms": f"{1e3 * statistics.median(seconds[BASE]):.1f}"}
    largest = {f"logits differ, {case}": f"{errors[case]:.0e}" for case in (*DTYPES, "torch sdpa bf16")}
    return {"sub-network": sub.name} | base | ratios | aims(seconds) | used | largest


def aims(seconds: harness.Seconds) -> dict[str, str]:
    """Whether ours meet the project's targets; empty if the other side was not timed."""
    base, limits = (COMPILED, ON_GPU) if torch_bert.DEVICE == "cuda" else (BASE, ON_CPU)
    return {
        f"{case} <= {limit:g} of {base}": harness.verdict(harness.ratio(seconds[case], seconds[base]) <= limit)
        if base in seconds
        else ""
        for case, limit in limits.items()
    }


def floor(config: ModelConfig, sub: SubNetwork, shape: harness.Settings, dtype: Dtype) -> float:
    """The least seconds that this device needs: for the matmuls, or for reading the layers' weights once."""
    products = shape.batch * cost.flops(config, sub, shape.length) / matmul_rate(dtype)
    weights_read = BYTES[dtype] * cost.encoder_parameters(config, sub) / harness.memory_rate()
    return max(products, weights_read)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
