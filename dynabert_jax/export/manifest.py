"""manifest.json, which every export has: what is in the folder and what wrote it. Exports are recognised by it."""

from pathlib import Path

from dynabert_jax.config.checked import Checked, ConfigError
from dynabert_jax.config.tasks import Kind
from dynabert_jax.export.errors import ExportError
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import reason

FILE = "manifest.json"
CACHES = ("__pycache__",)  # what running the folder's own files leaves


class Structure(Checked):
    """One sub-network: its name, and what it keeps of the run's model."""

    name: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, sub: SubNetwork) -> "Structure":
        return cls(name=sub.name, layers=sub.layers, heads=sub.heads, neurons=sub.neurons)


class Manifest(Checked):
    """What an export holds.

    Attributes:
        format: its name, such as `onnx`.
        subs: the sub-networks.
        text_columns: what the run calls its texts: one, or two of a pair.
        lengths: what batches are padded to, in tokens; longer texts are truncated.
        labels: the classes in the order of the answers, or the name of a regression's number.
        head: what the answers are.
        files: all others in the folder, as they were written.
        written_by: the program and its version.
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
    """Every file but the manifest and caches, by its path in the folder, sorted."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return tuple(sorted(str(path) for path in paths if str(path) != FILE and not set(CACHES) & set(path.parts)))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / FILE).write_text(manifest.to_json() + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """None where there is none: the folder is no export, or one of an older version.

    Raises:
        ExportError: it is damaged.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        return Manifest.from_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{file} cannot be read ({reason(error)}); make it readable") from error
    except (ConfigError, UnicodeDecodeError) as error:
        raise ExportError(f"{file} is damaged ({error}); export again") from error
