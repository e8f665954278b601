"""The folder of an export, which is written atomically: it appears once it is complete and verified."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dynabert_jax.data.tokenizer import Tokenizer
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.manifest import files_in, read_manifest
from dynabert_jax.system.files import check_writable, exchange, leftovers, reason, temporary_beside
from dynabert_jax.system.json_file import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CARD = "README.md"
_PROBES = (("A cast of \u00c9mile's friends -- and 3 \u4eba!",), ("Why?", "Because \u00e9tudes are  long."))
NO_LIMIT = sys.maxsize


def check_target(out: Path, force: bool) -> None:
    """Raises ExportError if the export cannot be written, or if `out` exists and may not be replaced.

    An earlier export that a killed process had moved aside is put back first.
    """
    try:
        check_writable(out.parent)
    except OSError as error:
        raise ExportError(f"cannot write to {out.parent}: {error}; name another folder with --out") from error
    _put_back(out.absolute())
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
    try:
        with temporary_beside(out) as beside:
            folder = beside / out.name
            folder.mkdir(parents=True)
            yield folder
            _check_replaceable(out, force)  # again: `out` may have been created in the meantime
            _take_place(folder, out, beside / REPLACED)
    except (OSError, SafetensorError) as error:
        raise ExportError(
            f"cannot write {out}: {reason(error)}; free some space, or name another folder with --out"
        ) from error


REPLACED = "replaced"  # the earlier export, in the temporary folder, where two folders cannot be exchanged


def _take_place(folder: Path, out: Path, replaced: Path) -> None:
    """Exchanges the folder and an existing `out`, or moves `out` aside, and back if the folder cannot take its place.

    Of a process that is killed between the two moves, the next one puts `out` back.
    """
    if out.exists():
        if exchange(folder, out):
            return
        out.rename(replaced)
    try:
        folder.rename(out)
    finally:
        if replaced.exists() and not out.exists():
            replaced.rename(out)


def _put_back(out: Path) -> None:
    for left in leftovers(out):
        if (left / REPLACED).exists() and not out.exists():
            (left / REPLACED).rename(out)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, max_length: int) -> None:
    """Writes the complete tokenizer for current tools, and its vocabulary alone for older ones.

    The tokenizer truncates texts to `max_length` tokens, because the network was never trained on longer ones, on the
    side where the run truncated them; tokenizer.json alone says both. It returns segments only if the network has
    more than one.

    Raises:
        ExportError: transformers reads another tokenizer from what it wrote.
    """
    base = tokenizer.base
    base.model_max_length = longest = min(base.model_max_length, max_length)
    if base.is_fast:
        base.backend_tokenizer.enable_truncation(longest, direction=base.truncation_side)
    base.save_pretrained(folder)
    if base.is_fast:
        base.backend_tokenizer.model.save(str(folder))
    _check_read_back(folder, base)


def _check_read_back(folder: Path, written: "PreTrainedTokenizerBase") -> None:
    import transformers

    read = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    for texts in _PROBES:
        if dict(read(*texts, verbose=False)) != dict(written(*texts, verbose=False)):  # else it warns of long texts
            raise ExportError(
                f"transformers reads another tokenizer than it wrote: it gives other tokens for {texts!r}; please "
                "report it with the tokenizer's files and the versions of transformers and tokenizers"
            )


def truncation_of(folder: Path) -> int:
    """The longest text in tokens, from a tokenizer.json that `write_tokenizer` wrote; else `NO_LIMIT`.

    It is used only if there is no tokenizer_config.json: other programs leave the truncation of their last call in
    tokenizer.json.
    """
    if (folder / "tokenizer_config.json").exists():
        return NO_LIMIT
    try:
        values = read_object(folder / "tokenizer.json")
        return int(values["truncation"]["max_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return NO_LIMIT
