"""Word embeddings in fewer bytes: each row has a step of its own, and what is read back is known before."""

import numpy as np
import pytest

from dynabert_jax.model.params import Model
from dynabert_jax.weights.embeddings import in_int8, rounded, size_in_bytes, table_of, with_rows
from dynabert_jax.weights.torch_file import WeightsError
from tiny import CONFIG, ROBERTA, random_params


def test_rows_of_8_bits_by_hand() -> None:
    table = np.array([[127.0, -63.6, 0.4], [0.0, 0.0, 0.0], [-1e-3, 5e-4, 0.0], [2e4, 1.0, -2e4]], np.float32)
    rows = in_int8(table)
    assert rows.numbers.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 64, 0], [127, 0, -127]]
    np.testing.assert_allclose(rows.steps[:, 0], [1.0, 1.0, 1e-3 / 127, 2e4 / 127], rtol=1e-6)
    assert (rows.numbers.dtype, rows.steps.dtype) == (np.int8, np.float32)


def test_no_number_moves_by_more_than_half_a_step_of_its_row() -> None:
    table = np.random.default_rng(0).standard_normal((200, 32), np.float32) * np.logspace(-6, 3, 200)[:, None]
    table = table.astype(np.float32)
    rows = in_int8(table)
    assert (np.abs(rows.values - table) <= rows.steps * 0.50001).all()
    again = in_int8(rows.values)  # what is exported is made of the numbers that are read back
    np.testing.assert_array_equal(again.numbers, rows.numbers)
    np.testing.assert_allclose(again.steps, rows.steps, rtol=1e-6)


def test_only_the_words_are_rounded() -> None:
    model = Model(CONFIG, random_params(CONFIG))
    before = table_of(model.params)
    half = rounded(model, "float16")
    np.testing.assert_array_equal(table_of(half.params), before.astype(np.float16).astype(np.float32))
    assert half.params["embeddings"]["position"] is model.params["embeddings"]["position"]
    assert rounded(model, "float32").fingerprint == model.fingerprint
    assert np.abs(table_of(rounded(model, "int8").params) - before).max() > 0
    assert [size_in_bytes(before, kind) for kind in ("float32", "float16", "int8")] == [
        31 * 12 * 4,
        31 * 12 * 2,
        31 * 12 + 31 * 4,
    ]


def test_what_float16_cannot_hold_is_refused() -> None:
    model = Model(CONFIG, random_params(CONFIG))
    table_of(model.params)[3, 4] = 7e4
    with pytest.raises(WeightsError, match="a word embedding is 7e\\+04, and float16 goes up to 65504"):
        rounded(model, "float16")


def test_the_rows_of_the_tokens_that_stay() -> None:
    model = Model(ROBERTA, random_params(ROBERTA))
    kept = np.array([0, 1, 5, 30])
    small = with_rows(model, kept)
    assert (small.config.vocab_size, small.config.pad_token_id) == (4, 1)
    np.testing.assert_array_equal(table_of(small.params), table_of(model.params)[kept])
    assert with_rows(model, np.array([1, 4])).config.pad_token_id == 0
