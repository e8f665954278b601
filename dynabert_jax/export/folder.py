"""The folder of an export: it appears whole, once it is verified, or not at all."""

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
    """Raises ExportError where the export may not be written: into what is there already, or where nothing may be."""
    try:
        check_writable(out.parent)
    except OSError as error:
        raise ExportError(f"cannot write to {out.parent}: {error}; name another folder with --out") from error
    _check_replaceable(out, force)


def _check_replaceable(out: Path, force: bool) -> None:
    """Raises ExportError where something is there that is to stay; --force is offered only where it would help."""
    if not out.exists():
        return
    why = _why_it_stays(out)
    if why:
        raise ExportError(f"{out} exists and {why}, so --force leaves it alone, too; name another folder with --out")
    if not force:
        raise ExportError(f"{out} exists; name another folder with --out, or replace it with --force")


def _why_it_stays(out: Path) -> str:
    """Why a folder may not be replaced; empty where it holds nothing, or just what an export has written."""
    if not out.is_dir():
        return "is a file"
    there, manifest = files_in(out), read_manifest(out)
    if manifest is None:
        return "has no manifest.json of an export" if any(out.iterdir()) else ""
    foreign = sorted(set(there) - set(manifest.files))
    return f"holds {foreign[0]}, which the export did not write" if foreign else ""


@contextlib.contextmanager
def whole_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """A folder to write into, which takes the place of `out` at the end of the block, if that is reached.

    It has the name of `out` already: what reads it meanwhile may remember it by that name.

    Raises:
        ExportError: the system refuses to write, or `out` is there by then and may not be replaced.
    """
    from safetensors import SafetensorError

    out = out.absolute()
    beside = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        folder = beside / out.name
        folder.mkdir(parents=True)
        yield folder
        _check_replaceable(out, force)  # once more: writing takes its time, and something may have come meanwhile
        _take_place(folder, out, beside / "replaced")
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"cannot write {out}: {reason(error)}; free some space, or name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _take_place(folder: Path, out: Path, replaced: Path) -> None:
    """Moves what is there already aside, and back where the folder cannot take its place."""
    if out.exists():
        out.rename(replaced)
    try:
        folder.rename(out)
    finally:
        if replaced.exists() and not out.exists():
            replaced.rename(out)


def write_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
    """Writes the tokenizer whole, as today's tools read it, and its vocabulary alone, as older ones do.

    Both say that texts have at most `max_length` tokens: longer ones the network has never seen.
    """
    tokenizer.model_max_length = longest = min(tokenizer.model_max_length, max_length)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.enable_truncation(longest)
    tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.model.save(str(folder))


def truncation_of(folder: Path) -> int:
    """How many tokens a text has at most, as a tokenizer.json by `write_tokenizer` tells it; else `NO_LIMIT`.

    Only where no tokenizer_config.json tells: other programs leave in tokenizer.json what they happened to do last.
    """
    if (folder / "tokenizer_config.json").exists():
        return NO_LIMIT
    try:
        values = json.loads((folder / "tokenizer.json").read_bytes())
        return int(values["truncation"]["max_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return NO_LIMIT
