"""The reader of pytorch_model.bin: the same arrays as PyTorch's, and nothing but arrays."""

import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynabert_jax.weights.torch_file import WeightsError, read_torch_file
from torch_files import opcodes, state_pickle, write_legacy, write_zip

Write = Callable[[Path, bytes], Path]


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture(params=["zip", "legacy"])
def write(request: pytest.FixtureRequest) -> Write:
    return {"zip": write_zip, "legacy": write_legacy}[request.param]


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def torch_save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Any], Path]:
    torch = pytest.importorskip("torch")

    def save(value: Any) -> Path:
        torch.save(value, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=request.param)
        return tmp_path / "pytorch_model.bin"

    return save


def sample_state() -> dict[str, Any]:
    """A tensor of every type that is read, and views of all kinds."""
    import torch

    base: Any = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    types += [torch.int8, torch.uint8]
    return {f"{kind}": (10 * base).abs().to(kind) for kind in types} | {
        "bool": base > 0,
        "transposed": base.t(),
        "part": base[1:3, 2:5],
        "every other": base[::2, ::3],
        "one row": base[2],
        "expanded": base[:, :1].expand(4, 5),
        "scalar": base[1, 1],
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[:2]),
    }


def test_reads_what_torch_saves(torch_save: Callable[[Any], Path]) -> None:
    state = sample_state()
    read = read_torch_file(torch_save(state))
    assert list(read) == list(state)
    for name, tensor in state.items():
        assert str(read[name].dtype) == str(tensor.dtype).removeprefix("torch."), name
        assert read[name].shape == tuple(tensor.shape), name
        np.testing.assert_array_equal(read[name].astype(np.float64), tensor.detach().double().numpy(), err_msg=name)


def test_reads_the_state_dict_of_a_module(torch_save: Callable[[Any], Path]) -> None:
    """It carries `_metadata`, which a plain dict does not."""
    import torch

    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)).state_dict()
    read = read_torch_file(torch_save(state))
    assert list(read) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    np.testing.assert_array_equal(read["0.weight"], state["0.weight"].numpy())


def test_tied_tensors_share_memory_and_cannot_be_written(torch_save: Callable[[Any], Path]) -> None:
    import torch

    weight = torch.arange(6.0).reshape(2, 3)
    read = read_torch_file(torch_save({"a": weight, "b": weight, "c": weight.t()}))
    assert np.shares_memory(read["a"], read["b"])
    assert np.shares_memory(read["a"], read["c"])
    with pytest.raises(ValueError, match="read-only"):
        read["a"][0, 0] = 1


def test_a_file_that_runs_code_is_refused_and_does_not_run(write: Write, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    state = pickle.dumps({"w": Runs(os.system, f"touch {ran}")}, 2)
    with pytest.raises(WeightsError, match=rf"this file wants to run {os.system.__module__}\.system; only tensors"):
        read_torch_file(write(tmp_path / "evil.bin", state))
    assert not ran.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_plain_pickle_that_runs_code_is_refused(tmp_path: Path, protocol: int) -> None:
    path, ran = tmp_path / "evil.bin", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Runs(os.system, f"touch {ran}"), protocol))
    with pytest.raises(WeightsError, match=rf"{os.system.__module__}\.system"):
        read_torch_file(path)
    assert not ran.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins eval",
        "builtins getattr",
        "collections deque",
        "collections.OrderedDict fromkeys",
        "torch load",
        "torch FloatStorage.__init__",
        "torch.serialization load",
    ],
)
def test_every_other_global_is_refused_by_name(write: Write, tmp_path: Path, name: str) -> None:
    module, attribute = name.split()
    state = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    with pytest.raises(WeightsError, match=f"wants to run {module}.{attribute};"):
        read_torch_file(write(tmp_path / "evil.bin", state))


def test_a_file_cannot_change_the_reader(write: Write, tmp_path: Path) -> None:
    """A pickle may set attributes of the functions it names, such as defaults; that must not outlast the reading."""
    sound = state_pickle(0, (2, 3), (3, 1))
    state = b"N}" + opcodes("__defaults__") + b"(" + opcodes((3, 1)) + b"ts\x86"  # (None, {"__defaults__": ((3, 1),)})
    changing = sound[:2] + b"ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b0" + sound[2:]
    assert read_torch_file(write(tmp_path / "changing.bin", changing))["w"].shape == (2, 3)
    without_strides = sound.replace(opcodes((3, 1)) + b"\x89" + opcodes(OrderedDict()), b"")
    with pytest.raises(WeightsError, match="missing 1 required positional argument"):
        read_torch_file(write(tmp_path / "later.bin", without_strides))


@pytest.mark.parametrize("value", [[1.0], "text", None, 3])
def test_something_else_than_a_state_dict_is_refused(write: Write, tmp_path: Path, value: Any) -> None:
    with pytest.raises(WeightsError, match=f"holds a {type(value).__name__}; only a state dict"):
        read_torch_file(write(tmp_path / "other.bin", pickle.dumps(value, 2)))


def test_a_training_checkpoint_is_refused(torch_save: Callable[[Any], Path]) -> None:
    import torch

    with pytest.raises(WeightsError, match=r"holds a dict under 'model'.*save model\.state_dict"):
        read_torch_file(torch_save({"model": {"w": torch.ones(2)}, "epoch": 3}))


def test_tensors_that_are_negated_when_they_are_read_are_refused(torch_save: Callable[[Any], Path]) -> None:
    import torch

    file = torch_save({"w": torch._neg_view(torch.ones(2, 3)), "bias": torch.zeros(3)})
    assert torch.load(file)["w"].sum() == -6
    with pytest.raises(WeightsError, match=r"to be changed when they are read, \{'neg': True\}; in PyTorch, save"):
        read_torch_file(file)


def test_a_pickled_module_is_refused(torch_save: Callable[[Any], Path]) -> None:
    import torch

    with pytest.raises(WeightsError, match=r"wants to run torch\.nn\.modules\.linear\.Linear"):
        read_torch_file(torch_save(torch.nn.Linear(3, 2)))


def test_sound_views_are_read(write: Write, tmp_path: Path) -> None:
    """The counterpart of the next test: the crafted files are refused for their views alone."""
    storage = np.arange(6, dtype=np.float32)
    path = write(tmp_path / "sound.bin", state_pickle(1, (2, 2), (3, 1)), storage.tobytes())  # type: ignore[call-arg]
    np.testing.assert_array_equal(read_torch_file(path)["w"], [[1, 2], [4, 5]])


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (6, (), ()),
        (7, (0,), (1,)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (2, 3), (4, 1)),
        (0, (2, 3), (1,)),
        (0, (5,), (2**60,)),  # four times this stride, in bytes, is a multiple of 2**64
        (0, (2**64,), (0,)),
        (0, (2**40, 2**40), (0, 0)),
        (0, (1,) * 70, (1,) * 70),
        (0, ("2",), (1,)),
        (0, [2], [1]),
        (0.0, (2,), (1,)),
        (None, None, None),
    ],
)
def test_views_beyond_their_storage_are_refused(
    write: Write, tmp_path: Path, offset: Any, shape: Any, strides: Any
) -> None:
    with pytest.raises(WeightsError, match="is damaged"):
        read_torch_file(write(tmp_path / "view.bin", state_pickle(offset, shape, strides)))


@pytest.mark.parametrize("size", [5, 7, 2**40, -6])
def test_a_storage_of_another_size_is_refused(write: Write, tmp_path: Path, size: int) -> None:
    with pytest.raises(WeightsError, match="is damaged"):
        read_torch_file(write(tmp_path / "size.bin", state_pickle(0, (2, 2), (2, 1), size=size)))


def test_a_storage_that_is_not_there_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is damaged"):
        read_torch_file(write(tmp_path / "key.bin", state_pickle(0, (2, 3), (3, 1), key="../0")))


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "packed.bin", state_pickle(0, (2, 3), (3, 1)), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed"):
        read_torch_file(path)


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(WeightsError, match=r"it holds 0 data\.pkl"):
        read_torch_file(tmp_path / "other.zip")


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "big.bin", "w") as archive:
        archive.writestr("archive/data.pkl", state_pickle(0, (2, 3), (3, 1)))
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(WeightsError, match="big-endian"):
        read_torch_file(tmp_path / "big.bin")


@pytest.mark.parametrize("content", [b"", b"hello", b"<html>", b"PK\x03\x04", bytes(100), pickle.dumps(5)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.bin").write_bytes(content)
    with pytest.raises(WeightsError, match=r"other\.bin: the file is damaged, or not one that torch.save wrote"):
        read_torch_file(tmp_path / "other.bin")


def test_a_pickle_cannot_claim_memory_by_numbering_its_objects(write: Write, tmp_path: Path) -> None:
    state = b"\x80\x02Nr" + struct.pack("<I", 10**6) + b"."
    with pytest.raises(WeightsError, match="object number 1000000"):
        read_torch_file(write(tmp_path / "memo.bin", state))


def test_a_truncated_file_is_refused_wherever_it_ends(torch_save: Callable[[Any], Path]) -> None:
    path = torch_save(sample_state())
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError):
            read_torch_file(path)


def test_a_damaged_file_gives_a_weights_error_or_weights(torch_save: Callable[[Any], Path]) -> None:
    """No other exception, whichever bytes are wrong."""
    path = torch_save(sample_state())
    content = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_torch_file(path)
        except WeightsError:
            refused += 1
    assert refused > 50


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "nothing.bin")


@pytest.mark.parametrize("keys", [(), ("1",), (["0"],), ("0", "1")])
def test_storages_that_no_tensor_uses_are_refused(keys: Any, tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "model.bin", state_pickle(0, (2, 3), (3, 1)), keys=keys)
    with pytest.raises(WeightsError, match="its storages are not those that its tensors use"):
        read_torch_file(path)
