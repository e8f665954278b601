"""A choice for a finished run: out of its scores and cards, reported in words and as JSON."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dynabert_jax.choose.choose import ChoiceError, Limits, Miss
from dynabert_jax.choose.question import Answer, Question, answer_for, ask, choose_run, missed_one
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.evaluate.rows import Teacher
from dynabert_jax.runs.finished import Finished, read_finished
from dynabert_jax.runs.folder import RunFolder
from dynabert_jax.runs.latency_card import LatencyError, Where, fingerprint, write_card
from tiny_rows import CPU, GPU, card, measurement, row
from tiny_run import Finished as FinishedRun

ROWS = (
    row(1.0, 1.0, 0.9, parameters=22_710_000, flops=1_450_000_000),
    row(0.5, 1.0, 0.87, parameters=17_390_000, flops=768_000_000),
    row(1.0, 0.5, 0.88, parameters=17_370_000, flops=725_000_000),
    row(0.5, 0.5, 0.8, parameters=14_710_000, flops=384_000_000),
    row(1.0, 1.0, 0.85, split="test"),
    row(0.5, 0.5, 0.86, split="test"),
)
MILLISECONDS = {"w1_d1": 8.0, "w0.5_d1": 6.0, "w1_d0.5": 4.0, "w0.5_d0.5": 3.0}


@pytest.fixture
def run(finished: FinishedRun, tmp_path: Path) -> Finished:
    """The tiny run with other scores, and none of a teacher, in a folder that is empty."""
    return dataclasses.replace(read_finished(finished.folder), folder=RunFolder(tmp_path), rows=ROWS, teacher=None)


@pytest.fixture
def measured(run: Finished) -> Finished:
    """With a card of its own, of the CPU at batch 1 and 8, where everything takes eight times as long."""
    rows = [
        measurement(sub=sub, median_ms=batch * median, batch=batch)
        for sub, median in MILLISECONDS.items()
        for batch in (1, 8)
    ]
    write_card(run.folder.path / "latency.json", card(*rows, model=model(run)))
    return run


def model(run: Finished) -> str:
    return fingerprint(run.shape, run.subs)


def best(run: Finished, limits: Limits, where: Where = Where(batch=1), **more: object) -> str:  # noqa: B008
    answer = answer_for(run, Question(limits, where, **more))  # type: ignore[arg-type]
    assert answer.choice.best is not None
    return answer.choice.best.sub


def test_what_is_on_paper_needs_no_card(run: Finished) -> None:
    assert best(run, Limits()) == "w1_d1"
    assert best(run, Limits(max_parameters=17.38e6)) == "w1_d0.5"
    assert best(run, Limits(max_flops=0.5e9)) == "w0.5_d0.5"
    assert best(run, Limits(min_score=87.0)) == "w1_d0.5"


def test_a_latency_is_that_of_the_card(measured: Finished) -> None:
    assert best(measured, Limits(max_latency_ms=5.0)) == "w1_d0.5"
    assert best(measured, Limits(max_latency_ms=25.0), Where(batch=8)) == "w0.5_d0.5"
    assert best(measured, Limits(min_score=85.0), cost="latency_ms") == "w1_d0.5"
    assert best(measured, Limits(max_latency_ms=5.0), split="test") == "w0.5_d0.5"


def test_a_card_can_come_from_another_device(measured: Finished, tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    rows = [measurement(device=GPU, sub=sub, median_ms=median / 4) for sub, median in MILLISECONDS.items()]
    write_card(file, card(*rows, model=model(measured)))
    for limits, where, sub in (
        (Limits(max_latency_ms=2.0), Where(device="H100"), "w1_d1"),
        (Limits(max_latency_ms=5.0), Where(device=CPU, batch=1), "w1_d0.5"),
    ):
        assert best(measured, limits, where, cards=(file,)) == sub
    (tmp_path / "latency.json").unlink()
    assert best(measured, Limits(max_latency_ms=1.0), Where(), cards=(file,)) == "w1_d0.5"


def test_without_a_card_it_is_said_how_to_make_one(run: Finished) -> None:
    with pytest.raises(LatencyError) as error:
        best(run, Limits(max_latency_ms=5.0))
    assert f"Run `dynabert bench {run.folder.path}` on the target device" in str(error.value)
    with pytest.raises(LatencyError, match="there is no latency card"):
        best(run, Limits(max_latency_ms=5.0), cards=(Path("missing.json"),))


def test_a_card_of_another_model_is_refused(run: Finished, tmp_path: Path) -> None:
    write_card(tmp_path / "other.json", card(measurement(), model="other"))
    with pytest.raises(LatencyError, match=r"other\.json is the latency card of another model"):
        best(run, Limits(max_latency_ms=5.0), cards=(tmp_path / "other.json",))


def test_what_was_not_measured_is_left_out_and_named(
    run: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "card.json"
    write_card(file, card(measurement(sub="w0.5_d1", median_ms=1.0), model=model(run)))
    with caplog.at_level(logging.WARNING):
        assert best(run, Limits(max_latency_ms=5.0), cards=(file,)) == "w0.5_d1"
    assert "left out, because no card has these latencies for them: w0.5_d0.5, w1_d0.5, w1_d1" in caplog.text
    write_card(file, card(measurement(sub="other"), model=model(run)))
    with pytest.raises(
        LatencyError, match=r"no card has these latencies for w0.5_d0.5, .+; measure them with `dynabert"
    ):
        best(run, Limits(max_latency_ms=5.0), cards=(file,))


def test_a_split_that_was_not_scored_names_those_that_were(run: Finished) -> None:
    with pytest.raises(ChoiceError, match=r"has no scores on split 'dve'; it has dev, test"):
        best(run, Limits(), split="dve")


TOLD = """\
w1_d0.5: accuracy x 100 is 88.00 on dev (1,004 examples); 4 ms, 17.37M parameters, 725M FLOPs

Limits: at most 5 ms, at most 1G FLOPs (AMD EPYC (2 threads), jax, float32, batch 1, 128 tokens). \
4 sub-networks compared; FLOPs at 64 tokens.

The Pareto front of accuracy against latency:

| sub-network | accuracy x 100 | latency | parameters | FLOPs |                                          |
| ----------- | -------------- | ------- | ---------- | ----- | ---------------------------------------- |
| w0.5_d0.5   | 80.00          | 3 ms    | 14.71M     | 384M  |                                          |
| w1_d0.5     | 88.00          | 4 ms    | 17.37M     | 725M  | chosen                                   |
| w1_d1       | 90.00          | 8 ms    | 22.71M     | 1.45G | latency 60.0 % above; FLOPs 45.0 % above |
"""


@pytest.fixture
def reading(measured: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    monkeypatch.setattr("dynabert_jax.choose.question.read_finished", lambda _: measured)
    return measured


def asked(limits: Limits) -> Question:
    return Question(limits, Where() if limits.max_latency_ms is None else Where(batch=1))


def chosen(limits: Limits) -> Answer:
    return choose_run("run", asked(limits))


@pytest.mark.usefixtures("reading")
def test_a_choice_in_words_has_the_front_around_it(capsys: pytest.CaptureFixture[str]) -> None:
    answer = chosen(Limits(max_latency_ms=5.0, max_flops=1e9))
    assert f"{answer}\n" == TOLD
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("reading")
def test_what_another_limit_keeps_off_the_front_is_in_the_table() -> None:
    output = str(chosen(Limits(max_parameters=17.38e6, min_score=85.0)))
    assert "Limits: at most 17.38M parameters, accuracy x 100 of at least 85." in output
    assert "| w0.5_d0.5   | 80.00          | 14.71M     | 384M  | score 5.00 below" in output
    assert "latency" not in output


def taught(run: Finished, score: float = 0.885) -> Finished:
    """With the scores of a teacher, on dev only."""
    rows = (row(1.0, 1.0, score).replace(sub="teacher"),)
    return dataclasses.replace(run, teacher=Teacher(rows=rows, weights="w", data={"dev": "d"}, time="t"))


def test_a_loss_is_relative_to_the_teacher(run: Finished) -> None:
    """With no other limit the cheapest; a size may be better than the teacher."""
    for loss, sub in ((0.0, "w1_d1"), (0.5, "w1_d0.5"), (1.5, "w1_d0.5"), (8.5, "w0.5_d0.5")):
        assert best(taught(run), Limits(max_loss=loss)) == sub
    assert best(taught(run), Limits(max_loss=1.5, max_flops=1e9)) == "w1_d0.5"
    assert best(taught(run, score=0.87), Limits(max_loss=0.0, max_parameters=17.4e6)) == "w1_d0.5"


def test_a_loss_is_reported_with_the_teachers_score(run: Finished) -> None:
    answer = answer_for(taught(run), Question(Limits(max_loss=1.0), Where()))
    assert str(answer).startswith("w1_d0.5: accuracy x 100 is 88.00, the teacher 88.50 on dev (1,004 examples); 17.37M")
    assert "Limits: accuracy x 100 at most 1 below the teacher's 88.50. 4 sub-networks" in str(answer)
    values = json.loads(answer.to_json())
    assert (values["teacher"], values["limits"]["max_loss"]) == (0.885, 0.01)
    with pytest.raises(ChoiceError, match=r"- w1_d0.5: score 88.00, 0.50 below 88.50") as error:
        _ = answer_for(taught(run), Question(Limits(max_loss=0.0, max_flops=1e9), Where())).best
    assert "at most 1G FLOPs, accuracy x 100 at most 0 below the teacher's 88.50" in str(error.value)


def test_a_loss_without_a_teachers_score_says_how_to_get_one(run: Finished) -> None:
    """An older run, a split that the teacher was not scored on, and a run in which nothing learns from one."""
    for one, split in ((run, "dev"), (taught(run), "test")):
        with pytest.raises(
            ChoiceError, match=rf"teacher's score on {split}.+Run `dynabert evaluate {run.folder.path}`"
        ):
            best(one, Limits(max_loss=1.0), split=split)
    alone = dataclasses.replace(run, config=run.config.replace(importance=None, width=None, depth=None))
    with pytest.raises(ChoiceError, match=r"nothing in .+ learns from one; use --min-score"):
        best(alone, Limits(max_loss=1.0))


@pytest.mark.usefixtures("reading")
def test_limits_on_scores_are_fractions_in_json() -> None:
    values = json.loads(chosen(Limits(min_score=87.0)).to_json())
    assert (values["limits"]["min_score"], values["limits"]["max_loss"], values["teacher"]) == (0.87, None, None)


@pytest.mark.usefixtures("reading")
def test_where_nothing_fits_the_nearest_is_named() -> None:
    with pytest.raises(ChoiceError) as error:
        chosen(Limits(max_latency_ms=2.0))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("nothing fits. Limits: at most 2 ms (AMD EPYC")
    assert lines[1:] == [
        "- w0.5_d0.5: 3 ms, 50.0 % above 2 ms",
        "- w1_d0.5: 4 ms, 100.0 % above 2 ms",
        "- w0.5_d1: 6 ms, 200.0 % above 2 ms",
        "- w1_d1: 8 ms, 300.0 % above 2 ms",
    ]


def test_what_is_far_beyond_its_limit_is_so_many_times_it() -> None:
    assert missed_one(Miss("parameters", 13_403_234, 2000)) == "13.4M parameters, 6,702 times 2K parameters"
    assert missed_one(Miss("latency_ms", 20.0, 2.0)) == "20 ms, 900.0 % above 2 ms"


@pytest.mark.parametrize(
    ("more", "named"),
    [({"where": Where(backend="foo", batch=8)}, "--backend, --batch: "), ({"cards": ["phone.json"]}, "--card: ")],
)
def test_what_describes_latencies_that_do_not_matter_is_refused(more: dict[str, Any], named: str) -> None:
    question = Question(**({"limits": Limits(max_parameters=20e6), "where": Where()} | more))
    with pytest.raises(ChoiceError, match=f"^{named}without a latency limit these options have no effect"):
        choose_run("run", question)


def test_a_batch_has_at_least_one_sentence() -> None:
    for wrong in ({"batch": 0}, {"length": -1}):
        with pytest.raises(ConfigError, match="greater than or equal to 1"):
            Where(**wrong)


def test_of_eight_bits_it_is_said_whose_scores_are_shown(run: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [measurement(sub=sub, backend="onnxruntime-int8", dtype="int8") for sub in MILLISECONDS]
    write_card(run.folder.path / "latency.json", card(*rows, model=model(run)))
    monkeypatch.setattr("dynabert_jax.choose.question.read_finished", lambda _: run)
    answer = chosen(Limits(max_latency_ms=1000.0))
    assert "Scores are the float model's; `dynabert export --format onnx --int8` measures" in str(answer)


@pytest.mark.usefixtures("reading")
def test_a_long_list_of_misses_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.choose.question.NEAREST", 1)
    with pytest.raises(ChoiceError, match=r"\n- w0.5_d0.5: 3 ms, 50.0 % above 2 ms\n- and 3 more$"):
        chosen(Limits(max_latency_ms=2.0))


@pytest.mark.usefixtures("reading")
def test_a_choice_as_json() -> None:
    values = json.loads(chosen(Limits(max_latency_ms=5.0)).to_json())
    assert values["chosen"] == {
        "sub": "w1_d0.5", "score": 0.88, "parameters": 17_370_000, "flops": 725_000_000, "latency_ms": 4.0
    }  # fmt: skip
    assert (values["split"], values["metric"], values["front_by"], values["flops_length"]) == (
        "dev",
        "accuracy",
        "latency_ms",
        64,
    )
    assert values["measured"]["device"] == CPU
    assert values["measured"]["length"] == 128
    assert [one["sub"] for one in values["front"]] == ["w0.5_d0.5", "w1_d0.5", "w1_d1"]
    assert values["nearest"] == []
    assert values["limits"]["max_latency_ms"] == 5.0


@pytest.mark.usefixtures("reading")
def test_json_of_nothing_has_the_nearest() -> None:
    values = json.loads(ask("run", asked(Limits(max_flops=1e8))).to_json())
    assert values["chosen"] is None
    assert values["measured"] is None
    assert [one["sub"] for one in values["nearest"]] == ["w0.5_d0.5", "w1_d0.5", "w0.5_d1", "w1_d1"]
    (miss,) = values["nearest"][0]["misses"]
    assert (miss["what"], miss["value"], miss["limit"], miss["part"]) == (
        "flops",
        384_000_000,
        1e8,
        pytest.approx(2.84),
    )
