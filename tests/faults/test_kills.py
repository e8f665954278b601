"""A kill between any two changes of files leaves the old state or the new one, and the next command ends it.

Python reports every call that changes files to its audit hooks; there, a child process kills itself.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_run import Materials

ROOT = Path(__file__).parents[2]

CHANGES = """
import json, os, shutil, sys
from pathlib import Path

import numpy as np

from dynabert_jax.config.complete import CompleteRun
from dynabert_jax.data.summary import Understood
from dynabert_jax.errors import UserError
from dynabert_jax.evaluate.rows import Row
from dynabert_jax.export import folder as export_folder
from dynabert_jax.export.folder import whole_folder, check_target
from dynabert_jax.export.manifest import Manifest, checksums, check_files, files_in, read_manifest, write_manifest
from dynabert_jax.model.params import Model
from dynabert_jax.runs.finished import read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.latency_card import add_to_card, read_card
from dynabert_jax.runs.logs import read_lines
from dynabert_jax.train import results
from dynabert_jax.weights.files import save_model
from tiny import random_params
from tiny_rows import card, measurement
from tiny_run import MODEL, any_origin
import tiny_rows

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree"}


def killed_at(number, work):
    \"\"\"Whether a child that does the work is killed at its change of that number; False if it makes fewer.

    A file that was opened for writing counts twice: it is empty afterwards.
    \"\"\"
    child = os.fork()
    if child == 0:
        left, opened = number, False

        def count():
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), 9)

        def hook(event, values):
            nonlocal opened
            opened = event == "open" and isinstance(values[2], int) and bool(values[2] & WRITING)
            if event in CHANGING or opened:
                count()

        def profile(frame, event, function):
            nonlocal opened
            if event == "c_return" and opened and function.__name__ == "open":
                opened = False
                count()

        sys.addaudithook(hook)
        sys.setprofile(profile)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


class Publish:
    \"\"\"The model of a run and its results, in the place of an earlier one.\"\"\"

    def __init__(self, place):
        self.run = place / "run"
        self.run.mkdir()
        values = json.loads((Path(sys.argv[3]) / "config.json").read_text())
        self.config = CompleteRun.from_json(json.dumps(values | {"run_dir": str(self.run)}))
        results.evaluation_lines.__globals__["provenance"] = lambda config: {"seed": config.seed}
        (self.run / "config.json").write_text(self.config.to_json())
        self.write(0)

    def write(self, seed):
        folder, model = RunFolder(self.run), Model(MODEL, random_params(MODEL, seed))
        save_model(folder.model, MODEL, model.params)
        origin = any_origin(self.config, "model")
        folder.write_model_record(type(origin)("model", origin.config, "data", "weights", model.fingerprint))
        rows = [tiny_rows.row(1.0, 1.0, 0.5 + seed / 10)]
        results._written(folder, self.config, results.Results(tuple(rows), model.fingerprint, {}, Understood((), ())))

    def check(self, ended):
        try:
            finished = read_finished(self.run)
            weights = finished.model.fingerprint
        except UserError:  # half of each, which is refused
            assert not ended
            return
        assert finished.record["start"] == weights
        scores = {Model(MODEL, random_params(MODEL, seed)).fingerprint: 0.5 + seed / 10 for seed in (0, 1)}
        assert finished.rows[0].score == scores[weights]
        assert not ended or finished.rows[0].score == 0.6


class Card:
    def __init__(self, place):
        self.file = place / "card.json"
        add_to_card(self.file, card(measurement(batch=1)))

    def write(self, seed):
        add_to_card(self.file, card(measurement(batch=2)))

    def check(self, ended):
        batches = {row.batch for row in read_card(self.file, "abc").rows}
        assert batches == {1, 2} if ended else batches in ({1}, {1, 2})


class Export:
    def __init__(self, place):
        self.out = place / "out"
        self.write(0)

    def write(self, seed):
        check_target(self.out, force=True)
        with whole_folder(self.out, force=True) as folder:
            (folder / "weights").write_text(str(seed))
            values = {"format": "hf", "subs": (), "text_columns": ("text",), "lengths": (12,), "labels": ("a", "b")}
            files = checksums(folder)
            write_manifest(folder, Manifest(**values, head="classification", files=files, written_by="dynabert_jax"))

    def check(self, ended):
        try:
            check_target(self.out, force=False)  # puts back what was moved aside
        except UserError:
            pass
        check_files(self.out, read_manifest(self.out))
        assert (self.out / "weights").read_text() in (("1",) if ended else ("0", "1"))


class ExportByRenames(Export):
    def __init__(self, place):
        export_folder.exchange = lambda *_: False
        super().__init__(place)


case, place = globals()[sys.argv[1]], Path(sys.argv[2])
place.mkdir()
tried = case(place)
before = place.with_name("before")
shutil.copytree(place, before)
kills, names = 0, None
while True:
    shutil.rmtree(place)
    shutil.copytree(before, place)
    killed = killed_at(kills, lambda: tried.write(1))
    tried.check(ended=not killed)
    tried.write(1)  # the next command
    tried.check(ended=True)
    left = [path.name for path in place.rglob("*") if ".tmp." in path.name]
    assert not left, left
    if not killed:
        break
    kills += 1
print("kills", kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize(("case", "least"), [("Publish", 10), ("Card", 2), ("Export", 5), ("ExportByRenames", 6)])
def test_a_kill_between_any_two_changes_leaves_the_old_state_or_the_new(
    case: str, least: int, finished_config: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHANGES, case, str(tmp_path / "place"), str(finished_config)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= least


@pytest.fixture
def finished_config(materials: Materials, tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(materials.config(tmp_path / "run").to_json())
    return tmp_path / "config"
