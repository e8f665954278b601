"""A damaged entry of jax's cache of compiled programs is replaced, once."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dynabert_jax.system.compiled import damaged_programs_replaced
from tiny_run import messages_logged, programs_kept_in


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_an_entry_that_is_cut_off_is_written_again(kept: int, tmp_path: Path) -> None:
    def tripled(a: jax.Array) -> jax.Array:
        return 3.0 * a

    def run() -> None:
        jax.clear_caches()
        assert jax.jit(tripled)(jnp.float32(2.0)) == 6.0

    with programs_kept_in(tmp_path):
        run()
        (entry,) = tmp_path.glob("jit_tripled-*")
        others = {path: path.read_bytes() for path in tmp_path.iterdir() if path != entry}
        whole = entry.read_bytes()
        entry.write_bytes(whole[:kept])
        with messages_logged() as messages, damaged_programs_replaced():
            run()
        assert messages == [
            f"a compiled program jit_tripled in {tmp_path} is damaged; it is compiled again, and its entry is replaced"
        ]
        assert len(entry.read_bytes()) > 0.9 * len(whole)
        assert all(path.read_bytes() == content for path, content in others.items())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run()


def test_other_warnings_are_shown() -> None:
    with pytest.warns(UserWarning, match="something else"), damaged_programs_replaced():
        warnings.warn("something else", stacklevel=1)
