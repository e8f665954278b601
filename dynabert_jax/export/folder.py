"""The folder of an export, which is written atomically: it appears once it is complete and verified."""

import contextlib
import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.manifest import files_in, read_manifest
from dynabert_jax.system.files import check_writable, reason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CARD = "README.md"
NO_LIMIT = sys.maxsize


def check_target(out: Path, force: bool) -> None:
    """Raises ExportError if the export cannot be written, or if `out` exists and may not be replaced."""
    try:
        check_writable(out.parent)
    except OSError as error:
        raise ExportError(f"cannot write to {out.parent}: {error}; name another folder with --out") from error
    _check_replaceable(out, force)


def _check_replaceable(out: Path, force: bool) -> None:
    """Raises ExportError if `out` exists and may not be replaced. Suggests --force only if it would help."""
    if not out.exists():
        return
    why = _why_it_stays(out)
    if why:
        raise ExportError(f"{out} exists and {why}, so --force does not replace it; name another folder with --out")
    if not force:
        raise ExportError(f"{out} exists; name another folder with --out, or replace it with --force")


def _why_it_stays(out: Path) -> str:
    """Why `out` may not be replaced; empty if it holds nothing, or only what an export wrote."""
    if not out.is_dir():
        return "is a file"
    there, manifest = files_in(out), read_manifest(out)
    if manifest is None:
        return "has no manifest.json of an export" if any(out.iterdir()) else ""
    foreign = sorted(set(there) - set(manifest.files))
    return f"holds {foreign[0]}, which the export did not write" if foreign else ""


@contextlib.contextmanager
def whole_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """Yields a folder to write into, which replaces `out` at the end of the block, unless the block raises.

    The folder already has the name of `out`, because readers inside the block may remember it by that name.

    Raises:
        ExportError: the system refuses to write, or `out` exists by then and may not be replaced.
    """
    from safetensors import SafetensorError

    out = out.absolute()
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        folder = beside / out.name
        folder.mkdir(parents=True)
        yield folder
        _check_replaceable(out, force)  # again: `out` may have been created in the meantime
        _take_place(folder, out, beside / "replaced")
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"cannot write {out}: {reason(error)}; free some space, or name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _take_place(folder: Path, out: Path, replaced: Path) -> None:
    """Moves an existing `out` aside, and back if the folder cannot take its place."""
    if out.exists():
        out.rename(replaced)
    try:
        folder.rename(out)
    finally:
        if replaced.exists() and not out.exists():
            replaced.rename(out)


def write_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
    """Writes the complete tokenizer for current tools, and its vocabulary alone for older ones.

    The tokenizer truncates texts to `max_length` tokens, because the network was never trained on longer ones.
    """
    tokenizer.model_max_length = longest = min(tokenizer.model_max_length, max_length)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.enable_truncation(longest)
    tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.model.save(str(folder))


def truncation_of(folder: Path) -> int:
    """The longest text in tokens, from a tokenizer.json that `write_tokenizer` wrote; else `NO_LIMIT`.

    It is used only if there is no tokenizer_config.json: other programs leave the truncation of their last call in
    tokenizer.json.
    """
    if (folder / "tokenizer_config.json").exists():
        return NO_LIMIT
    try:
        values = json.loads((folder / "tokenizer.json").read_bytes())
        return int(values["truncation"]["max_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return NO_LIMIT
