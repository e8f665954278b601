"""A dry run checks everything, tells what would happen, and writes nothing."""

import re
from pathlib import Path

import pytest

import train
from dynabert_jax.rehearsal import spoken
from tiny_run import Finished


@pytest.mark.usefixtures("shared_programs")
def test_the_plan_is_told_and_nothing_is_written(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.run(finished.config.replace(run_dir=str(tmp_path / "run")), dry_run=True) == []
    told = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert "data: 44 train, 21 dev, 13 test examples; batches of 8, up to 12 tokens" in told
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("|")]
    stages = {row[0]: row[1:] for row in rows}
    assert {name: stages[name][:2] for name in ("fine_tune", "width", "depth", "final")} == {
        "fine_tune": ["1", "12"], "width": ["2", "12"], "depth": ["4", "12"], "final": ["2", "12"],
    }  # fmt: skip
    assert stages["w1_d0.5"] == ["0.0 M", "0.00 G"]
    assert re.search(r"in all about \d+ s from the beginning: .*, the final scores \(0 s\), importance \(0 s\);", told)
    assert f"nothing was written to {tmp_path / 'run'}" in told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (90000, "25 h 00 min")],
)
def test_times_are_spoken(seconds: float, told: str) -> None:
    assert spoken(seconds) == told
