"""What is written for transformers answers there, in its own PyTorch models, as the sub-network does here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dynabert_jax.config import ModelConfig
from dynabert_jax.export import hugging_face
from dynabert_jax.export.errors import ExportError
from dynabert_jax.infer.in_transformers import open_folder, open_in_own
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.names import parameters
from tiny import CONFIG, PER_LAYER
from tiny_export import FEW_KINDS, KINDS, assert_answers, source_of

pytest.importorskip("torch")

kinds = pytest.mark.parametrize(("config", "sub"), KINDS.values(), ids=KINDS)


@kinds
def test_the_stock_class_answers_the_same(config: ModelConfig, sub: SubNetwork, tmp_path: Path) -> None:
    source = source_of(config, sub)
    hugging_face.write_padded(source, tmp_path)
    runner = open_folder(tmp_path)
    kind = {"bert": "Bert", "roberta": "Roberta"}[config.model_type]
    assert runner.by.startswith(f"{kind}ForSequenceClassification of transformers ")
    assert_answers(source, lambda _: runner)


@kinds
def test_the_exact_class_answers_the_same(config: ModelConfig, sub: SubNetwork, tmp_path: Path) -> None:
    source, folder = source_of(config, sub), tmp_path / "exact"
    hugging_face.write_exact(source, folder)
    runner = open_folder(folder, trust_remote_code=True)
    kind = {"bert": "DynaBert", "roberta": "DynaRoberta"}[config.model_type]
    assert runner.by.startswith(f"{kind}ForSequenceClassification of transformers ")
    assert_answers(source, lambda _: runner)


def test_the_stock_class_keeps_what_it_can(tmp_path: Path) -> None:
    """Layers that are gone stay gone, and neurons are as many as the widest layer's."""
    hugging_face.write_padded(source_of(CONFIG, PER_LAYER), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_hidden_layers"], config["intermediate_size"], config["num_attention_heads"]) == (2, 17, 4)
    assert config["id2label"] == {"0": "no", "1": "maybe", "2": "yes"}
    assert "dynabert" not in config
    tensors = load_file(tmp_path / "model.safetensors")
    query = tensors["bert.encoder.layer.1.attention.self.query.weight"]  # [heads * head size, hidden]
    assert query[:3].all()
    assert not query[3:].any()


def test_the_exact_class_has_no_more_than_the_sub_network(tmp_path: Path) -> None:
    source = source_of(CONFIG, PER_LAYER)
    hugging_face.write_exact(source, tmp_path)
    shapes = {name: tensor.shape for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert shapes == {p.name: p.torch_shape for p in parameters(source.only.config)}


@pytest.mark.parametrize("kind", FEW_KINDS)
def test_what_was_written_can_be_read_back(kind: str, tmp_path: Path) -> None:
    """Where there is no PyTorch, this is how both are verified."""
    source = source_of(*KINDS[kind])
    for name, write in {"padded": hugging_face.write_padded, "exact": hugging_face.write_exact}.items():
        write(source, tmp_path / name)
        runner = open_in_own(tmp_path / name)
        assert_answers(source, lambda _, runner=runner: runner)


def test_without_torch_it_is_reported_who_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(CONFIG, PER_LAYER)
    hugging_face.write_padded(source, tmp_path)
    monkeypatch.setattr("dynabert_jax.infer.in_transformers.is_installed", lambda _: False)
    assert "PyTorch is not installed here, so transformers was not used" in open_folder(tmp_path).by


def test_the_exact_class_is_not_loaded_unasked(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "exact"
    hugging_face.write_exact(source_of(CONFIG, PER_LAYER), folder)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)


def test_the_exact_class_is_saved_and_loaded_again(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    source, folder = source_of(CONFIG, PER_LAYER), tmp_path / "exact"
    hugging_face.write_exact(source, folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(tmp_path / "again")
    assert_answers(source, lambda _: open_folder(tmp_path / "again", trust_remote_code=True))


def test_heads_that_the_stock_class_cannot_have() -> None:
    config = CONFIG.replace(head_size=5)
    with pytest.raises(ExportError, match=r"heads of size 5, 4 in a layer, do not fit .+ use --format hf-exact"):
        hugging_face.uniform(config)


def test_padding_is_zeros_behind_what_was_there() -> None:
    array = np.arange(1.0, 5.0, dtype=np.float32).reshape(2, 2)
    grown = hugging_face._grown(array, (3, 4))
    np.testing.assert_array_equal(grown, [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0]])
