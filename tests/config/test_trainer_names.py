"""The names of Hugging Face's Trainer: every one points to settings that there are."""

import inspect

import pytest
import transformers

from dynabert_jax.config import ConfigError, DataConfig, Optimizer, RunConfig
from dynabert_jax.config.checked import setting_paths
from dynabert_jax.config.trainer_names import TRAINER_NAMES, flag, trainer_hint

OURS = set(setting_paths(RunConfig))


@pytest.mark.parametrize("name", TRAINER_NAMES)
def test_a_name_points_to_settings_that_there_are(name: str) -> None:
    paths, note = TRAINER_NAMES[name]
    assert set(paths) <= OURS
    assert paths or note


def test_most_are_arguments_of_trainer_and_none_is_ours() -> None:
    """Others are of older versions, or of transformers' example scripts."""
    theirs = set(inspect.signature(transformers.TrainingArguments).parameters)
    assert len(theirs & set(TRAINER_NAMES)) > 20
    assert not OURS & set(TRAINER_NAMES)


def test_a_hint_is_written_for_where_the_name_was_given() -> None:
    assert trainer_hint("max-seq-length", as_flags=True) == (
        "that is a name of Hugging Face's Trainer; here it is --data.lengths (the largest is the one to which texts "
        "are truncated)"
    )
    assert trainer_hint("output_dir") == "that is a name of Hugging Face's Trainer; here it is run_dir of a RunConfig"
    assert trainer_hint("do_train") == "that is a name of Hugging Face's Trainer; leave it out: every run trains"
    assert trainer_hint("seed") == ""
    assert flag("fine_tune.optimizer.b1") == "--fine-tune.optimizer.b1"


def test_a_key_that_is_trainers_or_another_sections_is_pointed_out() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'validation_file'; that is .+; here it is data.dev_file of a Run"
    ):
        DataConfig(validation_file="dev.csv")
    with pytest.raises(ConfigError, match=r"unknown key 'warmup_ratio'; .+fine_tune.optimizer.warmup, width.optimizer"):
        Optimizer(warmup_ratio=0.1)
    with pytest.raises(
        ConfigError, match=r"'weight_decay'; did you mean fine_tune.optimizer.weight_decay or width.opt"
    ):
        RunConfig(weight_decay=0.1)
    with pytest.raises(
        ConfigError, match=r"unknown key 'train_file'; did you mean data.train_file[?] allowed: model, "
    ):
        RunConfig(train_file="train.csv")
