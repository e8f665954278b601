"""Latency cards: written and read back, merged, asked, and never taken for those of another model."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dynabert_jax.config.checked import ConfigError
from dynabert_jax.runs.latency_card import (
    LatencyError,
    Where,
    add_to_card,
    fingerprint,
    latencies,
    merge,
    read_card,
    write_card,
)
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, GRID, PER_LAYER, ROBERTA
from tiny_rows import CPU, EARLY, GPU, LATE, card, measurement


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = card(measurement(), measurement(sub="w0.5_d1", memory_bytes=12), measurement(device=GPU))
    write_card(tmp_path / "card.json", written)
    assert read_card(tmp_path / "card.json", "abc") == written
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_card_of_few_rounds_has_no_intervals(tmp_path: Path) -> None:
    written = card(measurement(rounds=3, speed_up_low=None, speed_up_high=None))
    write_card(tmp_path / "card.json", written)
    assert read_card(tmp_path / "card.json", "abc") == written


def test_examples_per_second_are_those_of_the_median() -> None:
    assert measurement(batch=8, median_ms=4.0).examples_per_second == 2000.0


def test_a_card_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    with pytest.raises(LatencyError, match=r"there is no latency card .+card\.json; `dynabert bench RUN` writes one"):
        read_card(file, "abc")
    write_card(file, card(measurement(), model="of-another"))
    with pytest.raises(LatencyError, match=r"latency card of another model \(of-another; this one is abc\)"):
        read_card(file, "abc")
    for text in ("{", "[]", '{"model": "abc"}', file.read_text().replace("median_ms", "median")):
        file.write_text(text)
        with pytest.raises(LatencyError, match=r"card\.json is not a latency card, or is damaged"):
            read_card(file, "abc")
    with pytest.raises(LatencyError, match=r"cannot write .+; free some space, or name another file with --out"):
        write_card(file / "card.json", card(measurement()))


def test_a_number_that_was_changed_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "card.json"
    write_card(file, card(measurement(median_ms=8.0)))
    file.write_text(file.read_text().replace('"median_ms": 8.0', '"median_ms": 3.0'))
    with pytest.raises(LatencyError, match="it was changed after it was written"):
        read_card(file, "abc")


def test_two_rows_of_one_measurement_are_refused() -> None:
    with pytest.raises(ConfigError, match="two rows for the same measurement"):
        card(measurement(median_ms=8.0), measurement(median_ms=3.0))


ADD = """
import sys
from pathlib import Path
from dynabert_jax.runs.latency_card import add_to_card
from tiny_rows import card, measurement

for batch in range(int(sys.argv[2]), int(sys.argv[2]) + 20):
    add_to_card(Path(sys.argv[1]), card(measurement(batch=batch)))
"""


def test_processes_that_add_rows_at_once_lose_none(tmp_path: Path) -> None:
    file, tests = tmp_path / "card.json", Path(__file__).parents[1]
    processes = [
        subprocess.Popen([sys.executable, "-c", ADD, str(file), str(first)], cwd=tests.parent,
                         env=os.environ | {"PYTHONPATH": f"{tests.parent}:{tests}"})
        for first in (1, 21, 41)
    ]  # fmt: skip
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert {row.batch for row in read_card(file, "abc").rows} == set(range(1, 61))


def test_a_card_gets_the_folder_that_it_is_to_lie_in(tmp_path: Path) -> None:
    file = tmp_path / "new" / "cards" / "card.json"
    write_card(file, card(measurement()))
    assert read_card(file, "abc") == card(measurement())
    assert list(file.parent.iterdir()) == [file]


def test_a_card_without_rows_is_none() -> None:
    with pytest.raises(ConfigError, match="rows"):
        card()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_later_measurement_takes_the_place_of_an_earlier_one(order: tuple[int, ...]) -> None:
    old = card(measurement(), measurement(sub="w0.5_d1"))
    new = card(measurement(time=LATE, median_ms=7.0))
    elsewhere = card(measurement(device=GPU, median_ms=1.0))
    merged = merge([(old, new, elsewhere)[i] for i in order])
    assert set(merged.rows) == {new.rows[0], old.rows[1], elsewhere.rows[0]}
    assert len(merged.rows) == 3
    assert {(origin.device, origin.time) for origin in merged.origins} == {(CPU, EARLY), (CPU, LATE), (GPU, EARLY)}


def test_of_two_at_the_same_time_the_last_given_stays() -> None:
    first, second = card(measurement(median_ms=1.0)), card(measurement(median_ms=2.0))
    assert merge([first, second]).rows == second.rows
    assert merge([second, first]).rows == first.rows


def test_a_new_measurement_counts_though_the_clock_was_set_back(tmp_path: Path) -> None:
    add_to_card(tmp_path / "card.json", card(measurement(time=LATE), measurement(time=LATE, batch=2)))
    new = card(measurement(time=EARLY, median_ms=7.0))
    add_to_card(tmp_path / "card.json", new)
    rows = read_card(tmp_path / "card.json", new.model).rows
    assert set(rows) == {new.rows[0], measurement(time=LATE, batch=2)}


def test_an_origin_that_no_row_is_of_is_dropped() -> None:
    old, new = card(measurement()), card(measurement(time=LATE))
    assert merge([old, new]) == new


@pytest.mark.parametrize("change", ["device", "backend", "dtype", "sub"])
def test_what_differs_in_anything_else_stays_beside_it(change: str) -> None:
    assert len(merge([card(measurement()), card(measurement(**{change: "other"}))]).rows) == 2


def test_shapes_stay_beside_each_other() -> None:
    assert len(merge([card(measurement()), card(measurement(batch=2)), card(measurement(length=2))]).rows) == 3


def test_cards_of_different_models_are_not_merged() -> None:
    for cards in ([], [card(measurement()), card(measurement(), model="def")]):
        with pytest.raises(LatencyError, match="only cards of the same model"):
            merge(cards)


SHAPES = card(
    *(measurement(sub=sub, batch=batch, length=length) for sub in ("w1_d1", "w0.5_d1") for batch in (1, 8)
      for length in (32, 128)),
    measurement(device=GPU, dtype="bfloat16"),
    measurement(device=GPU + " NVL", dtype="bfloat16"),
)  # fmt: skip


def test_what_the_card_has_one_of_need_not_be_said() -> None:
    rows = latencies(SHAPES, Where(device="epyc", batch=8, length=32))
    assert [(row.sub, row.batch, row.length) for row in rows] == [("w1_d1", 8, 32), ("w0.5_d1", 8, 32)]
    assert latencies(card(measurement()), Where()) == (measurement(),)


def test_a_whole_name_is_meant_before_a_part_of_one() -> None:
    assert [row.device for row in latencies(SHAPES, Where(device=GPU))] == [GPU]
    assert [row.device for row in latencies(SHAPES, Where(device="nvl"))] == [GPU + " NVL"]


def test_a_backend_is_meant_exactly() -> None:
    """One's name is a part of another's."""
    both = [measurement(backend=name, dtype=dtype) for name, dtype in (("onnxruntime", "float32"),
                                                                      ("onnxruntime-int8", "int8"))]  # fmt: skip
    assert latencies(card(*both), Where(backend="onnxruntime")) == (both[0],)
    with pytest.raises(LatencyError, match="has no backend onnxruntime; it has onnxruntime-int8"):
        latencies(card(both[1]), Where(backend="onnxruntime"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (Where(), f"more than one device: {CPU}, {GPU}, {GPU} NVL; say which with --device"),
        (Where(device="nvidia"), f"more than one device: {GPU}, {GPU} NVL; say which with --device"),
        (Where(device="TPU"), f"has no device TPU; it has {CPU}, {GPU}, {GPU} NVL. Choose another --device, or"),
        (Where(device=CPU, length=32), "more than one batch: 1, 8; say which with --batch"),
        (Where(device=CPU, batch=1, length=64), "has no length 64; it has 32, 128. Choose another --length"),
        (Where(device=CPU, dtype="bfloat16"), "has no dtype bfloat16; it has float32"),
        (Where(device=CPU, dtype="float"), "has no dtype float; it has float32"),
        (Where(device=CPU, backend="onnx"), "has no backend onnx; it has jax"),
    ],
)
def test_what_the_card_has_not_or_too_much_of_is_named(where: Where, message: str) -> None:
    with pytest.raises(LatencyError) as error:
        latencies(SHAPES, where)
    assert message in str(error.value)


def test_the_fingerprint_is_of_sizes_and_structures() -> None:
    known = fingerprint(CONFIG, GRID)
    assert len(known) == 64
    assert fingerprint(CONFIG, GRID[::-1]) == known
    assert fingerprint(CONFIG.replace(labels=("a", "b", "c"), hidden_dropout=0.5), GRID) == known
    others = [
        fingerprint(ROBERTA, GRID),
        fingerprint(CONFIG.replace(labels=("no", "yes")), GRID),
        fingerprint(CONFIG.replace(hidden_size=13), GRID),
        fingerprint(CONFIG.replace(neurons=(20, 20, 21)), GRID),
        fingerprint(CONFIG, GRID[:-1]),
        fingerprint(CONFIG, (*GRID[:-1], SubNetwork(PER_LAYER.layers, PER_LAYER.heads, (5, 16)))),
    ]
    assert len({known, *others}) == 1 + len(others)


def test_cards_are_read_and_sizes_chosen_without_jax() -> None:
    program = "import sys, dynabert_jax.{0}; assert not {{'jax', 'flax'}} & set(sys.modules)"
    for module in ("runs.latency_card", "choose.choose", "choose.audit"):
        subprocess.run([sys.executable, "-c", program.format(module)], check=True, timeout=120)
