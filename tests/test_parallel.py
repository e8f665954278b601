"""Data parallelism: who gets what, and what comes back. Four CPU devices stand in for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynabert_jax import parallel

DEVICES = parallel.num_devices()
ROWS = np.arange(3 * DEVICES * 2, dtype=np.float32).reshape(3 * DEVICES, 2)  # [B, 2]


def test_there_are_four_devices_on_a_cpu() -> None:
    if jax.default_backend() == "cpu":
        assert DEVICES == 4


def test_split_gives_every_device_its_rows_in_order_and_join_puts_them_together() -> None:
    parts = parallel.split({"a": ROWS, "b": ROWS[:, 0]})
    assert parts["a"].shape == (DEVICES, 3, 2)
    assert parts["b"].shape == (DEVICES, 3)
    np.testing.assert_array_equal(parts["a"][DEVICES - 1], ROWS[-3:])
    joined = parallel.join(parts)
    np.testing.assert_array_equal(joined["a"], ROWS)
    np.testing.assert_array_equal(joined["b"], ROWS[:, 0])


def test_devices_compute_on_their_own_rows_and_sum_over_all() -> None:
    def function(factor: jax.Array, rows: jax.Array, power: int) -> tuple[jax.Array, jax.Array]:
        assert rows.shape == (3, 2)
        own = factor * rows**power
        return own + jax.lax.axis_index(parallel.AXIS), parallel.summed(own.sum())

    program = parallel.data_parallel(function, in_axes=(None, 0, None), out_axes=(0, None), static=2)
    for power in (1, 2):
        own, total = program(2.0, parallel.split(ROWS), power)
        device = np.repeat(np.arange(DEVICES), 3)[:, None]  # [B, 1]
        np.testing.assert_array_equal(parallel.join(own), 2.0 * ROWS**power + device)
        assert total.shape == ()
        np.testing.assert_allclose(total, 2.0 * (ROWS**power).sum(), rtol=1e-6)


def test_one_device_has_nothing_to_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    many = str(jax.make_jaxpr(parallel.summed, axis_env=[(parallel.AXIS, DEVICES)])(1.0))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    one = str(jax.make_jaxpr(parallel.summed, axis_env=[(parallel.AXIS, 1)])(1.0))
    assert "psum" in many
    assert "psum" not in one
    assert parallel.summed({"loss": 2.0}) == {"loss": 2.0}


def test_the_results_of_one_program_are_the_next_ones_arguments() -> None:
    """What is the same everywhere and what every device has its own of: neither is copied to the host between."""
    parts = parallel.split(ROWS)
    add = parallel.data_parallel(lambda sums, rows: sums + rows, in_axes=(0, 0), out_axes=0, donate=(0,))
    total = parallel.data_parallel(
        lambda offset, sums: offset + parallel.summed(sums.sum()), in_axes=(None, 0), out_axes=None
    )
    sums = add(jnp.zeros_like(parts), parts)
    sums = add(sums, parts)
    offset = total(parallel.replicate(jnp.zeros(())), sums)
    np.testing.assert_allclose(total(offset, sums), 4.0 * ROWS.sum(), rtol=1e-6)


def test_donated_memory_is_used_again() -> None:
    add = parallel.data_parallel(lambda sums, rows: sums + rows, in_axes=(0, 0), out_axes=0, donate=(0,))
    first = add(jnp.zeros((DEVICES, 3, 2)), parallel.split(ROWS))
    add(first, parallel.split(ROWS))
    assert first.is_deleted()


def test_replicate_puts_the_same_on_every_device_once() -> None:
    tree = parallel.replicate({"a": ROWS})
    assert tree["a"].sharding.device_set == set(jax.local_devices())
    assert tree["a"].is_fully_replicated
    np.testing.assert_array_equal(tree["a"], ROWS)
    again = parallel.replicate(tree)
    addresses = [[shard.data.unsafe_buffer_pointer() for shard in t["a"].addressable_shards] for t in (tree, again)]
    assert addresses[0] == addresses[1]


def test_rows_that_are_spread_are_computed_where_they_lie() -> None:
    doubled = jax.jit(lambda rows: 2 * rows)(parallel.spread({"a": ROWS})["a"])
    assert doubled.sharding.device_set == set(jax.local_devices())
    np.testing.assert_array_equal(doubled, 2 * ROWS)


def test_a_batch_that_does_not_divide_is_refused_with_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "num_devices", lambda: 4)
    parallel.check_divides(8, "data.batch_size")
    with pytest.raises(ValueError, match=r"^data\.batch_size 10 does not divide over 4 devices; use a multiple of 4, "
                                         r"such as 8 or 12$"):  # fmt: skip
        parallel.check_divides(10, "data.batch_size")
    with pytest.raises(ValueError, match=r"such as 4$"):
        parallel.check_divides(3, "data.batch_size")
