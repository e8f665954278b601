"""Data parallelism: who gets what, and what comes back. Four CPU devices stand in for accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynabert_jax.system import devices

DEVICES = devices.num_devices()
ROWS = np.arange(3 * DEVICES * 2, dtype=np.float32).reshape(3 * DEVICES, 2)  # [B, 2]


def test_there_are_four_devices_on_a_cpu() -> None:
    if jax.default_backend() == "cpu":
        assert DEVICES == 4


def test_every_device_gets_its_rows_in_order() -> None:
    parts = devices.shard({"a": ROWS, "b": ROWS[:, 0]})
    assert parts["a"].shape == (DEVICES, 3, 2)
    assert parts["b"].shape == (DEVICES, 3)
    np.testing.assert_array_equal(parts["a"][DEVICES - 1], ROWS[-3:])
    np.testing.assert_array_equal(parts["a"].reshape(ROWS.shape), ROWS)
    np.testing.assert_array_equal(parts["b"].reshape(-1), ROWS[:, 0])


def test_one_host_has_the_rows_of_all() -> None:
    own = devices.rows_of_this_host({"a": ROWS})
    np.testing.assert_array_equal(own["a"], ROWS)
    np.testing.assert_array_equal(devices.rows_of_all_hosts(own)["a"], ROWS)


def test_devices_compute_on_their_own_rows_and_sum_over_all() -> None:
    def function(factor: jax.Array, rows: jax.Array, power: int) -> tuple[jax.Array, jax.Array]:
        assert rows.shape == (3, 2)
        own = factor * rows**power
        return own + jax.lax.axis_index(devices.AXIS).astype(own.dtype), devices.summed(own.sum())

    program = devices.data_parallel(function, in_axes=(None, 0, None), out_axes=(0, None), static=2)
    for power in (1, 2):
        own, total = program(2.0, devices.shard(ROWS), power)
        device = np.repeat(np.arange(DEVICES), 3)[:, None]  # [B, 1]
        np.testing.assert_array_equal(np.asarray(own).reshape(ROWS.shape), 2.0 * ROWS**power + device)
        assert total.shape == ()
        np.testing.assert_allclose(total, 2.0 * (ROWS**power).sum(), rtol=1e-6)


def test_one_device_has_nothing_to_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    many = str(jax.make_jaxpr(devices.summed, axis_env=[(devices.AXIS, DEVICES)])(1.0))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    one = str(jax.make_jaxpr(devices.summed, axis_env=[(devices.AXIS, 1)])(1.0))
    assert "psum" in many
    assert "psum" not in one
    assert devices.summed({"loss": 2.0}) == {"loss": 2.0}


def test_the_results_of_one_program_are_the_next_ones_arguments() -> None:
    """What is the same everywhere and what every device has its own of: neither is copied to the host between."""
    parts = devices.shard(ROWS)
    add = devices.data_parallel(lambda sums, rows: sums + rows, in_axes=(0, 0), out_axes=0, donate=(0,))
    total = devices.data_parallel(
        lambda offset, sums: offset + devices.summed(sums.sum()), in_axes=(None, 0), out_axes=None
    )
    sums = add(jnp.zeros_like(parts), parts)
    sums = add(sums, parts)
    offset = total(devices.replicate(jnp.zeros(())), sums)
    np.testing.assert_allclose(total(offset, sums), 4.0 * ROWS.sum(), rtol=1e-6)


def test_donated_memory_is_used_again() -> None:
    add = devices.data_parallel(lambda sums, rows: sums + rows, in_axes=(0, 0), out_axes=0, donate=(0,))
    first = add(jnp.zeros((DEVICES, 3, 2)), devices.shard(ROWS))
    add(first, devices.shard(ROWS))
    assert first.is_deleted()


def test_replicate_puts_the_same_on_every_device_once() -> None:
    tree = devices.replicate({"a": ROWS})
    assert tree["a"].sharding.device_set == set(jax.local_devices())
    assert tree["a"].is_fully_replicated
    np.testing.assert_array_equal(tree["a"], ROWS)
    again = devices.replicate(tree)
    addresses = [[shard.data.unsafe_buffer_pointer() for shard in t["a"].addressable_shards] for t in (tree, again)]
    assert addresses[0] == addresses[1]


def test_sharded_rows_are_computed_where_they_lie() -> None:
    doubled = jax.jit(lambda rows: 2 * rows)(devices.shard_rows({"a": ROWS}, jax.local_devices())["a"])
    assert doubled.sharding.device_set == set(jax.local_devices())
    np.testing.assert_array_equal(doubled, 2 * ROWS)


def test_a_batch_that_does_not_divide_is_refused_with_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynabert_jax.system.devices.num_devices", lambda: 4)
    devices.check_divides(8, "data.batch_size")
    with pytest.raises(ValueError, match=r"^data\.batch_size 10 does not divide over 4 devices; use a multiple of 4, "
                                         r"such as 8 or 12$"):  # fmt: skip
        devices.check_divides(10, "data.batch_size")
    with pytest.raises(ValueError, match=r"such as 4$"):
        devices.check_divides(3, "data.batch_size")
