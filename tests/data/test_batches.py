import itertools
import time

import jax
import numpy as np
import pytest

from dynabert_jax.data.batches import PlannedBatch, make_batch, plan_batch, plan_epoch, plan_evaluation
from dynabert_jax.data.encode import Split

LENGTHS = (8, 16, 32)
PAD = 9


def make_split(count: int, seed: int = 0) -> Split:
    """Rows of 2 to 32 tokens; every id tells its row."""
    sizes = np.random.default_rng(seed).integers(2, 33, count)
    ids = [np.full(size, 100 + row, np.int32) for row, size in enumerate(sizes)]
    types = [(np.arange(size) >= size // 2).astype(np.int32) for size in sizes]
    return Split("train", ids, types, np.arange(count, dtype=np.int32) % 3)


@pytest.mark.parametrize("count", [1, 31, 32, 33, 3300])
def test_an_epoch_has_every_row_once_in_the_fewest_batches(count: int) -> None:
    plan = plan_epoch(make_split(count), 32, LENGTHS, seed=[0, 0])
    assert sorted(np.concatenate([planned.rows for planned in plan])) == list(range(count))
    assert len(plan) == -(-count // 32)
    assert sum(len(planned.rows) < 32 for planned in plan) == (count % 32 > 0)


def test_each_batch_is_as_long_as_its_longest_row_needs() -> None:
    split = make_split(3300)
    for planned in plan_epoch(split, 32, LENGTHS, seed=[0, 0]):
        longest = max(len(split.input_ids[row]) for row in planned.rows)
        assert planned.length == (8 if longest <= 8 else 16 if longest <= 16 else 32)


def rows_in_order(plan: tuple[PlannedBatch, ...]) -> list[int]:
    return np.concatenate([planned.rows for planned in plan]).tolist()


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    split = make_split(500)
    first = rows_in_order(plan_epoch(split, 32, LENGTHS, seed=[1, 2]))
    assert first == rows_in_order(plan_epoch(make_split(500), 32, LENGTHS, seed=[1, 2]))
    assert first != rows_in_order(plan_epoch(split, 32, LENGTHS, seed=[2, 2]))
    assert first != rows_in_order(plan_epoch(split, 32, LENGTHS, seed=[1, 3]))


def test_sorting_by_length_leaves_little_padding_and_shuffles_the_batches() -> None:
    split = make_split(8000)
    plan = plan_epoch(split, 32, LENGTHS, seed=[0, 0])
    padded = sum(len(planned.rows) * planned.length for planned in plan)
    needed = sum(min(length for length in LENGTHS if length >= size) for size in split.sizes)
    assert padded < 1.02 * needed
    longer = [later.length > earlier.length for earlier, later in itertools.pairwise(plan)]
    assert sum(longer) > len(plan) / 5


def test_a_single_length_is_a_plain_shuffle() -> None:
    """Nothing is won by sorting then, and batches of alike sentences would train differently."""
    split = make_split(3200)
    plan = plan_epoch(split, 32, (LENGTHS[-1],), seed=[0, 0])
    within = np.mean([split.sizes[planned.rows].std() for planned in plan])
    assert within > 0.9 * split.sizes.std()


def test_an_evaluation_has_every_row_once_shortest_first() -> None:
    split = make_split(1004)
    plan = plan_evaluation(split, 32, LENGTHS)
    assert [len(planned.rows) for planned in plan] == [32] * 31 + [12]
    assert sorted(rows_in_order(plan)) == list(range(1004))
    assert (np.diff(split.sizes[rows_in_order(plan)]) >= 0).all()


def test_a_batch_holds_the_rows_and_padding() -> None:
    split = Split(
        "dev",
        [np.array([1, 5, 2], np.int32), np.array([1, 6, 2, 7, 2], np.int32)],
        [np.array([0, 0, 0], np.int32), np.array([0, 0, 0, 1, 1], np.int32)],
        np.array([0.5, -2.0], np.float32),
    )
    batch = make_batch(split, PlannedBatch(np.array([1, 0]), 6), batch_size=3, pad_token_id=PAD)
    np.testing.assert_array_equal(batch.inputs.input_ids, [[1, 6, 2, 7, 2, PAD], [1, 5, 2, PAD, PAD, PAD], [PAD] * 6])
    np.testing.assert_array_equal(
        batch.inputs.attention_mask, [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(batch.inputs.token_type_ids, [[0, 0, 0, 1, 1, 0], [0] * 6, [0] * 6])
    np.testing.assert_array_equal(batch.labels, [-2.0, 0.5, 0.0])
    np.testing.assert_array_equal(batch.weights, [1, 1, 0])
    dtypes = [array.dtype.name for array in jax.tree.leaves(batch)]
    assert dtypes == ["int32", "int32", "int32", "float32", "float32"]


def test_batches_hold_every_row_of_a_split_unharmed() -> None:
    split = make_split(100)
    for planned in plan_epoch(split, 32, LENGTHS, seed=[0, 0]):
        batch = make_batch(split, planned, 32, PAD)
        assert batch.inputs.input_ids.shape == (32, planned.length)
        for i, row in enumerate(planned.rows):
            real = batch.inputs.attention_mask[i] == 1
            np.testing.assert_array_equal(batch.inputs.input_ids[i][real], split.input_ids[row])
            np.testing.assert_array_equal(batch.inputs.token_type_ids[i][real], split.token_type_ids[row])
            assert (batch.inputs.input_ids[i][~real] == PAD).all()
            assert batch.labels[i] == split.labels[row]


def test_a_row_longer_than_every_length_is_refused() -> None:
    split = make_split(100)
    with pytest.raises(ValueError, match=r"has \d+ tokens, more than the largest of the lengths \(8, 16\)"):
        plan_evaluation(split, 32, (8, 16))


def test_a_batch_of_chosen_rows() -> None:
    split = make_split(100)
    rows = np.flatnonzero(split.sizes <= 8)[:5]
    planned = plan_batch(split, rows, LENGTHS)
    assert planned.length == 8
    np.testing.assert_array_equal(planned.rows, rows)


def test_batching_an_epoch_takes_no_time_worth_naming() -> None:
    split = make_split(8000)
    start = time.process_time()
    for planned in plan_epoch(split, 32, LENGTHS, seed=[0, 0]):
        make_batch(split, planned, 32, PAD)
    assert time.process_time() - start < 1.0
