"""examples/dataframe_to_onnx.ipynb: its cells run one after the other, with a tiny model in the place of MiniLM."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_texts
from tiny_run import cpu_devices

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "dataframe_to_onnx.ipynb"
MODEL = '"sample:minilm"'
# After the cells: what they have made.
FACTS = """
import json
facts = {"rows": frame.to_dict("records"), "best": best.sub, "scored": sorted({row.sub for row in run.rows})}
print("\\n" + json.dumps(facts))
"""


def cells() -> list[str]:
    """The code, cell by cell."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs() -> None:
    """They would be of another version some day."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], len(cells())) == (4, 7)
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    assert sum(cell.count(MODEL) for cell in cells()) == 1


def test_the_files_that_it_links_exist() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert len(links) >= 3
    assert all((NOTEBOOK.parent / link).exists() for link in links)


@pytest.mark.slow
def test_its_cells_end_in_a_network_that_answers(tmp_path: Path) -> None:
    """As typed by a reader: in a process and a folder of its own."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    tiny_texts.write_model(tmp_path / "model", tiny_texts.config("bert"))
    code = "\n\n".join(cells()).replace(MODEL, repr(str(tmp_path / "model")))
    environment = os.environ | cpu_devices(1) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code + FACTS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["best"] in facts["scored"]
    assert len(facts["scored"]) == 8  # of two layers, there are two depths
    answers = [line.split()[0] for line in done.stdout.splitlines()[-5:-2]]
    topics = {row["topic"] for row in facts["rows"]}
    assert set(answers) <= topics
    kept = [json.loads(line) for line in (tmp_path / "runs/messages/data/train.jsonl").read_text().splitlines()]
    assert kept == facts["rows"]
    files = {path.name for path in (tmp_path / "messages_onnx").iterdir()}
    assert {"model.onnx", "model_int8.onnx"} <= files
    session = onnxruntime.InferenceSession(tmp_path / "messages_onnx" / "model.onnx")
    assert {given.name for given in session.get_inputs()} >= {"input_ids", "attention_mask"}
