"""The ONNX graph answers in ONNX Runtime as the sub-network does here, and is of the shape that its optimizer knows."""

import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynabert_jax.config import ModelConfig
from dynabert_jax.export import onnx_file
from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer.in_onnxruntime import FLOAT, open_file
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, FULL, PER_LAYER, ROBERTA, random_batch
from tiny_export import KINDS, assert_answers, source_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("config", "sub"), KINDS.values(), ids=KINDS)
def test_onnx_runtime_answers_the_same(config: ModelConfig, sub: SubNetwork, tmp_path: Path) -> None:
    source = source_of(config, sub)
    onnx_file.write(source, tmp_path)
    runner = open_file(tmp_path / FLOAT, len(sub.layers))
    assert runner.by.startswith("ONNX Runtime ")
    assert_answers(source, lambda _: runner)


def test_the_file_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    onnx_file.write(source_of(CONFIG, PER_LAYER), tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    (version,) = model.opset_import
    assert (version.domain, version.version, model.ir_version) == ("", 17, 8)
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    tokens = (onnx.TensorProto.INT64, ["batch", "length"])
    assert shapes == {
        "input_ids": tokens,
        "attention_mask": tokens,
        "token_type_ids": tokens,
        "logits": (onnx.TensorProto.FLOAT, ["batch", 3]),
    }
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == {"0": "no", "1": "maybe", "2": "yes"}


def optimized(path: Path) -> Any:
    """What ONNX Runtime's optimizer for transformers makes of it. Its modules warn when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxruntime.transformers import optimizer
    return optimizer.optimize_model(str(path), model_type="bert", opt_level=0)


@pytest.mark.parametrize(("config", "sub"), [(CONFIG, FULL), (CONFIG, PER_LAYER), (ROBERTA, FULL)])
def test_the_optimizer_fuses_every_layer(config: ModelConfig, sub: SubNetwork, tmp_path: Path) -> None:
    source, layers = source_of(config, sub), len(sub.layers)
    onnx_file.write(source, tmp_path)
    model = optimized(tmp_path / "model.onnx")
    kinds = Counter(node.op_type for node in model.model.graph.node)
    # RoBERTa's positions depend on the tokens, so the norm of its embeddings stays alone.
    is_bert = config.model_type == "bert"
    assert kinds["EmbedLayerNormalization"] == is_bert
    assert kinds["Attention"] == layers
    assert kinds["SkipLayerNormalization"] == 2 * layers
    assert kinds["LayerNormalization"] == (not is_bert)
    assert kinds["BiasGelu"] + kinds["Gelu"] == layers
    assert not {"Softmax", "Erf", "Reshape", "Transpose"} & set(kinds)
    model.save_model_to_file(str(tmp_path / "fused.onnx"))
    assert_answers(source, lambda _: open_file(tmp_path / "fused.onnx", layers))


@pytest.mark.parametrize("config", [CONFIG, ROBERTA])
def test_every_product_with_weights_is_quantized(config: ModelConfig, tmp_path: Path) -> None:
    """Six of a layer, the pooler's and the classifier's; the answers stay near."""
    source = source_of(config, PER_LAYER)
    onnx_file.write(source, tmp_path)
    onnx_file.quantize(tmp_path)
    model = onnx.load(tmp_path / "model_int8.onnx")
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["MatMulInteger"] == 6 * len(PER_LAYER.layers) + 2
    assert kinds["MatMul"] == 2 * len(PER_LAYER.layers)  # of activations with each other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.onnx", "model_int8.onnx"]
    batch = random_batch(config)
    runners = [open_file(tmp_path / name, len(PER_LAYER.layers)) for name in ("model.onnx", "model_int8.onnx")]
    exact, near = (runner(batch.inputs).logits for runner in runners)
    assert 0.0 < np.abs(near - exact).max() < 0.1 * np.abs(exact).max()


def test_a_model_that_one_file_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST", 1000)
    with pytest.raises(ExportError, match="do not fit into one ONNX file of at most 2 GiB; export a smaller"):
        onnx_file.write(source_of(CONFIG, FULL), tmp_path)
    assert not any(tmp_path.iterdir())
