"""From a model or a run to one small model: what is trained, timed, chosen and written, and what is refused first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
from dynabert_jax.choose.choose import ChoiceError, Limits
from dynabert_jax.choose.question import Question, choose_run
from dynabert_jax.cli import commands
from dynabert_jax.config import DataConfig, RunConfig
from dynabert_jax.errors import UserError
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import export_run
from dynabert_jax.runs.finished import Finished as Run
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.latency_card import Where
from dynabert_jax.shrink import shrink
from dynabert_jax.shrink.shrink import ShrinkError, shrink_run
from dynabert_jax.weights.files import load_model
from tiny_run import Finished, Materials, assert_equal_trees


@pytest.fixture(autouse=True)
def process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands leave the settings of this process alone."""
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrink, "train_run", lambda *_: pytest.fail("there is nothing to train"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, finished: Finished) -> list[RunConfig]:
    """The configurations that are trained; in the place of training, the finished run is put into their folder."""
    configs: list[RunConfig] = []

    def train(config: RunConfig) -> Run:
        configs.append(config)
        shutil.copytree(finished.folder, config.run_dir, dirs_exist_ok=True)
        return read_finished(config.run_dir)

    monkeypatch.setattr(shrink, "train_run", train)
    return configs


# A finished run


@pytest.mark.usefixtures("untrained")
def test_a_run_is_chosen_from_and_exported(run: Path, tmp_path: Path) -> None:
    """The same size and the same weights as by hand."""
    limits = Limits(max_parameters=4e3)
    shrunk = shrink_run(run, tmp_path / "small", limits=limits)
    by_hand = choose_run(run, Question(limits, Where())).best
    assert shrunk.best == by_hand
    export_run(run, "hf", tmp_path / "by_hand", subs=[by_hand.sub])
    assert_equal_trees(load_model(tmp_path / "small").params, load_model(tmp_path / "by_hand").params)
    values = json.loads(shrunk.to_json())
    assert (values["chosen"]["sub"], values["speed_up"], values["exported"]["subs"]) == (
        by_hand.sub,
        None,
        [by_hand.sub],
    )
    kept = sum(array.size for array in tiny_arrays(load_model(tmp_path / "small").params))
    full = sum(array.size for array in tiny_arrays(load_model(run / "model").params))
    assert (values["chosen"]["parameters"], values["parameters_of_full"]) == (kept, full)
    assert not (run / "latency.json").exists()


def tiny_arrays(tree: Any) -> list[np.ndarray]:
    return [a for value in tree.values() for a in (tiny_arrays(value) if isinstance(value, dict) else [value])]


@pytest.mark.usefixtures("untrained")
def test_sizes_are_timed_only_for_a_latency_and_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, times = shrink.bench_run, []

    def counted(path: Path, settings: Any) -> Any:
        times.append(settings.backends)
        return bench(path, settings.replace(rounds=6))

    monkeypatch.setattr(shrink, "bench_run", counted)
    shrunk = shrink_run(run, tmp_path / "one", limits=Limits(max_latency_ms=1e4))
    again = shrink_run(run, tmp_path / "two", limits=Limits(max_latency_ms=2e4))
    assert times == [("jax",)]
    assert shrunk.best == again.best
    measured = {row.sub: row for row in again.answer.measured}
    assert again.speed_up == measured[again.best.sub].speed_up
    assert f"{again.best.latency_ms:.4g} ms, {again.speed_up:.2f} times as fast as the full network" in again.summary
    with pytest.raises(
        ChoiceError, match=r"(?s)nothing fits.*Nothing trains again: repeat the command with another limit"
    ):
        shrink_run(run, tmp_path / "three", limits=Limits(max_latency_ms=1e-6))
    assert not (tmp_path / "three").exists()


@pytest.mark.usefixtures("untrained")
def test_in_8_bits_the_score_is_told_in_8_bits(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    shrunk = shrink_run(run, tmp_path / "small", limits=Limits(max_parameters=1e6), backend="onnxruntime-int8")
    assert (tmp_path / "small" / "model_int8.onnx").exists()
    (loss,) = (one for one in shrunk.exported.losses if one.split == "dev")
    assert f"{100 * loss.quantized:.2f} in 8 bits, in which it is exported" in shrunk.summary


# A model


def without_head(model: Path, folder: Path) -> Path:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    save_file({name: a for name, a in load_file(file).items() if "classifier" not in name}, file)
    return folder


def of_three_classes(_: Path, folder: Path) -> Path:
    tiny_run.write_model(folder, tiny_run.MODEL.replace(labels=("a", "b", "c")))
    return folder


def with_labels(model: Path, folder: Path, *labels: str) -> Path:
    shutil.copytree(model, folder)
    values = json.loads((folder / "config.json").read_text())
    values["id2label"], values["label2id"] = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize(
    ("make", "fine_tunes", "said"),
    [
        (lambda model, folder: with_labels(model, folder, "Good", "bad"), False, "is the teacher, as it is"),
        (lambda model, folder: with_labels(model, folder, "LABEL_0", "LABEL_1"), False, "is the teacher, as it is"),
        (lambda model, folder: with_labels(model, folder, "no", "yes"), True, "its classes are no, yes, and those of"),
        (of_three_classes, True, "it has no classifier for bad, good"),
        (without_head, True, "it has no classifier for bad, good"),
    ],
)  # fmt: skip
def test_a_model_is_fine_tuned_only_if_its_head_does_not_fit(
    materials: Materials, tmp_path: Path, trained: list[RunConfig], make: Callable[[Path, Path], Path],
    fine_tunes: bool, said: str,
) -> None:  # fmt: skip
    model, limits = make(materials.model, tmp_path / "model"), Limits(max_parameters=1e9)
    with tiny_run.messages_logged() as messages:
        shrink_run(model, tmp_path / "small", materials.data(), limits, run_dir=tmp_path / "run")
    assert any(said in message for message in messages)
    assert (trained[0].fine_tune is not None, trained[0].model) == (fine_tunes, str(model))
    assert trained[0].run_dir == str(tmp_path / "run")
    shrink_run(model, tmp_path / "small", materials.data(), limits, run_dir=tmp_path / "run", force=True)
    assert trained[1] == trained[0]  # which resumes it, or trains nothing


def test_unlabelled_texts_make_the_model_the_teacher(
    materials: Materials, tmp_path: Path, trained: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = materials.data(train_file=None, dev_file=None, test_file=None, unlabelled_files=("a.txt",))
    shrink_run(materials.model, "small", data, Limits(max_parameters=1e9))
    assert (trained[0].fine_tune, trained[0].data, trained[0].run_dir) == (None, data, "runs/small")


# What is refused before anything trains


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": None}, "add --train with labelled data"),
        ({"backend": "onnxruntime", "format": "hf"}, "does not run what is exported as hf"),
        ({"backend": "jax", "format": "onnx"}, "backend jax does not run what is exported as onnx"),
        ({"backend": "tensorrt"}, "there is no backend 'tensorrt'"),
        ({"format": "gguf"}, "there is no format 'gguf'"),
    ],
)
def test_what_contradicts_itself_is_refused(
    materials: Materials, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        shrink_run(materials.model, tmp_path / "small", **({"data": materials.data()} | changes))
    assert not (tmp_path / "small").exists()


@pytest.mark.usefixtures("untrained")
def test_a_folder_that_is_there_is_not_replaced(materials: Materials) -> None:
    with pytest.raises(ExportError, match="exists"):
        shrink_run(materials.model, materials.folder, materials.data())


@pytest.mark.usefixtures("untrained")
def test_a_run_has_its_own_data(run: Path, materials: Materials, tmp_path: Path) -> None:
    with pytest.raises(ShrinkError, match="is a run, which has its data and its folder"):
        shrink_run(run, tmp_path / "small", materials.data())


# The command


def test_the_command_ends_with_what_was_gained_and_lost(
    materials: Materials, tmp_path: Path, trained: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shrink", str(materials.model), "--train", materials.file("train"), "--dev", materials.file("dev")]
    words += ["--max-parameters", "1M", "--out", str(tmp_path / "small"), "--run-dir", str(tmp_path / "run")]
    assert commands.main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith(f"w1_d0.5 in {tmp_path / 'small'}: accuracy x 100 is ")
    assert f"dynabert predict {tmp_path / 'small'} --text 'your text'" in shown.err
    task = trained[0].data.task
    assert (task.text_columns, task.label_column, trained[0].data.train_file) == (("text",), "label", words[3])
    assert commands.main([*words, "--force", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["chosen"]["sub"] == "w1_d0.5"
    assert "next:" not in shown.err


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-parameters", "many"], "'many' is not a size"),
        (["--dev", "dev.csv"], "need --train or --unlabelled"),
        (["--unlabelled", "a.txt", "--max-latency-ms", "-1"], "max_latency_ms"),
    ],
)
def test_a_command_that_cannot_be_carried_out_says_so_first(
    materials: Materials, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["shrink", str(materials.model), "--out", str(tmp_path / "small"), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_from_a_model_to_a_small_one(materials: Materials, tmp_path: Path) -> None:
    """All of it, with the default stages, on texts without labels."""
    texts = dict.fromkeys(text for text, _ in tiny_run.sentences(60, seed=7))
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    data = DataConfig(
        task=tiny_run.TASK, unlabelled_files=(str(tmp_path / "texts.txt"),), lengths=(12,), batch_size=8,
        eval_batch_size=8,
    )  # fmt: skip
    shrunk = shrink_run(materials.model, tmp_path / "small", data, Limits(max_loss=100), run_dir=tmp_path / "run")
    assert "agreement with the teacher (accuracy) x 100" in shrunk.summary
    assert load_model(tmp_path / "small").config.labels == tiny_run.LABELS
