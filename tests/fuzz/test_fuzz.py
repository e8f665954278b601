"""What damage is done to can be read before, and damage is reported: a short form of `python -m tests.fuzz`."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from dynabert_jax.cli.train import read_config
from dynabert_jax.config import DataConfig
from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.data.rows import open_rows
from dynabert_jax.data.texts import read_texts
from dynabert_jax.data.tokenizer import load_tokenizer, tokenize
from dynabert_jax.report.facts import facts
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.latency_card import Where, latencies, read_card
from dynabert_jax.weights.files import load_model
from tiny_run import assert_equal_trees

from . import sound
from .campaign import outcomes
from .readers import READERS, TASKS

INPUTS = 25  # a reader


@pytest.mark.parametrize("reader", READERS)
def test_bad_input_is_read_or_refused_in_words(reader: str) -> None:
    failures = [outcome for outcome in outcomes(0, range(INPUTS), reader) if outcome.verdict == "failed"]
    shown = "\n".join(f"python -m tests.fuzz --reader {f.reader} --only {f.number}\n{f.said}" for f in failures)
    assert not failures, shown


def test_an_input_is_the_same_each_time() -> None:
    assert list(outcomes(3, range(20), "configuration_json")) == list(outcomes(3, range(20), "configuration_json"))


# What would make of every damage a refusal that says nothing: files that could not be read in the first place


def test_configurations_are_sound(tmp_path: Path) -> None:
    sound.write(tmp_path, {"config.py": sound.CONFIG_FILE})
    read_config(tmp_path / "config.py")
    assert CompleteRun.from_json(sound.run_config().to_json()) == sound.run_config()


@pytest.mark.parametrize("name", sound.tables())
def test_tables_are_sound(name: str, tmp_path: Path) -> None:
    sound.write(tmp_path, sound.tables())
    for task in TASKS[:2]:
        assert len(read_texts(DataConfig(task=task, train_file=str(tmp_path / name))).train.texts) == 10
    assert len(list(open_rows(tmp_path / name))) == len(sound.ROWS)


@pytest.mark.parametrize("name", ["model.safetensors", "zip", "legacy"])
def test_weights_are_sound(name: str, tmp_path: Path) -> None:
    file = name if name == "model.safetensors" else "pytorch_model.bin"
    sound.write(tmp_path, {"config.json": sound.model()["config.json"], file: sound.model()[name]})
    sound.write(tmp_path / "safe", sound.model_folder())
    assert_equal_trees(load_model(tmp_path).params, load_model(tmp_path / "safe").params)


@pytest.mark.parametrize("files", [sound.tokenizer(), sound.roberta_tokenizer()], ids=["bert", "roberta"])
def test_tokenizers_are_sound(files: Mapping[str, bytes], tmp_path: Path) -> None:
    assert tokenize(load_tokenizer(sound.write(tmp_path, dict(files)), sound.LARGE), [("good",)])


def test_runs_are_sound(tmp_path: Path) -> None:
    sound.write(tmp_path, sound.run())
    sound.write(tmp_path / "model", sound.model_folder())
    run = read_finished(tmp_path)
    assert set(run.subs) == set(sound.SUBS)
    assert len(facts(tmp_path).sizes) == len(sound.SUBS)
    assert len(latencies(read_card(run.card_file, run.fingerprint), Where())) == len(sound.SUBS)
