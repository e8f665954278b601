"""A dry run checks everything, tells what would happen, and writes nothing."""

import re
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from dynabert_jax import cost
from dynabert_jax.config import Importance
from dynabert_jax.cost import size
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.plan import plan_run
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.progress import progress
from dynabert_jax.train import dry_run
from dynabert_jax.train.context import Context
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.dry_run import Tried, seconds_between, spoken, try_stage
from dynabert_jax.train.run import dry_run as try_run
from dynabert_jax.train.step_order import steps_from
from dynabert_jax.weights.files import load_model
from dynabert_jax.weights.names import init_params
from tiny_run import Finished, Materials


@pytest.fixture
def context(materials: Materials, tmp_path: Path) -> Context:
    """44 training, 21 dev and 13 test sentences, of which those of up to 6 tokens are batched apart."""
    data = materials.data(lengths=(6, 12))
    config = materials.config(tmp_path, data=data, importance=Importance(batch_size=8, max_examples=20))
    pretrained = load_model(materials.model, labels=tiny_run.LABELS)
    plan = plan_run(pretrained.config, config)
    return Context(
        config, plan, pretrained, load_data(data, load_tokenizer(materials.model, tiny_run.MODEL)), RunFolder(tmp_path)
    )


def padded_tokens(sizes: Any, batch: int) -> list[int]:
    """To how many tokens each sentence of a split is padded when it is scored, counted by hand."""
    ordered = sorted(sizes)
    batches = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    return [6 if max(group) <= 6 else 12 for group in batches for _ in group]


def test_a_stages_time_is_compiling_and_steps_and_evaluations(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that a first step takes 9 seconds on and every other one 2, with the longest batch."""
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 22.0, 30.0, 32.0])
    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr("dynabert_jax.train.dry_run.train_step", lambda *_: (None, None))
    objective = plan_run(tiny_run.MODEL, context.config).stages[2]
    students = {sub.name: sub for sub in objective.students}
    assert objective.name == "depth"
    assert len(students) == 4

    def per_sentence(tokens: int) -> int:
        """Both teachers once, and the layers of each width thrice: of its two depths one layer is shared."""
        teachers = sum(cost.flops(tiny_run.MODEL, students[name], tokens) for name in ("w1_d1", "w0.5_d1"))
        together = sum(
            cost.flops_together(tiny_run.MODEL, [students[f"{width}_d1"], students[f"{width}_d0.5"]], tokens)
            for width in ("w1", "w0.5")
        )
        return teachers + 3 * together

    found = try_stage(context, Distillation(objective), init_params(tiny_run.MODEL, seed=0), progress("", 4, "steps"))
    per_flop = 2.0 / (8 * per_sentence(12))
    assert (found.steps, found.first_step, found.second_per_flop) == (12, 9.0, pytest.approx(per_flop))

    planned = [step.planned for step in steps_from(context, Distillation(objective), 0)]
    assert {one.length for one in planned} == {6, 12}
    assert sum(len(one.rows) for one in planned) == 2 * 44
    training = per_flop * sum(len(one.rows) * per_sentence(one.length) for one in planned)
    assert found.step == pytest.approx(training / 12)
    dev = padded_tokens(context.data.dev["dev"].sizes, 8)
    scored = sum(cost.flops(tiny_run.MODEL, sub, tokens) for sub in objective.students for tokens in dev)
    assert found.total == pytest.approx(2 * 7.0 + training + 2 * per_flop * scored)  # two lengths, two evaluations


def test_what_lies_between_the_stages_goes_by_its_products(context: Context) -> None:
    plan = plan_run(tiny_run.MODEL, context.config)
    first, last = (Tried(name, 1, 1, 1.0, 1.0, 1.0, rate) for name, rate in (("fine_tune", 1e-6), ("final", 1e-9)))
    found = seconds_between(context, [first, last])
    sizes = [split.sizes for split in (context.data.dev["dev"], context.data.test["test"])]
    tokens = [padded for split in sizes for padded in padded_tokens(split, 8)]
    scored = sum(cost.flops(tiny_run.MODEL, sub, length) for sub in plan.stages[-1].students for length in tokens)
    assert found["the final scores"] == pytest.approx(1e-9 * scored)
    batches = dry_run.importance_plan(context, context.config.importance or Importance())
    assert sum(len(one.rows) for one in batches) == 20
    forward = sum(
        len(one.rows) * cost.flops(tiny_run.MODEL, SubNetwork.full(tiny_run.MODEL), one.length) for one in batches
    )
    assert found["importance"] == pytest.approx(3e-6 * forward)
    assert list(found) == ["the final scores", "importance"]


@pytest.mark.usefixtures("shared_programs")
def test_the_plan_is_reported_and_nothing_is_written(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = str(try_run(finished.config.replace(run_dir=str(tmp_path / "run"))))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "dry run, final: 100 %, 16 of 16 steps" in shown.err  # four of each stage
    assert not (tmp_path / "run").exists()
    assert "data: 44 train, 21 dev, 13 test examples; batches of 8, up to 12 tokens" in text
    assert re.search(
        r"^train: 44 rows; bad \d+, good \d+; \d+ tokens in the median and 11 at most; 0\.0 %", text, re.MULTILINE
    )
    assert re.search(r"^test: 13 rows; .+; 0\.0 % of tokens unknown; .+; 2 texts also in train$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    stages = {row[0]: row[1:] for row in rows}
    assert {name: stages[name][:2] for name in ("fine_tune", "width", "depth", "final")} == {
        "fine_tune": ["1", "12"], "width": ["2", "12"], "depth": ["4", "12"], "final": ["2", "12"],
    }  # fmt: skip
    shape = tiny_run.MODEL
    half = SubNetwork.uniform(shape, 1.0, 0.5)
    assert stages["w1_d0.5"] == [size(cost.parameters(shape, half)), size(cost.flops(shape, half, 12))]
    assert stages["w1_d0.5"][0] == "3.034K"
    assert re.search(r"in total about .+ from the start: .*, the final scores \(\d+ s\), importance \(\d+ s\);", text)
    assert f"nothing was written to {tmp_path / 'run'}" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (90000, "25 h 00 min")],
)
def test_times_are_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
