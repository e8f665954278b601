"""The comparison with the authors' code, run on a stand-in for their clone: the plumbing, and that it can fail.

The stand-in is PyTorch, written for this test with the interface that the comparison uses: their classes' names, the
way they load a checkpoint, `width_mult` and `depth_mult` set on every module, and what they return.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynabert_jax.compare import compare
from dynabert_jax.compare.compare import Answers, CompareError, Comparison, Difference, compare_with_reference
from dynabert_jax.config import ModelConfig
from dynabert_jax.data.rows import DataError
from dynabert_jax.errors import UserError
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.files import save_model
from tiny import CONFIG, ROBERTA, random_params

STAND_IN = """
import json, math
from pathlib import Path

import torch
from torch.nn import functional as F


class Config:
    @classmethod
    def from_pretrained(cls, folder):
        config = cls()
        vars(config).update(json.loads(Path(folder, "config.json").read_text()))
        return config


class Model(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, folder, config, output_loading_info):
        model = cls()
        model.config, model.tensors = config, torch.load(Path(folder, "pytorch_model.bin"))
        return model, {"missing_keys": [f"{cls.base}.pooler.missing"] * MISSING, "unexpected_keys": []}

    def linear(self, x, name, inputs=None, outputs=None):
        return F.linear(x, self.tensors[name + ".weight"][:outputs, :inputs], self.tensors[name + ".bias"][:outputs])

    def norm(self, x, name):
        weight, bias = self.tensors[name + ".LayerNorm.weight"], self.tensors[name + ".LayerNorm.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, self.config.layer_norm_eps)

    def embed(self, input_ids, token_type_ids):
        name = self.base + ".embeddings"
        positions = self.tensors[name + ".position_embeddings.weight"][self.first_position:][: input_ids.shape[1]]
        words = F.embedding(input_ids, self.tensors[name + ".word_embeddings.weight"])
        types = F.embedding(token_type_ids, self.tensors[name + ".token_type_embeddings.weight"])
        return self.norm(words + positions + types, name)

    def layer(self, x, mask, name):
        heads = self.config.num_attention_heads
        size = self.config.hidden_size // heads
        kept = round(heads * self.width_mult)
        neurons = max(1, int(kept / heads * self.config.intermediate_size))

        def split(part):
            flat = self.linear(x, f"{name}.attention.self.{part}", outputs=kept * size)
            return flat.unflatten(-1, (kept, size)).transpose(1, 2)

        scores = split("query") @ split("key").transpose(-1, -2) / math.sqrt(size) + mask
        context = (scores.softmax(-1) @ split("value")).transpose(1, 2).flatten(2)
        x = self.norm(x + self.linear(context, name + ".attention.output.dense", inputs=kept * size),
                      name + ".attention.output")
        up = F.gelu(self.linear(x, name + ".intermediate.dense", outputs=neurons))
        return self.norm(x + self.linear(up, name + ".output.dense", inputs=neurons), name + ".output")

    def forward(self, input_ids, attention_mask, token_type_ids):
        assert self.config.output_hidden_states and self.config.output_attentions and self.config.output_intermediate
        mask = (1.0 - attention_mask[:, None, None].float()) * -10000.0
        states = [self.embed(input_ids, token_type_ids)]
        for i in range(round(self.config.num_hidden_layers * self.depth_mult)):
            layer = math.floor(i / self.depth_mult)
            states.append(self.layer(states[-1], mask, f"{self.base}.encoder.layer.{layer}"))
        pooled = torch.tanh(self.linear(states[-1][:, 0], self.pooler))
        logits = self.linear(pooled, self.classifier)
        assert logits.shape[1] == self.config.num_labels
        return logits, tuple(states), "attentions", "intermediate"


MISSING = False


class BertForSequenceClassification(Model):
    base, pooler, classifier, first_position = "bert", "bert.pooler.dense", "classifier", 0


class RobertaForSequenceClassification(Model):
    base, pooler, classifier, first_position = "roberta", "classifier.dense", "classifier.out_proj", 2


BertConfig = RobertaConfig = Config
"""

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "the", "plot", "story", ",", ".", "?")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A DynaBERT folder that computes the right thing."""
    return make_clone(tmp_path, STAND_IN)


def make_clone(where: Path, source: str) -> Path:
    package = where / "Pretrained-Language-Model" / "DynaBERT" / "transformers"
    package.mkdir(parents=True)
    (package / "modeling_bert.py").write_text(source)
    (package / "__init__.py").write_text("from .modeling_bert import *\n")
    return package.parent


def make_checkpoint(folder: Path, config: ModelConfig = CONFIG) -> Path:
    """A random model in Hugging Face's format; a BERT has a tokenizer."""
    save_model(folder, config, random_params(config))
    if config.model_type == "bert":
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


def test_the_right_answers_agree(clone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = make_checkpoint(tmp_path / "model")
    comparison = compare_with_reference(str(checkpoint), clone)
    differences = comparison.differences
    assert len({(d.sub.width, d.sub.depth) for d in differences}) == 12
    assert max(d.logits for d in differences) < 1e-5
    assert max(d.last_hidden for d in differences) < 1e-5
    assert capsys.readouterr().out == ""
    assert all(f"| {d.sub.name} |" in str(comparison) for d in differences)
    assert "all 12 sub-networks agree" in str(comparison)
    values = json.loads(comparison.to_json())
    assert values["agree"]
    assert [one["sub"] for one in values["differences"]] == [d.sub.name for d in differences]


def test_roberta_with_one_output(clone: Path, tmp_path: Path) -> None:
    """RoBERTa's unused pooler, which only the authors' class has, is no missing weight."""
    source = clone / "transformers" / "modeling_bert.py"
    source.write_text(source.read_text().replace("MISSING = False", "MISSING = True"))
    checkpoint = make_checkpoint(tmp_path / "model", ROBERTA.replace(labels=("score",), head="regression"))
    differences = compare_with_reference(str(checkpoint), clone).differences
    assert max(max(d.logits, d.last_hidden) for d in differences) < 1e-5


def test_another_choice_of_layers_is_found(tmp_path: Path) -> None:
    clone = make_clone(tmp_path, STAND_IN.replace("math.floor(i / self.depth_mult)", "i"))
    with pytest.raises(CompareError, match="4 of 12 sub-networks differ") as error:
        compare_with_reference(str(make_checkpoint(tmp_path / "model")), clone)
    assert re.findall(r"w[\d.]+_d[\d.]+", str(error.value)) == ["w1_d0.5", "w0.75_d0.5", "w0.5_d0.5", "w0.25_d0.5"]


def test_not_a_number_is_a_difference() -> None:
    sub = SubNetwork((0,), (1,), (1,), 1.0, 1.0)
    with pytest.raises(CompareError, match="1 of 2 sub-networks differ"):
        Comparison("model", (Difference(sub, 0.0, 0.0), Difference(sub, math.nan, 0.0))).check()


def test_padding_is_left_out_and_nothing_else() -> None:
    sub = SubNetwork((0,), (1,), (1,), 1.0, 1.0)
    real = np.array([[True, True, False]])
    ours = Answers(np.zeros((1, 1, 2)), np.zeros((1, 1, 3, 4)))  # one sub-network, one row of three tokens
    theirs = Answers(np.array([[[0.0, -0.5]]]), np.array([0.0, 0.25, 9.0]).reshape(1, 1, 3, 1).repeat(4, -1))
    assert compare.compare([sub], ours, theirs, real) == (Difference(sub, 0.5, 0.25),)


def test_answers_of_another_shape() -> None:
    ours = Answers(np.zeros((1, 1, 3)), np.zeros((1, 1, 3, 4)))
    with pytest.raises(CompareError, match=r"logits of the authors' code has shape \(1, 1, 2\) instead of \(1, 1, 3\)"):
        compare.compare([], ours, Answers(np.zeros((1, 1, 2)), ours.last_hidden), np.ones((1, 3), bool))


def test_weights_that_the_reference_lacks(tmp_path: Path) -> None:
    """Its own loading only logs them; for BERT the pooler is used, so its absence must not pass."""
    clone = make_clone(tmp_path, STAND_IN.replace("MISSING = False", "MISSING = True"))
    with pytest.raises(CompareError, match=r"the weights do not fit: missing \['bert\.pooler\.missing'\]"):
        compare_with_reference(str(make_checkpoint(tmp_path / "model")), clone)


def test_the_childs_last_words_are_shown(tmp_path: Path) -> None:
    clone = make_clone(tmp_path, STAND_IN + "raise RuntimeError('no such luck')\n")
    with pytest.raises(CompareError, match=r"failed:\n(?s:.*)RuntimeError: no such luck"):
        compare_with_reference(str(make_checkpoint(tmp_path / "model")), clone)


def test_a_package_that_the_reference_needs(tmp_path: Path) -> None:
    clone = make_clone(tmp_path, STAND_IN + "import a_package_of_2019.utils\n")
    with pytest.raises(CompareError, match="-m pip install a_package_of_2019 boto3 regex requests six tqdm`"):
        compare_with_reference(str(make_checkpoint(tmp_path / "model")), clone)


def test_a_folder_that_is_no_clone(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=r"no .*nowhere/transformers/modeling_bert\.py; name the DynaBERT folder"):
        compare_with_reference("any", tmp_path / "nowhere")
    with pytest.raises(CompareError, match=rf"name {clone}$"):
        compare_with_reference("any", clone.parent)
    (clone / "transformers" / "modeling_bert.py").write_text("class BertForSequenceClassification: ...")
    with pytest.raises(CompareError, match="has no width_mult"):
        compare_with_reference("any", clone)


def test_without_torch(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CompareError, match="-m pip install torch`"):
        compare_with_reference("any", clone)


def test_models_that_the_reference_cannot_run(clone: Path, tmp_path: Path) -> None:
    cut = make_checkpoint(tmp_path / "cut", CONFIG.replace(heads=(1, 4, 2)))
    with pytest.raises(CompareError, match="is a cut model"):
        compare_with_reference(str(cut), clone)
    small = make_checkpoint(tmp_path / "small", CONFIG.replace(head_size=6, heads=(2, 2, 2)))
    with pytest.raises(CompareError, match=r"too small for the paper's grid: width 0\.25 keeps none"):
        compare_with_reference(str(small), clone)


def test_the_command_line_knows_the_error() -> None:
    assert issubclass(CompareError, UserError)


def test_the_batch_has_padding_and_sentences(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "model")
    inputs: Any = compare.make_inputs(CONFIG, checkpoint)
    random: Any = compare.make_inputs(CONFIG, tmp_path)  # where there is no tokenizer
    assert {array.shape for array in inputs} == {(7, 16)}
    np.testing.assert_array_equal(inputs.attention_mask.sum(1)[:5], [16, 8, 5, 1, 16])
    np.testing.assert_array_equal(inputs.input_ids[:4], random.input_ids)  # the same in every call
    assert inputs.token_type_ids[5].max() == 1  # a pair of sentences
    assert (inputs.input_ids[inputs.attention_mask == 0] == CONFIG.pad_token_id).all()


def test_a_damaged_tokenizer_is_not_taken_for_none(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "model")
    (checkpoint / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json: the tokenizer cannot be read"):
        compare.make_inputs(CONFIG, checkpoint)
