"""Data parallelism: who gets what, and what comes back. Four CPU devices stand in for accelerators."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynabert_jax.system import devices
from dynabert_jax.system.devices import DeviceError
from dynabert_jax.system.packages import is_installed
from tiny_run import Finished

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


# Devices that do not start. jax reads these settings when a process begins.


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        ({"JAX_PLATFORMS": "typo"}, ["with JAX_PLATFORMS=typo (", "'typo' is not in the list", "runs on cpu"]),
        ({"JAX_PLATFORMS": "tpu"}, ["its devices with JAX_PLATFORMS=tpu (", 'pip install "jax[tpu]"']),
        ({"JAX_PLATFORMS": "", "JAX_PLATFORM_NAME": "typo"}, ["JAX_PLATFORM_NAME=typo (", "Unset JAX_PLATFORM_NAME"]),
        ({"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "0"}, ["Unset JAX_PLATFORMS and JAX_NUM_CPU_DEVICES to"]),
        ({"JAX_NUM_CPU_DEVICES": "x"}, ["jax cannot read a setting in the environment", '"x" for JAX flag']),
        ({"JAX_ENABLE_X64": "maybe"}, ["jax cannot read a setting in the environment", "'JAX_ENABLE_X64'"]),
        ({"JAX_ENABLE_X64": "1"}, ["jax_enable_x64 is on", "Unset JAX_ENABLE_X64"]),
    ],
)  # fmt: skip
def test_settings_with_which_jax_does_not_start_are_reported(
    settings: dict[str, str], messages: list[str], finished: Finished
) -> None:
    if "tpu" in settings.values() and is_installed("libtpu"):
        pytest.skip("there may be a TPU")
    command = [sys.executable, "-m", "dynabert_jax", "predict", str(finished.folder), "--text", "good"]
    done = subprocess.run(command, env=os.environ | settings, text=True, capture_output=True, timeout=300, check=False)
    errors = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert sum(line.startswith("error: ") for line in errors) == 1
    assert all(message in done.stderr for message in messages), done.stderr
    assert "Traceback" not in done.stderr


def test_a_platform_that_is_not_installed_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AssertionError

    monkeypatch.setattr(jax, "local_devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    for call in (devices.local, devices.num_devices):
        with pytest.raises(DeviceError, match=r"JAX_PLATFORMS=cuda \(it is not installed for that platform\).*runs on "
                                              r"cpu.*Unset JAX_PLATFORMS .*`pip install .jax\[cuda13\]"):  # fmt: skip
            call()


def test_double_precision_is_refused_where_devices_are_first_used() -> None:
    with jax.enable_x64(True), pytest.raises(DeviceError, match="jax_enable_x64 is on"):
        devices.local()
