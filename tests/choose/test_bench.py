"""The bench: what is timed in which order, what is made of the times, and what a run's card then holds.

How fast anything is, no test says.
"""

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from dynabert_jax import cost
from dynabert_jax.choose import backends, bench
from dynabert_jax.choose.bench import (
    WARM_UP,
    BenchSettings,
    bench_run,
    random_inputs,
    summary,
    table,
    time_shape,
    timed_in_turn,
)
from dynabert_jax.config.checked import ConfigError
from dynabert_jax.cost import Work
from dynabert_jax.data.batches import Inputs
from dynabert_jax.errors import MissingPackageError
from dynabert_jax.infer.runner import Answers, Runner
from dynabert_jax.runs.files import RunFolderError
from dynabert_jax.runs.latency_card import Card, LatencyError, Where, fingerprint, latencies, read_card, write_card
from dynabert_jax.subnetwork import SubNetwork
from tiny_rows import card, measurement
from tiny_run import MODEL, Finished

SUBS = (SubNetwork.uniform(MODEL, 1.0, 1.0), SubNetwork.uniform(MODEL, 1.0, 0.5))  # what the run ends with


class Machine:
    """A clock that stands still but for what is worked, and a log of the work."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def work(self, name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.log.append(name)
            self.now += seconds

        return call


def test_calls_take_turns_in_an_order_that_turns_around() -> None:
    machine, rounds = Machine(), list[int]()
    calls = {name: machine.work(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 4.0))}
    seconds = timed_in_turn(calls, 3, clock=lambda: machine.now, after_round=lambda: rounds.append(len(machine.log)))
    warm_up = 3 * WARM_UP
    assert machine.log == [*"a" * WARM_UP, *"b" * WARM_UP, *"c" * WARM_UP, *"abc", *"cba", *"abc"]
    assert rounds == [warm_up + 3, warm_up + 6, warm_up + 9]
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [4.0] * 3}


def test_what_is_timed_is_the_call_and_neither_compiling_nor_warming_up() -> None:
    machine = Machine()

    def slow_at_first() -> Iterator[float]:
        yield from [100.0] * WARM_UP
        while True:
            yield 1.0

    durations = slow_at_first()
    call = lambda: machine.work("call", next(durations))()  # noqa: E731
    assert timed_in_turn({"call": call}, 2, clock=lambda: machine.now) == {"call": [1.0, 1.0]}


def test_runners_compile_and_then_run_in_turn_on_the_inputs() -> None:
    inputs, ran, steps = random_inputs(MODEL, 2, 7), list[Any](), list[None]()

    def numbered(number: int) -> Runner:
        def answer(given: Inputs) -> Answers:
            ran.append((number, given))
            return Answers(np.zeros((2, 2)), Work.dense(2, 2, 7))

        return Runner(f"number {number}", answer, memory_bytes=lambda _: number)

    timings = time_shape({sub: numbered(i) for i, sub in enumerate(SUBS)}, inputs, 4, lambda: steps.append(None))
    assert [number for number, _ in ran[:2]] == [0, 1]  # what compiles is not timed
    assert len(ran) == 2 * (1 + WARM_UP + 4)
    assert all(given is inputs for _, given in ran)
    assert [len(timing.seconds) for timing in timings.values()] == [4, 4]
    assert [timing.memory_bytes for timing in timings.values()] == [0, 1]
    assert len(steps) == 2 + 4


def test_a_summary_of_times() -> None:
    seconds = [0.001 * (i + 1) for i in range(21)]
    values = summary(seconds, [2 * second for second in seconds])
    assert values["median_ms"] == pytest.approx(11.0)
    assert values["p95_ms"] == pytest.approx(20.0)
    assert values["speed_up"] == values["speed_up_low"] == values["speed_up_high"] == pytest.approx(2.0)


def test_a_machine_that_slows_down_does_not_change_the_speed_up() -> None:
    drift = np.linspace(1.0, 3.0, 20)
    assert summary(list(0.1 * drift), list(0.4 * drift))["speed_up"] == pytest.approx(4.0)


@pytest.mark.parametrize("rounds", [1, 3, 5])
def test_few_rounds_have_no_interval(rounds: int) -> None:
    values = summary([1.0] * rounds, [2.0] * rounds)
    assert (values["speed_up_low"], values["speed_up"], values["speed_up_high"]) == (None, 2.0, None)
    assert None not in summary([1.0] * 6, [2.0] * 6).values()
    row = measurement(rounds=rounds, speed_up=2.0, speed_up_low=None, speed_up_high=None)
    assert "2.00 (" not in table([row])


@pytest.mark.parametrize("rounds", [10, 20, 50])
def test_the_interval_holds_the_true_median_as_often_as_it_says(rounds: int) -> None:
    """Of ratios with a long tail, as times have. Interpolation between two of them costs a little."""
    rng, held = np.random.default_rng(0), 0
    for ratios in rng.exponential(size=(1000, rounds)):
        values = summary([1.0] * rounds, list(ratios))
        held += values["speed_up_low"] <= np.log(2) <= values["speed_up_high"]
    assert 0.92 < held / 1000 < 0.98


def test_inputs_are_full_sentences_of_the_models_words() -> None:
    inputs = random_inputs(MODEL, 3, 9)
    assert {array.shape for array in inputs} == {(3, 9)}
    assert {array.dtype for array in inputs} == {np.dtype(np.int32)}
    assert 0 <= inputs.input_ids.min() <= inputs.input_ids.max() < MODEL.vocab_size
    assert inputs.attention_mask.all()
    assert not inputs.token_type_ids.any()


def test_this_device_tells_what_it_is() -> None:
    origin = bench.here()
    assert origin.device
    assert origin.versions["jax"].count(".") == 2
    if origin.platform == "cpu":
        assert f"({origin.threads} threads)" in origin.device


# A whole bench


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A run's folder that may be written to, without its checkpoints."""
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("last", "best", "tensorboard"))
    return folder


def test_a_bench_writes_a_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = BenchSettings(batches=(1, 2), lengths=(7,), dtypes=("float32", "bfloat16"), rounds=6)
    benched = bench_run(run, settings)
    assert capsys.readouterr().out == ""
    new, output = benched.card, str(benched)
    assert read_card(run / "latency.json", fingerprint(MODEL, SUBS)) == new
    assert [(row.dtype, row.batch, row.sub) for row in new.rows] == [
        (dtype, batch, sub.name) for dtype in ("float32", "bfloat16") for batch in (1, 2) for sub in SUBS
    ]
    (origin,) = new.origins
    for row in new.rows:
        sub = next(sub for sub in SUBS if sub.name == row.sub)
        assert (row.device, row.time, row.backend, row.length, row.rounds) == (origin.device, origin.time, "jax", 7, 6)
        assert row.median_ms <= row.p95_ms
        assert row.speed_up_low <= row.speed_up <= row.speed_up_high
        assert row.ideal_speed_up == cost.flops(MODEL, SUBS[0], 7) / cost.flops(MODEL, sub, 7)
        bytes_of_a_kernel = {"float32": 4, "bfloat16": 2}[row.dtype]  # which most parameters belong to
        assert row.memory_bytes > bytes_of_a_kernel * cost.parameters(MODEL, sub)
        assert f"| {row.sub:<11} | jax     | {row.dtype:<8} | {row.batch}     | 7      | {row.median_ms:.3f}" in output
    for row in new.rows[::2]:
        assert row.speed_up == row.speed_up_low == row.speed_up_high == row.ideal_speed_up == 1.0
    assert output.startswith(f"{origin.device}, {origin.platform}, {origin.threads} threads; dynabert_jax ")
    assert output.endswith(f"written to {run / 'latency.json'}")


def test_two_benches_at_once_lose_no_row(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one writes its card while the first one measures."""
    measure, first = bench.measure, BenchSettings(batches=(1,), rounds=1)

    def measure_meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(bench, "measure", measure)
        bench_run(run, first.replace(batches=(8,)))
        return measure(*args)

    monkeypatch.setattr(bench, "measure", measure_meanwhile)
    bench_run(run, first)
    card = read_card(run / "latency.json", fingerprint(MODEL, SUBS))
    assert {(row.batch, row.sub) for row in card.rows} == {(batch, sub.name) for batch in (1, 8) for sub in SUBS}


def test_json_has_all_rows_and_the_card_grows(run: Path) -> None:
    elsewhere = measurement(device="elsewhere")
    write_card(run / "card.json", card(elsewhere, model=fingerprint(MODEL, SUBS)))
    settings = BenchSettings(subs=("w1_d0.5",), batches=(2,), lengths=(7,), dtypes=("float32",), rounds=2)
    benched = bench_run(run, settings, run / "card.json")
    new, printed = benched.card, json.loads(benched.to_json())
    assert printed["card"] == str(run / "card.json")
    assert printed["origin"]["device"] == new.origins[0].device
    assert [row["sub"] for row in printed["rows"]] == ["w1_d0.5", "w1_d1"]  # the full network stands beside it
    assert printed["rows"][0]["examples_per_second"] == new.rows[0].examples_per_second
    assert set(read_card(run / "card.json", new.model).rows) == {elsewhere, *new.rows}
    assert not (run / "latency.json").exists()


def test_what_is_left_out_is_the_runs_own(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[BenchSettings]()

    def measure(_model: Any, _subs: Any, settings: BenchSettings, origin: Any) -> Any:
        asked.append(settings)
        slow = {"speed_up": 1.1, "speed_up_low": 1.0, "speed_up_high": 1.2, "ideal_speed_up": 2.0}
        return (measurement(sub="w1_d0.5", device=origin.device, time=origin.time, **slow),)

    monkeypatch.setattr(bench, "measure", measure)
    output = str(bench_run(run, BenchSettings()))
    assert asked == [BenchSettings(subs=("w1_d1", "w1_d0.5"), lengths=(12,), dtypes=("float32",))]
    assert "Less than 80 % of the speed-up that their FLOPs promise, beyond noise:\n\nLikely cause: " in output
    assert "\n- w0.5_d1" not in output
    assert (
        "\n- w1_d0.5, batch 1, 128 tokens, jax, float32: 1.10 times as fast as the full network instead of 2.00"
        in output
    )


def test_a_backend_runs_in_its_own_dtype_and_the_card_says_so(run: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    on_cpu()
    settings = BenchSettings(
        subs=("w1_d0.5",), lengths=(7,), dtypes=("bfloat16", "float32"), rounds=2,
        backends=("jax", "onnxruntime", "onnxruntime-int8"),
    )  # fmt: skip
    new = bench_run(run, settings).card
    assert [(row.backend, row.dtype) for row in new.rows if row.sub == "w1_d0.5"] == [
        ("jax", "bfloat16"), ("jax", "float32"), ("onnxruntime", "float32"), ("onnxruntime-int8", "int8"),
    ]  # fmt: skip
    assert [row.memory_bytes is None for row in new.rows] == [row.backend != "jax" for row in new.rows]
    assert new.origins[0].versions["onnxruntime"].count(".") == 2
    assert read_card(run / "latency.json", new.model) == new
    assert {row.dtype for row in latencies(new, Where(backend="onnxruntime"))} == {"float32"}


def on_cpu() -> None:
    if bench.here().platform != "cpu":
        pytest.skip("jax has an accelerator here, and ONNX Runtime runs on the CPU")


def test_versions_are_those_of_the_backends_that_are_measured() -> None:
    assert "onnxruntime" not in bench.here().versions
    assert list(bench.here(("onnxruntime", "onnxruntime-int8")).versions) == [*bench.PACKAGES, "onnx", "onnxruntime"]


@pytest.fixture
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("something was measured"))


@pytest.mark.usefixtures("nothing_measured")
def test_what_cannot_be_done_is_reported_before_anything_is_measured(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="has no sub-network 'w2_d1'; did you mean 'w1_d1'"):
        bench_run(run, BenchSettings(subs=("w2_d1",)))
    with pytest.raises(LatencyError, match="25 tokens do not fit: the model has positions for 24"):
        bench_run(run, BenchSettings(lengths=(7, 25)))
    (tmp_path / "file").touch()
    with pytest.raises(LatencyError, match=r"cannot write .+; name another file with --out"):
        bench_run(run, BenchSettings(), tmp_path / "file" / "card.json")
    other: Card = card(measurement(), model="other")
    write_card(tmp_path / "card.json", other)
    with pytest.raises(LatencyError, match="latency card of another model"):
        bench_run(run, BenchSettings(), tmp_path / "card.json")
    assert read_card(tmp_path / "card.json", "other") == other


@pytest.mark.usefixtures("nothing_measured")
def test_what_a_backend_does_not_do_is_reported_before_anything_is_measured(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "require", lambda *_: None)
    with pytest.raises(LatencyError) as error:
        bench_run(run, BenchSettings(backends=("onnxruntime", "onnxruntime-int8"), dtypes=("float32", "bfloat16")))
    assert str(error.value) == (
        "no backend has --dtype bfloat16: onnxruntime runs in float32; onnxruntime-int8 runs in int8. "
        "Leave it out, or add --backend jax"
    )
    gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100")
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    with pytest.raises(LatencyError, match="onnxruntime runs on the CPU, and jax's first device here is NVIDIA H100:"):
        bench_run(run, BenchSettings(backends=("jax", "onnxruntime")))


@pytest.mark.usefixtures("nothing_measured")
def test_a_package_that_a_backend_needs_is_reported_before_anything_is_measured(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        MissingPackageError,
        match=r'--backend onnxruntime needs .+; run `.+python\S* -m pip install "dynabert_jax\[onnx\]"`',
    ):
        bench_run(run, BenchSettings(backends=("onnxruntime",)))


def test_several_of_anything_may_be_a_list() -> None:
    assert BenchSettings(subs=["w1_d1"], batches=[1, 8]) == BenchSettings(subs=("w1_d1",), batches=(1, 8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"subs": "w1_d1"},
        {"batches": (0,)},
        {"batches": ()},
        {"backends": ("onnx",)},
        {"backends": ()},
        {"lengths": (-1,)},
        {"rounds": 0},
        {"dtypes": ("float16",)},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        BenchSettings(**wrong)
