"""The command: a finished run goes in, a verified folder comes out, or nothing and a message."""

import dataclasses
import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dynabert_jax.choose.bench import BenchSettings, bench_run
from dynabert_jax.cli import commands
from dynabert_jax.data.batches import Inputs
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.errors import MissingPackageError
from dynabert_jax.evaluate.rows import Teacher
from dynabert_jax.export import model_card, verify
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import export_run
from dynabert_jax.export.folder import check_target, whole_folder
from dynabert_jax.export.formats import FORMATS, Format
from dynabert_jax.export.int8 import Loss, check_possible
from dynabert_jax.export.manifest import Manifest, files_in, read_manifest, write_manifest
from dynabert_jax.export.model_card import latencies
from dynabert_jax.infer.runner import Answers, Runner
from dynabert_jax.runs.files import sealed, unsealed
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.serve.predict import Predictor
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.weights.files import load_model
from tiny_rows import row
from tiny_run import LABELS, MODEL, Finished, record_model

for package in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(package)

HALF = "w1_d0.5"
FILES = {
    "hf": {"model.safetensors"},
    "hf-exact": {"model.safetensors", "modeling_dynabert.py"},
    "reference": {"pytorch_model.bin", "vocab.txt"},
    "onnx": {"model.onnx"},
    "stablehlo": {"weights.safetensors", f"{HALF}.stablehlo", "run_stablehlo.py"},
}


@pytest.fixture(autouse=True)
def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command sets for its whole process would be set for all other tests."""
    monkeypatch.setattr("dynabert_jax.cli.guard.quieten_orbax", lambda: None)
    monkeypatch.setattr("dynabert_jax.cli.guard.use_compilation_cache", lambda: None)


@pytest.fixture
def run(finished: Finished) -> Path:
    return finished.folder


def dynabert(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> Any:
    monkeypatch.setattr(sys, "argv", ["dynabert", *map(str, arguments)])
    try:
        return commands.main()
    except SystemExit as leaving:  # tyro leaves the process by itself
        return leaving.code


def test_names_of_users_are_no_mark_up_in_the_card(finished: Finished, tmp_path: Path) -> None:
    name = "<b>x</b> [a](http://b)\n# c"
    run = Path(shutil.copytree(finished.folder, tmp_path / "run"))
    data = finished.config.data.replace(task=finished.config.data.task.replace(name=name))
    RunFolder(run).config_file.write_text(finished.config.replace(data=data).to_json(), encoding="utf-8")
    record_model(run)
    export_run(run, "hf", tmp_path / "out", subs=(HALF,))
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"A BERT for the task \<b\>x\</b\> \[a\](http\://b) \# c, " in card
    assert "<b>" not in card.partition("\n---\n")[2]  # before it is YAML, which is no mark-up


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_written_verified_and_used(
    format: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    subs = [] if format == "reference" else ["--sub", HALF]
    assert dynabert(monkeypatch, "export", run, "--format", format, "--out", out, *subs) == 0
    said = capsys.readouterr().out
    assert re.search(r"(the largest difference of a logit is \S+|no logit differs), over 21 sentences of dev", said)
    assert said.endswith(f"written to {out}\n")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {"README.md", "config.json", "tokenizer.json"} | FILES[format] <= {path.name for path in out.iterdir()}
    assert json.loads((out / "config.json").read_text())["id2label"] == dict(zip("01", LABELS, strict=True))
    card = (out / "README.md").read_text()
    assert "scores on test x 100 (13 examples): accuracy " in card
    assert card.count(" on dev against the teacher, from which all sizes learned: ") == card.count("scores on dev")
    assert "latency" not in card
    assert "\nA BERT for the task words, " in card

    def said_of(text: str) -> str:
        use(card.replace("Never a minute too long.", text), out, monkeypatch)
        return capsys.readouterr().out

    answer = said_of("Never a minute too long.")
    assert "'good'" in answer or "'bad'" in answer or answer.count(".") == 2  # a label, or two logits
    assert said_of("the " * 600) == said_of("the " * 10) != said_of("the " * 8)  # the run's texts have 12 tokens


def use(card: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the program in the card, where it says."""
    program = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    exec(compile(program, "card", "exec"), {})


def test_quantizing_tells_what_it_costs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("export", run, "--format", "onnx", "--out", tmp_path / "out", "--sub", HALF, "--int8")
    assert dynabert(monkeypatch, *arguments, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["folder"], values["subs"]) == (str(tmp_path / "out"), [HALF])
    assert values["largest_difference"] <= verify.TOLERANCE
    assert [loss["split"] for loss in values["int8"]] == ["dev"]
    assert dynabert(monkeypatch, *arguments, "--force") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("model_int8.onnx: ")]
    assert "accuracy x 100 on dev (21 examples) is " in line
    card = (tmp_path / "out" / "README.md").read_text()
    assert line in card
    assert "To run model_int8.onnx, give its name to the session instead of model.onnx" in card
    assert str(Loss("dev", 1000, "accuracy", 0.845, 0.84)).endswith("is 84.00, and 84.50 in float32: -0.50")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onx"], "Expected one of"),
        (["--format", "hf"], "--format hf holds one sub-network; name it with --sub: one of w1_d1, w1_d0.5"),
        (["--format", "hf", "--sub", "w1_d1", HALF], "--format hf holds one sub-network"),
        (["--format", "hf", "--sub", "w1_d5"], "has no sub-network 'w1_d5'; did you mean 'w1_d0.5'"),
        (["--format", "reference", "--sub", HALF], "writes the uncut model, which contains w1_d1, w1_d0.5"),
        (["--format", "hf", "--sub", HALF, "--int8"], "--int8 quantizes ONNX files; use --format onnx"),
    ],
)
def test_what_cannot_be_exported_is_reported(
    arguments: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dynabert(monkeypatch, "export", run, "--out", tmp_path / "out", *arguments) == 2
    errors = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in errors
    assert "Traceback" not in errors
    assert not any(tmp_path.iterdir())


def test_a_format_that_is_not_known_is_reported_in_python(run: Path, tmp_path: Path) -> None:
    for name, hint in (("onx", "did you mean 'onnx'. "), ("zip", "")):
        with pytest.raises(ExportError, match=f"there is no format '{name}'; {hint}there are hf, "):
            export_run(run, cast(Any, name), tmp_path / "out")


def test_what_is_the_same_has_no_difference() -> None:
    assert str(verify.Check("jax", "sentences of dev", 21, 0.0)) == "no logit differs, over 21 sentences of dev; jax"


def test_one_name_is_no_list_of_names(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"subs must be a list of names; got the single name 'w1_d0\.5'; put it in \[ \]"
    ):
        export_run(str(run), "hf", str(tmp_path / "out"), subs=HALF)


def test_a_package_that_is_missing_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.system.packages.is_installed", lambda _: False)
    with pytest.raises(
        MissingPackageError,
        match=r'needs onnx and onnxruntime; run `.+python\S* -m pip install "dynabert_jax\[onnx\]"`',
    ):
        export_run(run, "onnx", tmp_path / "out")
    with pytest.raises(
        MissingPackageError, match=r"--format reference needs torch; run `.+python\S* -m pip install torch`"
    ):
        export_run(run, "reference", tmp_path / "out")


def test_a_damaged_run_is_reported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    (damaged / "model" / "model.safetensors").write_bytes(b"damaged")
    arguments = ("export", damaged, "--format", "hf", "--out", tmp_path / "out", "--sub", HALF)
    assert dynabert(monkeypatch, *arguments) == 2
    assert "model.safetensors is damaged, or was changed after it was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Nothing half written, nothing replaced unasked


KILLED = """
import os, sys
from pathlib import Path
from dynabert_jax.export import folder
from dynabert_jax.export.folder import whole_folder

def rename(path, target, rename=Path.rename):
    rename(path, target)
    if Path(target).name == folder.REPLACED:
        os.kill(os.getpid(), 9)

if sys.argv[2] == "renames":
    folder.exchange = lambda *_: False
    Path.rename = rename
with whole_folder(Path(sys.argv[1]), force=True) as beside:
    (beside / "new").touch()
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), 9)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("killed", "new"), [("writing", False), ("renames", False), ("after", True)])
def test_a_kill_at_any_moment_leaves_the_earlier_export_or_the_new_one(
    killed: str, new: bool, run: Path, tmp_path: Path
) -> None:
    """Where two folders cannot be exchanged at once, the next export puts back what was moved aside."""
    out = tmp_path / "out"
    export_run(run, "hf", out, subs=[HALF])
    before = files_in(out)
    subprocess.run([sys.executable, "-c", KILLED, str(out), killed], check=False)
    with pytest.raises(ExportError, match="out exists"):
        check_target(out, force=False)
    assert files_in(out) == (("new",) if new else before)
    if not new:
        export_run(run, "hf", out, subs=["w1_d1"], force=True)
        assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_file_that_was_changed_or_lost_is_not_answered_from(run: Path, tmp_path: Path) -> None:
    """As of another export, of the same shapes and names."""
    out = tmp_path / "out"
    export_run(run, "onnx", out, subs=[HALF])
    Predictor(out)(["a good film"])
    for name in read_manifest(out).files:
        if name in ("README.md", "config.json"):
            continue
        data = (out / name).read_bytes()
        (out / name).write_bytes(data + b" ")
        with pytest.raises(ExportError, match=f"{name} is damaged, or was changed after it was written"):
            Predictor(out)
        (out / name).unlink()
        with pytest.raises(ExportError, match=f"{name} cannot be read .+ export it again"):
            Predictor(out)
        (out / name).write_bytes(data)
    manifest = (out / "manifest.json").read_text()
    assert '"bad"' in manifest
    (out / "manifest.json").write_text(manifest.replace('"bad"', '"worse"'))
    with pytest.raises(ExportError, match="it was changed after it was written"):
        Predictor(out)


def test_a_folder_is_replaced_only_where_it_is_an_export(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(run, "hf", out, subs=[HALF])
    with pytest.raises(ExportError, match="out exists; name another folder with --out, or replace it with --force"):
        export_run(run, "hf", out, subs=[HALF])
    (out / "__pycache__").mkdir()
    (out / "__pycache__" / "run.pyc").touch()  # what Python leaves is nobody's work
    export_run(run, "hf", out, subs=["w1_d1"], force=True)
    assert not (out / "__pycache__").exists()
    assert load_model(out).config.num_layers == 2
    (out / "notes").mkdir()
    (out / "notes" / "thesis.txt").write_text("years of work")
    with pytest.raises(
        ExportError, match=r"holds notes/thesis\.txt, which the export did not write, so --force does not replace"
    ):
        export_run(run, "hf", out, subs=[HALF], force=True)
    shutil.rmtree(out / "notes")
    (out / "manifest.json").unlink()
    with pytest.raises(
        ExportError, match=r"out exists and has no manifest\.json of an export, so --force does not replace it"
    ):
        export_run(run, "hf", out, subs=[HALF], force=True)
    for other in ("{", '{"name": "a web page", "files": []}', '["README.md"]'):
        (out / "manifest.json").write_text(other)
        with pytest.raises(ExportError, match=r"has no manifest\.json of an export"):
            export_run(run, "hf", out, subs=[HALF], force=True)
    assert load_model(out).config.num_layers == 2
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_project_that_mentions_an_export_is_not_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "project" / ".git").mkdir(parents=True)
    (tmp_path / "project" / "README.md").write_text("The model was exported by dynabert_jax 0.1.0.")
    with pytest.raises(ExportError, match="so --force does not replace it"):
        export_run(run, "hf", tmp_path / "project", subs=[HALF], force=True)
    assert {path.name for path in (tmp_path / "project").iterdir()} == {".git", "README.md"}


@pytest.mark.parametrize("format", ["hf", "onnx", "stablehlo", "reference"])
def test_the_manifest_says_what_the_folder_holds(format: str, run: Path, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnx")
    out = tmp_path / "out"
    subs = () if format in ("stablehlo", "reference") else (HALF,)
    exported = export_run(run, format, out, subs=subs)
    manifest = read_manifest(out)
    assert manifest is not None
    assert (manifest.format, manifest.head, manifest.labels) == (format, "classification", ("bad", "good"))
    assert (manifest.lengths, manifest.text_columns) == ((12,), ("text",))
    assert [SubNetwork(sub.layers, sub.heads, sub.neurons) for sub in manifest.subs] == list(exported.subs)
    assert [sub.name for sub in manifest.subs] == [sub.name for sub in exported.subs]
    assert set(manifest.files) == {path.name for path in out.iterdir()} - {"manifest.json"}
    assert manifest.written_by.startswith("dynabert_jax")


def test_what_cannot_take_the_place_of_an_earlier_export_leaves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("the earlier one")
    values = {"format": "hf", "subs": (), "text_columns": ("text",), "lengths": (12,), "labels": ("bad", "good")}
    write_manifest(out, Manifest(**values, head="classification", files={"README.md": ""}, written_by="dynabert_jax"))
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == "out" and path.parent.name.endswith(".tmp.out"):
            raise PermissionError("not today")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr("dynabert_jax.export.folder.exchange", lambda *_: False)
    with pytest.raises(ExportError, match=r"cannot write .+ not today"), whole_folder(out, force=True) as folder:
        (folder / "README.md").write_text("the new one")
    assert (out / "README.md").read_text().startswith("the earlier one")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_the_home_folder_is_as_safe(
    force: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match=r"mine exists and has no manifest\.json of an export"):
        export_run(run, "hf", Path("~/mine"), subs=[HALF], force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert export_run(run, "hf", Path("~/new"), subs=[HALF]).folder == tmp_path / "new"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "new"}


@pytest.mark.parametrize("force", [False, True])
def test_what_comes_while_an_export_is_written_stays(force: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write_thesis() -> None:
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")

    with pytest.raises(ExportError, match="out exists and has no"), whole_folder(out, force):
        write_thesis()
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_is_offered_where_it_would_help(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    with pytest.raises(ExportError, match="so --force does not replace it; name another folder"):
        check_target(tmp_path / "README.md", force=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="or replace it with --force"):
        check_target(tmp_path / "empty", force=False)
    check_target(tmp_path / "empty", force=True)


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_an_export_that_answers_otherwise_is_removed(
    wrong: float, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_wrong(folder: Path, sub: SubNetwork) -> Runner:
        runner = good.open(folder, sub)

        def answer(inputs: Inputs) -> Answers:
            answers = runner(inputs)
            return answers._replace(logits=answers.logits + wrong)

        return Runner("a broken runtime", answer)

    good = FORMATS["hf"]
    monkeypatch.setitem(FORMATS, "hf", Format(good.title, good.write, open_wrong, good.usage))
    with pytest.raises(ExportError, match=r"gives wrong answers, so nothing was written: .+ a broken runtime"):
        export_run(run, "hf", tmp_path / "out", subs=[HALF])
    assert not any(tmp_path.iterdir())


def test_what_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise OSError("No space left")

    with pytest.raises(ExportError, match=r"cannot write .+ No space left"):
        write_half()
    assert not any(tmp_path.iterdir())


# Where the data is gone


def test_without_the_runs_data_other_sentences_are_compared(
    finished: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    run = read_finished(finished.folder)
    data = run.config.data.replace(train_file="/gone.csv")
    gone = dataclasses.replace(run, config=run.config.replace(data=data))
    tokenizer = load_tokenizer(finished.folder / "model", MODEL)
    with caplog.at_level(logging.WARNING):
        sentences = verify.read_sentences(gone, tokenizer)
    assert "the run's data cannot be read, so other sentences are compared" in caplog.text
    assert "/gone.csv" in sentences.problem
    assert not sentences.dev
    assert len(sentences.few) == len(verify.SENTENCES)
    with pytest.raises(ExportError, match=r"score on the run's dev data, which cannot be read: .*/gone\.csv"):
        check_possible("onnx", sentences)


def test_latencies_are_reported_where_the_run_has_them(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    assert latencies(read_finished(copy), HALF, ["jax"]) == []
    (row,) = (row for row in bench_run(copy, BenchSettings(rounds=1)).rows if row.sub == HALF)
    (line,) = latencies(read_finished(copy), HALF, ["jax"])
    assert latencies(read_finished(copy), HALF, ["onnxruntime"]) == []
    assert line.startswith(f"- latency: {row.median_ms:.2f} ms for 1 x 12 tokens on {row.device} (jax, float32; ")
    card = copy / "latency.json"
    card.write_text(sealed(unsealed(card.read_text()) | {"model": "0" * 64}))
    assert latencies(read_finished(copy), HALF, ["jax"]) == []
    assert "has no latencies" in caplog.text
    assert "is the latency card of another model" in caplog.text


def test_a_card_multiplies_no_error_in_the_unit_of_the_labels() -> None:
    one = row(1.0, 1.0, 0.5).replace(metric="pearson", scores={"pearson": 0.875, "mean_absolute_error": 12.345})
    line = "- scores on dev x 100 (1,004 examples): pearson 87.50; in the unit of the labels: mean absolute error 12.35"
    assert model_card.score(one) == line


def test_a_card_has_the_gain_or_loss_against_the_teacher(run: Path) -> None:
    finished = read_finished(run)
    teacher = Teacher(rows=(row(1.0, 1.0, 0.8875, sub="teacher"),), weights="", data={}, time="")
    card = model_card.ModelCard(dataclasses.replace(finished, teacher=teacher), None, None, None)  # type: ignore[arg-type]
    lines = card.scores(row(0.5, 1.0, 0.88))
    assert len(lines) == 2
    assert lines[1].endswith("from which all sizes learned: -0.75 (the teacher scores 88.75)")
    assert card.scores(row(0.5, 1.0, 0.9))[1].count("+1.25") == 1
    assert len(card.scores(row(0.5, 1.0, 0.88, split="test"))) == 1
