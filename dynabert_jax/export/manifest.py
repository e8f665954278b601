"""manifest.json, which identifies a folder as an export: its contents, and the program that wrote it."""

from pathlib import Path
from typing import Any

import pydantic

from dynabert_jax.config.checked import Checked
from dynabert_jax.config.tasks import Kind
from dynabert_jax.data.tokenizer_files import files_there
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.smaller import Saving
from dynabert_jax.infer.in_onnxruntime import INT8
from dynabert_jax.infer.run_stablehlo import ENDING as PROGRAM_ENDING
from dynabert_jax.runs.files import sealed, unsealed
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import file_checksum, first_damage, reason
from dynabert_jax.system.json_file import JsonError, parse_object

FILE = "manifest.json"
PROGRAM = "dynabert_jax"
NOT_READ = (".md", ".py", INT8)  # endings of files that answers here do not depend on
CACHES = ("__pycache__",)  # made by running the folder's own files


class Structure(Checked):
    """One sub-network: its name, and which layers, heads and neurons it keeps."""

    name: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, sub: SubNetwork) -> "Structure":
        return cls(name=sub.name, layers=sub.layers, heads=sub.heads, neurons=sub.neurons)


class Manifest(Checked):
    """The contents of an export.

    Attributes:
        format: the format's name, such as `onnx`.
        subs: the sub-networks.
        text_columns: the names of the run's text columns: one, or two for pairs.
        lengths: padded lengths of batches, in tokens; longer texts are truncated.
        labels: the classes in the order of the logits, or the name of a regression's output.
        head: the kind of output.
        saving: what was saved on disk, and what that costs; None if nothing was made smaller.
        files: the SHA-256 of all other files by their paths; empty texts in an export of an older version.
        written_by: the program that wrote it, and its version.
    """

    format: str
    subs: tuple[Structure, ...]
    text_columns: tuple[str, ...]
    lengths: tuple[int, ...]
    labels: tuple[str, ...]
    head: Kind
    files: dict[str, str]
    written_by: str
    saving: Saving | None = None

    @pydantic.field_validator("files", mode="before")
    @classmethod
    def _take_names(cls, value: Any) -> Any:
        """Converts the names alone, which older versions wrote."""
        return dict.fromkeys(value, "") if isinstance(value, tuple) else value


def files_in(folder: Path) -> tuple[str, ...]:
    """The paths of all files except the manifest and caches, relative to the folder, sorted."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return tuple(sorted(str(path) for path in paths if str(path) != FILE and not set(CACHES) & set(path.parts)))


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder that has no manifest yet."""
    return {name: file_checksum(folder / name) for name in files_in(folder)}


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises ExportError if a file that answers depend on is missing, not as it was exported, or one too many."""
    for file in (*files_there(folder), *sorted(folder.glob(f"*{PROGRAM_ENDING}"))):
        if file.name not in manifest.files:
            raise ExportError(f"{file} is not of this export, and would change its answers; remove it, or export again")
    files = {name: sha for name, sha in manifest.files.items() if sha and not name.endswith(NOT_READ)}
    damage = first_damage(folder, files)
    if damage:
        raise ExportError(f"{damage}; copy it again, or export it again. To use the folder as it is, remove its {FILE}")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / FILE).write_text(sealed(manifest.to_values()) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an export; None for a folder of something else, which may have a manifest.json of its own.

    Raises:
        ExportError: it cannot be read, or an export of a newer version wrote it.
    """
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
        values = parse_object(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExportError(f"{file} cannot be read ({reason(error)}); make it readable") from error
    except (UnicodeDecodeError, JsonError):
        return None
    if not str(values.get("written_by")).startswith(PROGRAM):
        return None
    try:
        return Manifest.from_values(unsealed(text))
    except ValueError as error:  # ConfigError is one
        raise ExportError(
            f"{file}, written by {values['written_by']}, cannot be used ({error}); use that version, or export again"
        ) from error
