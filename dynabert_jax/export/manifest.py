"""manifest.json, which identifies a folder as an export: its contents, and the program that wrote it."""

import json
from pathlib import Path

from dynabert_jax.config.checked import Checked, ConfigError
from dynabert_jax.config.tasks import Kind
from dynabert_jax.export.errors import ExportError
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import reason

FILE = "manifest.json"
PROGRAM = "dynabert_jax"
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
        files: all other files of the export.
        written_by: the program that wrote it, and its version.
    """

    format: str
    subs: tuple[Structure, ...]
    text_columns: tuple[str, ...]
    lengths: tuple[int, ...]
    labels: tuple[str, ...]
    head: Kind
    files: tuple[str, ...]
    written_by: str


def files_in(folder: Path) -> tuple[str, ...]:
    """The paths of all files except the manifest and caches, relative to the folder, sorted."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return tuple(sorted(str(path) for path in paths if str(path) != FILE and not set(CACHES) & set(path.parts)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / FILE).write_text(manifest.to_json() + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an export; None for a folder of something else, which may have a manifest.json of its own.

    Raises:
        ExportError: it cannot be read, or an export of a newer version wrote it.
    """
    file = folder / FILE
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ExportError(f"{file} cannot be read ({reason(error)}); make it readable") from error
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not str(values.get("written_by")).startswith(PROGRAM):
        return None
    try:
        return Manifest.from_json(text)
    except ConfigError as error:
        raise ExportError(
            f"{file}, written by {values['written_by']}, cannot be used ({error}); use that version, or export again"
        ) from error
