"""What is wrong with a run is said before it trains, and what is doubtful about its labels is reported once."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tiny_run
from dynabert_jax.config import ConfigError, RunConfig
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.batches import make_batch, plan_epoch
from dynabert_jax.data.encode import TaskData, load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.model.microbatch import micro_batches
from dynabert_jax.plan import plan_run
from dynabert_jax.system import devices
from dynabert_jax.train import preflight
from dynabert_jax.train.preflight import understood
from dynabert_jax.train.run import prepare
from dynabert_jax.weights.files import Pretrained, load_model, save_model
from tiny_run import LABELS, MODEL, TASK, Finished, Materials


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The messages, except those of texts that are in two splits: the tiny run's are short."""
    return [message for message in caplog.messages if "are also trained on" not in message]


@pytest.fixture
def config(materials: Materials, tmp_path: Path) -> RunConfig:
    return materials.config(tmp_path)


def check(config: RunConfig) -> None:
    data = load_data(config.data, load_tokenizer(config.model, MODEL))
    pretrained = load_model(config.model, labels=config.data.task.outputs(data.labels))
    preflight.check_settings(config, pretrained)
    preflight.check_space(config, pretrained)
    preflight.check_data(config, pretrained, data)


def test_a_run_that_can_be_made_passes_without_a_word(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    check(config)
    assert said(caplog) == []


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ({"metrics": ("f1",)}, ("fraud", "ok"), "set positive_label to fraud or ok, or use macro_f1"),
        ({"metrics": ("accuracy", "f1")}, ("a", "b", "c"), "the data has 3: a, b, c; use macro_f1"),
        ({"metrics": ("f1",), "positive_label": "frud"}, ("fraud", "ok"), "did you mean 'fraud'.+allowed: fraud, ok"),
    ],
)
def test_f1_of_a_class_that_is_not_named_is_refused(
    task: dict[str, Any], labels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        preflight.check_metrics(Task(name="t", text_columns=("text",), **task), labels)


def test_f1_of_a_class_that_is_named_is_none_of_a_problem() -> None:
    preflight.check_metrics(
        Task(name="t", text_columns=("text",), metrics=("f1",), positive_label="ok"), ("fraud", "ok")
    )
    preflight.check_metrics(Task(name="t", text_columns=("text",), metrics=("macro_f1",)), ("fraud", "ok"))
    preflight.check_metrics(Task(name="t", text_columns=("text",), kind="regression"), ())


def test_a_run_checks_its_metrics(config: RunConfig) -> None:
    task = config.data.task.replace(labels=(), metrics=("f1",))
    with pytest.raises(ConfigError, match="set positive_label to bad or good"):
        prepare(config.replace(data=config.data.replace(task=task)))


@pytest.mark.skipif(devices.num_devices() == 1, reason="every batch divides over one device")
@pytest.mark.parametrize("setting", ["batch_size", "eval_batch_size"])
def test_a_batch_that_does_not_divide_is_refused(config: RunConfig, setting: str) -> None:
    number = devices.num_devices()
    size = 3 * number + 1
    with pytest.raises(ConfigError, match=rf"data\.{setting} {size} does not divide .+ {size - 1} or {4 * number}"):
        check(config.replace(data=config.data.replace(**{setting: size})))


def test_more_tokens_than_positions_are_refused(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"data\.lengths, 32, is more than the model's 24 positions"):
        check(config.replace(data=config.data.replace(lengths=(32,))))


def test_a_width_that_keeps_nothing_of_this_model_is_refused(config: RunConfig) -> None:
    assert config.width is not None
    with pytest.raises(ConfigError, match=r"width 0\.1 keeps none of 4 heads; use more than 0\.125"):
        prepare(config.replace(width=config.width.replace(widths=(0.1,))))


def test_a_teacher_without_a_classifier_is_refused(config: RunConfig) -> None:
    """The folder's classifier is for two classes, the task has three: it would be random, and everybody's teacher."""
    three = TASK.replace(labels=("bad", "good", "neither"))
    config = config.replace(fine_tune=None, data=config.data.replace(task=three))
    with pytest.raises(ConfigError, match=r"fine_tune is None, but .+ has no classifier for the labels"):
        check(config)


def test_a_disk_without_room_is_refused(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(ConfigError, match=r"has 0\.0 MiB free, and the run's checkpoints need up to"):
        check(config)


def test_a_batch_that_is_never_full_is_reported(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    check(config.replace(data=config.data.replace(batch_size=80)))
    assert "data.batch_size 80 is more than the 44 training examples" in caplog.text


@pytest.mark.parametrize(("rate", "warned"), [(3e10, True), (5.9e10, False), (3e11, False)])
def test_a_cpu_that_is_slow_in_bfloat16_is_reported(
    rate: float, warned: bool, config: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(preflight, "matmul_rate", lambda dtype, **_: {"float32": 6e10, "bfloat16": rate}[dtype])
    preflight.warn_of_dtype(config.replace(dtype="bfloat16"))
    assert ("30 GFLOP/s in large matmuls, and 60 in float32; --dtype float32 is faster" in caplog.text) == warned
    caplog.clear()
    preflight.warn_of_dtype(config)
    assert not caplog.text


def test_room_is_looked_for_where_the_folder_will_be(config: RunConfig, tmp_path: Path) -> None:
    """It is made behind these checks."""
    check(config.replace(run_dir=str(tmp_path / "runs" / "one")))
    assert not (tmp_path / "runs").exists()


# Labels


def trained(finished: Finished, folder: Path, **changes: Any) -> str:
    """The finished run's model, which tells good from bad, in a folder of its own with another config.json."""
    shutil.copytree(finished.folder / "model", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))
    return str(folder)


def names(*labels: str) -> dict[str, str]:
    return {str(i): label for i, label in enumerate(labels)}


def many_to_score(config: RunConfig, folder: Path) -> RunConfig:
    """A dev split of more than a hundred sentences."""
    file = folder / "many.csv"
    tiny_run.write_csv(file, ("text", "label"), tiny_run.sentences(120, seed=9))
    return config.replace(data=config.data.replace(dev_file=str(file)))


def untaught(config: RunConfig) -> RunConfig:
    return config.replace(fine_tune=None, width=None, importance=None, depth=None)


def test_classes_in_another_order_are_put_right(
    config: RunConfig, finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that calls its first class good, and means it, is scored right by data that begins with bad."""
    swapped = load_model(finished.folder / "model", labels=LABELS[::-1])
    folder = tmp_path / "swapped"
    save_model(folder, swapped.config, swapped.params, tokenizer_from=finished.folder / "model")
    check(untaught(many_to_score(config.replace(model=str(folder)), tmp_path)))
    assert said(caplog) == []  # that they were put right is not a warning: `Pretrained.assumed` says it


def test_what_is_taken_for_granted_of_a_model_is_told_once(
    finished: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    model = finished.folder / "model"
    data = load_data(finished.config.data, load_tokenizer(model, MODEL))
    case = "vocab.txt has no upper-case words, so the tokenizer is taken for uncased"
    assert understood(load_model(model, ("bad", "good")), data).model == (case,)
    assert understood(load_model(model, ("good", "bad")), data).model == (
        "its classes, bad, good, were put into the order of good, bad",
        case,
    )
    assert understood(load_model(model, ("poor", "fine")), data).model == (
        "its classes, bad, good, are matched by position with poor, fine",
        case,
    )
    found = understood(load_model(model, ("a", "b", "c")), data)
    assert found.model == ("its classifier is new, and random until trained", case)
    assert found.lines[-1] == f"model: {case}"
    with caplog.at_level(logging.INFO):
        preflight.tell_understood(load_model(model, ("a", "b", "c")), data)
    assert caplog.messages == found.lines
    assert [split.name for split in found.splits] == ["train", "dev", "test"]


def test_a_teacher_far_below_chance_is_reported_before_anything_learns_from_it(
    config: RunConfig, finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint that calls its classes the wrong way round, as those that confuse MNLI's do."""
    model = trained(finished, tmp_path / "model", id2label=names("good", "bad"))
    check(untaught(many_to_score(config.replace(model=model), tmp_path)))
    (message,) = said(caplog)
    assert caplog.records[-1].levelno == logging.WARNING
    assert message.startswith(f"{model}: accuracy x 100 is ")
    assert "over 120 examples, far below the 50.00 of guessing" in message
    assert "0 bad, 1 good" in message


def test_a_teacher_as_good_as_it_should_be_is_no_news(
    config: RunConfig, finished: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check(untaught(many_to_score(config.replace(model=str(finished.folder / "model")), tmp_path)))
    assert said(caplog) == []


def test_a_model_that_is_fine_tuned_first_is_not_tried_out(
    config: RunConfig, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "logits_of", lambda *_: pytest.fail("its answers mean nothing yet"))
    check(many_to_score(config.replace(model=str(finished.folder / "model")), tmp_path))


def test_a_regression_has_no_order_of_classes(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "logits_of", lambda *_: pytest.fail("there are no classes"))
    pretrained = load_model(config.model)
    one_output = dataclasses.replace(pretrained, config=pretrained.config.replace(labels=("value",), head="regression"))
    preflight.warn_of_labels(config.replace(fine_tune=None), one_output, no_data())


def no_data() -> TaskData:
    return TaskData((), *(3 * [np.empty(0)]))  # type: ignore[arg-type]


def test_accuracy_is_that_of_the_checkpoint(config: RunConfig, finished: Finished) -> None:
    data = load_data(config.data, load_tokenizer(config.model, MODEL))
    pretrained: Pretrained = load_model(finished.folder / "model")
    (full,) = [row for row in finished.results.rows if (row.split, row.sub) == ("dev", "w1_d1")]
    assert preflight.accuracy(config, pretrained, data.dev["dev"]) == pytest.approx(full.score)


def test_too_little_memory_is_noticed_before_anything_is_compiled(
    materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = materials.config(tmp_path)
    pretrained = load_model(config.model, labels=config.data.task.labels)
    data = load_data(config.data, load_tokenizer(materials.model, MODEL))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(pretrained.params))
    stages = plan_run(pretrained.config, config).stages
    everything = devices.num_devices() * (5 * size + preflight.kept_activations(config, pretrained, data, stages))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(preflight, "available_memory", lambda: everything)
    preflight.check_memory(config, stages, pretrained, data)
    monkeypatch.setattr(preflight, "available_memory", lambda: everything - 1)
    with pytest.raises(
        ConfigError, match=r"needs at least 0\.0 GiB of memory .+; set gradient_accumulation to 2, or use a"
    ):
        preflight.check_memory(config, stages, pretrained, data)
    monkeypatch.setattr(preflight, "available_memory", lambda: 1)
    with pytest.raises(ConfigError, match="; use more or larger devices, or a smaller model"):
        preflight.check_memory(config, stages, pretrained, data)


def test_memory_is_counted_of_what_training_computes_at_once(
    materials: Materials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one CPU, where a longer batch is worked through in more parts: padded to 11 tokens, 10 or fewer are 11."""
    config = materials.config(tmp_path)
    config = config.replace(data=config.data.replace(lengths=(5, 11)))
    data = load_data(config.data, load_tokenizer(materials.model, MODEL))
    monkeypatch.setattr("dynabert_jax.model.microbatch.is_one_cpu", lambda: True)
    monkeypatch.setattr("dynabert_jax.model.microbatch.TOKENS_PER_MICROBATCH", config.data.max_length)
    size = config.data.batch_size
    plan = plan_epoch(data.train, size, config.data.lengths, [0])
    longest = max(plan, key=lambda planned: planned.length)
    batch = make_batch(data.train, longest, size, pad_token_id=0)
    assert preflight.longest_batch(config, data).length == longest.length
    taken = list(micro_batches(batch))
    assert len(taken) > 1
    assert preflight.microbatches_of_longest(config, data) == len(taken)
