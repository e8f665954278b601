"""Reads `pytorch_model.bin` without torch, and without letting the file run anything.

Such a file is a pickle, and a pickle may name any function to be called. This reader knows three names that rebuild
tensors and the storage types, and refuses a file that names anything else.
"""

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from dynabert_jax.errors import UserError


class WeightsError(UserError, ValueError):
    """Weights that cannot be read, written or used; the message says which, why, and what to do."""


# PyTorch stores the numbers in the byte order of the machine that saved them: little-endian, in practice.
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


class _Storage(NamedTuple):
    """A flat array that the pickle refers to by its key; `size` counts numbers, not bytes."""

    dtype: np.dtype[Any]
    key: str
    size: int


class _View(NamedTuple):
    """A tensor as the pickle describes it: a strided view of a storage. Nothing in it has been checked yet."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a state dict that `torch.save` wrote, in the zip format or in the one before PyTorch 1.6.

    Args:
        path: the file.

    Returns:
        The tensors by name. They are read-only views; tied tensors share their memory.

    Raises:
        WeightsError: the file is damaged, contains anything but tensors, or names code to run.
        OSError: the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        try:
            start = file.read(len(_ZIP_START))
            file.seek(0)
            return _read_zip(file) if start == _ZIP_START else _read_legacy(file)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from error.__cause__


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    """The format since PyTorch 1.6: a zip of NAME/data.pkl and one file NAME/data/KEY for each storage."""
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise WeightsError(
                    f"torch.save did not write this zip file: it holds {len(pickles)} data.pkl instead of one; copy or "
                    "download it again"
                )
            folder = pickles[0].removesuffix("data.pkl")
            byte_order = f"{folder}byteorder"  # absent before PyTorch 2.1
            if byte_order in archive.namelist():
                _check_little_endian(_read_stored(archive, byte_order) == b"little")
            views = _views(_unpickle(io.BytesIO(_read_stored(archive, pickles[0]))))
            keys = {view.storage.key for view in views.values()}
            storages = {key: _read_stored(archive, f"{folder}data/{key}") for key in keys}
    except WeightsError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
        raise _damaged(error) from error
    return _arrays(views, storages)


def _read_stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of the archive. PyTorch never compresses; a compressed file could unpack to any size."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise _damaged(f"{name} is missing in the archive") from None
    if info.compress_type != zipfile.ZIP_STORED:
        raise WeightsError(f"{name} is compressed, so torch.save did not write it; save the file again with PyTorch")
    return archive.read(info)


def _read_legacy(file: IO[bytes]) -> dict[str, np.ndarray]:
    """The format before PyTorch 1.6: magic number, version, machine, state dict, storage keys, then the storages.

    Each of the first five is a pickle; each storage is its length, int64, and its numbers.
    """
    if _unpickle(file) != _LEGACY_MAGIC or _unpickle(file) != _LEGACY_VERSION:
        raise _damaged("its beginning is not that of such a file")
    machine = _unpickle(file)
    _check_little_endian(isinstance(machine, dict) and machine.get("little_endian") is True)
    views = _views(_unpickle(file))
    keys = _unpickle(file)
    storages = {view.storage.key: view.storage for view in views.values()}
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise _damaged("its storages are not those that its tensors use")
    return _arrays(views, {key: _read_legacy_storage(file, storages[key]) for key in keys})


def _read_legacy_storage(file: IO[bytes], storage: _Storage) -> bytes:
    """One storage, which follows its length."""
    length = int.from_bytes(file.read(8), "little")
    here = file.tell()
    left = file.seek(0, io.SEEK_END) - here
    file.seek(here)
    if length != storage.size or length * storage.dtype.itemsize > left:
        raise _damaged(f"storage {storage.key}: {length} numbers instead of {storage.size}, {left} bytes left")
    return file.read(length * storage.dtype.itemsize)


def _check_little_endian(is_little_endian: bool) -> None:
    if not is_little_endian:
        raise WeightsError("it was saved on a big-endian machine; save it again on a little-endian one")


def _rebuilt(storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> _View:
    """The tensor of `_rebuild_tensor_v2`; `more` are requires_grad, hooks and, rarely, what is to be done when read."""
    marks = more[2] if len(more) > 2 else None
    if marks:
        raise WeightsError(
            f"a tensor is saved with its numbers to be changed when they are read, {marks!r:.100}; in PyTorch, save "
            "{name: tensor.resolve_neg().clone() for name, tensor in model.state_dict().items()}"
        )
    return _View(storage, offset, shape, strides)


class _Unpickler(pickle.Unpickler):
    """An unpickler that can create only containers, numbers, texts, `_Storage` and `_View`."""

    def find_class(self, module: str, name: str) -> Any:
        # The pickle can change what is returned here (setattr), so it is created anew each time, or is immutable.
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuilt(*arguments)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        if module == "torch" and name in _DTYPES:
            return name
        raise WeightsError(
            f"this file wants to run {module}.{name}; only tensors are read. If you trust it, load it with PyTorch "
            "and save its state dict as model.safetensors"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(name), str(key), str(), int(size)) if name in _DTYPES:
                return _Storage(_DTYPES[name], key, size)
            case ("storage", str(name), str(key), str(), int(size), None) if name in _DTYPES:  # the legacy format's
                return _Storage(_DTYPES[name], key, size)
        raise WeightsError(
            f"it refers to something other than a tensor's storage: {pid!r:.200}; save model.state_dict() alone"
        )


def _unpickle(stream: IO[bytes]) -> Any:
    try:
        _check_memo(stream)
        return _Unpickler(stream, encoding="utf-8").load()
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can raise any exception, as the documentation of pickle says
        raise _damaged(error) from error


def _check_memo(stream: IO[bytes]) -> None:
    """Refuses a pickle with an object number above its number of objects: Python would allocate that many."""
    start = stream.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if opcode.name.endswith("PUT") and isinstance(argument, int) and argument > count:
            raise _damaged(f"object number {argument} among {count}")
    stream.seek(start)


def _views(state: Any) -> dict[str, _View]:
    """The tensors of an unpickled state dict."""
    if not isinstance(state, dict):
        raise WeightsError(
            f"it holds {_kind(state)}; only a state dict, tensors by name, is read: save model.state_dict() alone"
        )
    views = dict(dict.items(state))
    for name, view in views.items():
        if not isinstance(name, str) or not isinstance(view, _View) or not isinstance(view.storage, _Storage):
            raise WeightsError(
                f"it holds {_kind(view)} under {name!r:.100}; only a state dict, tensors by name, is read: "
                "save model.state_dict() alone"
            )
    return views


def _kind(value: Any) -> str:
    return "a malformed tensor" if isinstance(value, _View) else f"a {type(value).__name__}"


def _arrays(views: Mapping[str, _View], storages: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    return {name: _array(name, view, storages[view.storage.key]) for name, view in views.items()}


def _array(name: str, view: _View, data: bytes) -> np.ndarray:
    """The view as an array on its storage's bytes."""
    dtype, _, size = view.storage
    if size * dtype.itemsize != len(data):
        raise _damaged(f"the storage of {name} has {len(data)} bytes instead of {size * dtype.itemsize}")
    if not _lies_within(view, size):
        raise _damaged(f"{name} reaches beyond its storage: {view!r:.300}")
    strides = tuple(stride * dtype.itemsize for stride in view.strides)
    try:
        return np.ndarray(view.shape, dtype, data, view.offset * dtype.itemsize, strides)
    except (ValueError, OverflowError) as error:  # larger, or of more dimensions, than numpy can describe
        raise _damaged(f"{name}: {error}") from error


def _lies_within(view: _View, size: int) -> bool:
    """Whether the view's last number is in its storage. Uses Python's integers: numpy's own check overflows."""
    match (view.offset, view.shape, view.strides):
        case (int(offset), tuple(shape), tuple(strides)) if len(shape) == len(strides):
            if not all(isinstance(number, int) and number >= 0 for number in (offset, *shape, *strides)):
                return False
            if math.prod(shape) == 0:
                return offset <= size
            return offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) < size
    return False


def _damaged(why: object) -> WeightsError:
    return WeightsError(f"the file is damaged, or not one that torch.save wrote ({why}); copy or download it again")
