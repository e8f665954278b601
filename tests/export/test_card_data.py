"""The model card as the hub reads it: `huggingface_hub`'s own reader is what it is tried on."""

import dataclasses
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from dynabert_jax.config import DataConfig, Task
from dynabert_jax.config.tasks import task
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.export.card_data import Terms, front_matter, hub_data, terms_of
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import export_run
from dynabert_jax.runs.finished import read_finished
from tiny_run import Finished

HALF = "w1_d0.5"


def test_the_hub_reads_the_card(finished: Finished, tmp_path: Path) -> None:
    export_run(finished.folder, "hf", tmp_path / "out", subs=[HALF], license="mit", languages=["en", "deu"])
    card = ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data
    assert (data.license, data.language, data.library_name) == ("mit", ["en", "deu"], "transformers")
    assert (data.pipeline_tag, data.metrics) == ("text-classification", ["accuracy"])
    assert {"dynabert", "bert"} <= set(data.tags)
    assert data.base_model is None  # a folder is no name on the hub
    assert data.datasets is None
    assert data.model_name == f"words {HALF}"
    rows = {row.split: row for row in read_finished(finished.folder).rows if row.sub == HALF}
    found = {result.dataset_split: result for result in data.eval_results}
    assert set(found) == {"dev", "test"}
    for split, result in found.items():
        assert (result.task_type, result.metric_type, result.dataset_name) == (
            "text-classification", "accuracy", "words",
        )  # fmt: skip
        assert result.metric_value == rows[split].scores["accuracy"]
    text = card.text
    assert "- license: mit, as given with --license" in text
    assert "It gives one of bad, good for texts like those of the task words" in text
    assert "It reads at most 12 tokens of a text" in text


def test_a_card_of_several_sizes_tells_them_apart(finished: Finished) -> None:
    run = read_finished(finished.folder)
    text = front_matter(run, ["w1_d1", HALF], "jax", Terms())
    content = ModelCard(f"{text}\n").data.to_dict()
    assert "license" not in content
    assert text.count("name: words w1_d1\n") == text.count(f"name: words {HALF}\n") == 1


def test_names_are_the_hubs(finished: Finished) -> None:
    """A name on the hub is linked; a metric in the user's unit is as it is."""
    run = read_finished(finished.folder)
    scores = {"pearson": 0.5, "spearman": 0.25, "mean_absolute_error": 12.5}
    values = run.rows[0].model_dump() | {"metric": "pearson", "scores": scores}
    data = run.config.data.replace(task=task("stsb"), train_file=None, dev_file=None, test_file=None)
    config = run.config.replace(model="org/some-model", data=data)
    other = dataclasses.replace(run, config=config, rows=(Row(**values),))
    card = ModelCard(front_matter(other, [run.rows[0].sub], "onnx", Terms("other", "mine", "https://a.b", "x")) + "\n")
    assert card.data.base_model == "org/some-model"
    assert card.data.datasets == ["nyu-mll/glue"]
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "mine", "https://a.b")
    assert card.data.metrics == ["pearsonr", "spearmanr", "mae"]
    found = {result.metric_type: (result.dataset_type, result.dataset_config) for result in card.data.eval_results}
    assert found == dict.fromkeys(card.data.metrics, ("nyu-mll/glue", "stsb"))
    assert [result.metric_value for result in card.data.eval_results] == [0.5, 0.25, 12.5]


def test_data_of_files_is_not_the_hubs() -> None:
    assert hub_data(DataConfig(task=task("sst2"))) == ("nyu-mll/glue", "sst2")
    assert hub_data(DataConfig(task=task("sst2"), train_file="train.csv")) is None
    assert hub_data(DataConfig(task=Task(name="x", text_columns=("text",)), hub="me/data")) == ("me/data", None)


def test_the_licence_is_that_of_the_pretrained_model_or_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert terms_of(str(tmp_path), None, ()) == Terms()
    assert "is not known, so the model card has none; give it with --license" in caplog.text
    assert str(Terms()).startswith("not known")
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\nlanguage: fr\n---\n# A model\n")
    found = terms_of(str(tmp_path), None, ["de"])
    assert found == Terms("cc-by-4.0", origin="that of the pretrained model", languages=("de",))
    assert str(found) == "cc-by-4.0, that of the pretrained model"
    assert terms_of(str(tmp_path), "mit", ()).license == "mit"
    for content in ("---\nlicense: [a\n---\n", "---\nlicense: 3\n---\n", "no front matter", "---\n- a\n---\n"):
        (tmp_path / "README.md").write_text(content)
        assert terms_of(str(tmp_path), None, ()).license == ""
    assert terms_of("org/a-model-that-is-not-here", None, ()) == Terms()


@pytest.mark.parametrize(
    ("license", "languages", "message"),
    [
        ("Apache 2.0", (), "by the hub's name of it, such as apache-2.0, mit or other; got 'Apache 2.0'"),
        (None, ("english",), "a code of ISO 639 such as en or deu, or multilingual; got 'english'"),
        (None, "en", "must be a list of codes"),
    ],
)
def test_a_name_that_the_hub_does_not_know_is_refused(
    license: str | None, languages: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        terms_of(str(tmp_path), license, languages)


@pytest.mark.network
def test_the_sample_model_says_its_licence() -> None:
    assert terms_of("sample:minilm", None, ()).license == "apache-2.0"
