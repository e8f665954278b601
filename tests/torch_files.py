"""PyTorch's two file formats, written by hand: sound or not."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any


def write_zip(path: Path, state: bytes, storage: bytes = bytes(24), compression: int = zipfile.ZIP_STORED) -> Path:
    """A file in the zip format with this pickle and one storage."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", state)
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/data/0", storage)
    return path


def write_legacy(path: Path, state: bytes, storage: bytes = bytes(24), keys: Any = ("0",)) -> Path:
    """A file in the format before PyTorch 1.6 with this pickle and one storage."""
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    start = b"".join(pickle.dumps(value, 2) for value in header)
    path.write_bytes(start + state + pickle.dumps(list(keys), 2) + struct.pack("<q", len(storage) // 4) + storage)
    return path


def opcodes(value: Any) -> bytes:
    """The part of a pickle that makes a value."""
    return pickle.dumps(value, 2)[2:-1]


def state_pickle(offset: Any, shape: Any, strides: Any, size: int = 6, key: str = "0") -> bytes:
    """{'w': a view of a storage of `size` float32} as torch.save pickles it, sound or not."""
    storage = (
        b"(" + opcodes("storage") + b"ctorch\nFloatStorage\n" + opcodes(key) + opcodes("cpu") + opcodes(size) + b"tQ"
    )
    view = (
        b"(" + storage + opcodes(offset) + opcodes(shape) + opcodes(strides) + b"\x89" + opcodes(OrderedDict()) + b"t"
    )
    return b"\x80\x02}" + opcodes("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + view + b"Rs."
