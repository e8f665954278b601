"""Every export answers as its run does, and one that is damaged is reported."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynabert_jax.errors import MissingPackageError
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.export import export_run
from dynabert_jax.export.formats import FORMATS
from dynabert_jax.infer.runner import Runner
from dynabert_jax.runs.files import unsealed
from dynabert_jax.serve.open import PredictError
from dynabert_jax.serve.predict import Predictor
from tiny_run import Finished, sentences

for package in ("torch", "onnx", "onnxruntime"):
    pytest.importorskip(package)

HALF = "w1_d0.5"
TEXTS = [row[0] for row in sentences(5, seed=7)] + ["", "good " * 40]  # the last one is longer than the run's texts
ASKED = {format: () if format == "reference" else (HALF,) for format in FORMATS}


@pytest.fixture(scope="module")
def exports(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of every format, and one of two programs."""
    folder = tmp_path_factory.mktemp("exports")
    for format, subs in ASKED.items():
        export_run(finished.folder, format, folder / format, subs=subs)
    export_run(finished.folder, "stablehlo", folder / "several")
    return folder


@pytest.fixture
def copied(exports: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda format: Path(shutil.copytree(exports / format, tmp_path / format))


def as_older(folder: Path) -> Path:
    """As an older version wrote it: without checksums."""
    manifest = folder / "manifest.json"
    values = unsealed(manifest.read_text())
    manifest.write_text(json.dumps(values | {"files": list(values["files"])}))
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_answers_as_its_run(format: Any, exports: Path, finished: Finished) -> None:
    run = Predictor(finished.folder, *ASKED[format], batch_size=4)
    export = Predictor(exports / format, batch_size=4)
    assert export.labels == run.labels
    np.testing.assert_allclose(export.logits(TEXTS), run.logits(TEXTS), rtol=0, atol=1e-4)
    np.testing.assert_allclose(export.logits(TEXTS[:1]), run.logits(TEXTS[:1]), rtol=0, atol=1e-4)


def test_a_program_is_named_where_there_are_several(exports: Path, finished: Finished) -> None:
    for sub in (HALF, "w1_d1"):
        run, export = Predictor(finished.folder, sub, batch_size=4), Predictor(exports / "several", sub, batch_size=4)
        np.testing.assert_allclose(export.logits(TEXTS[:3]), run.logits(TEXTS[:3]), rtol=0, atol=1e-4)
    assert Predictor(exports / "stablehlo", HALF).labels == run.labels
    with pytest.raises(PredictError, match=r"holds several sub-networks; name one with --sub: w1_d0\.5, w1_d1"):
        Predictor(exports / "several")
    with pytest.raises(PredictError, match=r"holds no sub-network 'w2_d2'; it holds w1_d0\.5, w1_d1"):
        Predictor(exports / "several", "w2_d2")
    for format in ("hf", "onnx"):
        with pytest.raises(PredictError, match=r"a single network, not a run, so it has no sub-network 'w1_d0\.5'"):
            Predictor(exports / format, HALF)


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def overwrite(file: Path) -> None:
    """The middle, which a parser may not look at before it is run."""
    data = bytearray(file.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("format", "file", "damage", "message"),
    [
        ("onnx", "model.onnx", cut_off, "model.onnx is damaged or not complete .+ export it again"),
        ("onnx", "config.json", cut_off, "config.json is damaged .+ export it again"),
        ("stablehlo", f"{HALF}.stablehlo", cut_off, "w1_d0.5.stablehlo is damaged or not complete .+ export it again"),
        ("stablehlo", f"{HALF}.stablehlo", overwrite, "w1_d0.5.stablehlo is damaged or not complete"),
        ("stablehlo", f"{HALF}.stablehlo", Path.unlink, r"has weights, but no \*.stablehlo; export it again"),
        ("stablehlo", "weights.safetensors", cut_off, "weights.safetensors is damaged or not complete"),
        ("stablehlo", "weights.safetensors", Path.unlink, "weights.safetensors is damaged or not complete"),
        ("onnx", "model.onnx", Path.unlink, "model.onnx does not exist, .+ export it again"),
    ],
)
def test_a_damaged_export_is_reported(
    format: str, file: str, damage: Callable[[Path], Any], message: str, copied: Callable[[str], Path]
) -> None:
    """Also without checksums."""
    folder = as_older(copied(format))
    damage(folder / file)
    with pytest.raises(ExportError, match=message):
        Predictor(folder)(["good film"])


def test_a_program_with_a_call_of_native_code_is_refused(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As such, and not as damage."""
    export = copied("stablehlo")
    (file,) = export.glob("*.stablehlo")
    monkeypatch.setattr("dynabert_jax.infer.run_stablehlo.ALLOWED", "none")
    with pytest.raises(ExportError, match=f"^{re.escape(str(file))} is not run, because its program calls native code"):
        Predictor(export)


def test_an_operator_of_an_onnx_model_that_is_not_known_is_refused(copied: Callable[[str], Path]) -> None:
    import onnx

    export = as_older(copied("onnx"))
    model = onnx.load(export / "model.onnx")
    model.graph.node.append(onnx.helper.make_node("Strange", ["logits"], ["more"], domain="of.others"))
    model.opset_import.append(onnx.helper.make_opsetid("of.others", 1))
    (export / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"is damaged or not complete .*of\.others"):
        Predictor(export)


def test_the_modelling_file_of_an_export_is_not_run(copied: Callable[[str], Path]) -> None:
    export = copied("hf-exact")
    before = Predictor(export).logits(TEXTS)
    files = list(export.glob("*.py"))
    assert files
    for file in files:
        file.write_text("raise SystemExit")
    np.testing.assert_array_equal(Predictor(export).logits(TEXTS), before)


@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "link.bin"])
def test_weights_outside_of_an_onnx_models_folder_are_refused(
    location: str, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    """ONNX Runtime reads weights from a file next to the model, and nowhere else."""
    import onnx

    export = as_older(copied("onnx"))
    model = onnx.load(export / "model.onnx")
    moved = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    data = moved.raw_data
    (tmp_path / "secret.bin").write_bytes(data)
    (export / "link.bin").symlink_to(tmp_path / "secret.bin")
    (export / "near.bin").write_bytes(data)
    for place, is_read in (("near.bin", True), (location.format(folder=tmp_path), False)):
        moved.raw_data = data
        onnx.external_data_helper.set_external_data(moved, location=place)
        moved.ClearField("raw_data")
        (export / "model.onnx").write_bytes(model.SerializeToString())
        if is_read:
            Predictor(export)
            continue
        with pytest.raises(ExportError, match=r"is damaged or not complete .*External data path"):
            Predictor(export)


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_knows_its_length_without_tokenizer_config(format: str, copied: Callable[[str], Path]) -> None:
    folder = as_older(copied(format))
    expected = Predictor(folder, batch_size=4).logits(TEXTS)
    (folder / "tokenizer_config.json").unlink()
    np.testing.assert_allclose(Predictor(folder, batch_size=4).logits(TEXTS), expected, rtol=0, atol=1e-6)


def test_exact_shapes_are_opened_without_a_warning(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr("transformers.configuration_utils.logger.warning", lambda text, *_: said.append(text))
    Predictor(exports / "hf-exact", batch_size=4)
    assert said == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")])
@pytest.mark.parametrize("format", ["hf", "onnx", "stablehlo"])
def test_too_large_a_batch_is_no_damage(
    format: str, error: Exception, exports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise error

    monkeypatch.setattr("dynabert_jax.infer.in_stablehlo.network_of", lambda *_: refuse)
    monkeypatch.setattr("dynabert_jax.infer.in_jax.forward_program", lambda *_: refuse)
    monkeypatch.setattr("dynabert_jax.serve.open.open_file", lambda *_: Runner("a runtime", refuse))
    with pytest.raises(PredictError, match="not enough memory for 4000 texts at once; use a smaller --batch"):
        Predictor(exports / format, batch_size=4000)(TEXTS)


def test_labels_of_another_network_are_reported(copied: Callable[[str], Path]) -> None:
    for format in ("onnx", "stablehlo"):
        file = as_older(copied(format)) / "config.json"
        names = {str(i): name for i, name in enumerate("abc")}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"id2label": names, "label2id": {}}))
        with pytest.raises(ExportError, match=r"manifest\.json has the labels bad, good and config\.json has a, b, c"):
            Predictor(file.parent)
        (file.parent / "manifest.json").unlink()  # as in an older export
        with pytest.raises(ExportError, match=r"its answers have the shape \(1, 2\), but config\.json has 3 labels"):
            Predictor(file.parent)(["good film"])


def test_a_manifest_of_something_else_is_none_of_an_export(copied: Callable[[str], Path]) -> None:
    folder = copied("hf")
    (folder / "manifest.json").write_text('{"name": "a web page", "icons": []}')
    assert Predictor(folder, batch_size=4)(["good film"])[0].label in ("bad", "good")


@pytest.mark.parametrize("name", ["special_tokens_map.json", "added_tokens.json", "w0.25_d0.5.stablehlo"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_another_export_is_refused(format: Any, name: str, copied: Callable[[str], Path]) -> None:
    folder = copied(format)
    (folder / name).write_text('{"cls_token": "good"}')
    with pytest.raises(ExportError, match=rf"{name} is not of this export, and would change its answers; remove it"):
        Predictor(folder)


def test_an_export_of_a_newer_version_says_so(copied: Callable[[str], Path]) -> None:
    file = copied("hf") / "manifest.json"
    values = json.loads(file.read_text())
    for change in ({"format": "gguf"}, {"segments": 3}):
        file.write_text(json.dumps(values | change | {"written_by": "dynabert_jax 9.0"}))
        with pytest.raises(ExportError, match=r"dynabert_jax 9\.0"):
            Predictor(file.parent)


def test_onnx_without_its_runtime_says_what_to_install(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.system.packages.is_installed", lambda _: False)
    with pytest.raises(
        MissingPackageError, match=r'needs onnxruntime; run `.+python\S* -m pip install "dynabert_jax\[onnx\]"`'
    ):
        Predictor(exports / "onnx")


def test_eight_bits_alone_do_not_answer(copied: Callable[[str], Path]) -> None:
    folder = as_older(copied("onnx"))
    (folder / "model.onnx").rename(folder / "model_int8.onnx")
    with pytest.raises(ExportError, match=r"model\.onnx does not exist, and model_int8\.onnx is not used"):
        Predictor(folder)
