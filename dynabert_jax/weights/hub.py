"""Finds a model: a folder on this machine, the sample backbone, or a repository on the Hugging Face hub."""

from pathlib import Path

from dynabert_jax.data.tokenizer_files import TOKENIZER_FILES
from dynabert_jax.errors import UserError
from dynabert_jax.system.files import expanded

_SAFETENSORS_FILES = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
_TORCH_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
_SAMPLE = "sample:minilm"


class ModelNotFoundError(UserError, ValueError):
    """There is no model of that name; the message says what was looked for and what to do."""


def find_model(name: str | Path) -> Path:
    """The folder of a model in Hugging Face's format, downloaded if necessary.

    Args:
        name: a local folder with a config.json, `sample:minilm`, or the name of a repository on the hub. Only its
            configuration, tokenizer and weights are downloaded, to the hub's cache: safetensors if there are any, else
            pytorch_model.bin.

    Raises:
        ModelNotFoundError: there is no such model, or no way to reach it.
        SampleError: the sample backbone could not be downloaded.
    """
    if str(name).startswith("sample:"):
        return _find_sample(str(name))
    folder = expanded(name)
    try:
        if folder.is_dir():
            return _check_folder(folder)
        is_file = folder.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be opened
        raise ModelNotFoundError(f"{name} cannot be read ({error}); choose a folder that you can read") from error
    if is_file:
        raise ModelNotFoundError(f"{name} is a file; name the folder that contains it and its config.json")
    if isinstance(name, Path) or _looks_local(name):
        raise ModelNotFoundError(
            f"there is no folder {name} (looked for {folder.absolute()}); correct the path, or give the name of a "
            "model on the hub, such as 'bert-base-uncased' or 'organization/model'"
        )
    return _download(name)


def _find_sample(name: str) -> Path:
    if name != _SAMPLE:
        raise ModelNotFoundError(f"there is no sample model {name!r}; use {_SAMPLE!r}")
    from dynabert_jax.data.samples import fetch_minilm

    return fetch_minilm()


def _check_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        held = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise ModelNotFoundError(
            f"the folder {folder} holds no config.json (it holds: {held}); name a folder in Hugging Face's format, as "
            "save_pretrained writes it: config.json, model.safetensors or pytorch_model.bin, and the tokenizer's files"
        )
    return folder


def find_card(name: str) -> Path | None:
    """The model's own card, README.md, from its folder or the hub; None if it has none, or cannot be reached."""
    from huggingface_hub import errors, hf_hub_download

    try:
        if is_hub_name(name):
            return Path(hf_hub_download(name, "README.md"))
        card = find_model(name) / "README.md"
    except (errors.HTTPError, errors.HFValidationError, OSError, UserError):
        return None
    return card if card.is_file() else None


def is_hub_name(name: str) -> bool:
    """Whether `find_model` looks for a model of that name on the hub. A folder of that name comes first."""
    return not name.startswith("sample:") and not _looks_local(name) and not expanded(name).exists()


def _looks_local(name: str) -> bool:
    """Whether a name that is not a folder was meant as a path: hub names are `model` or `organization/model`."""
    parts = Path(name).parts
    return name.startswith((".", "~", "/")) or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).is_dir())


def _download(name: str) -> Path:
    """Downloads a repository of the hub to the hub's cache; returns its folder there."""
    from huggingface_hub import errors

    try:
        folder = _fetch(name, ("config.json", *TOKENIZER_FILES, *_SAFETENSORS_FILES))
        if not any(folder.glob("model*.safetensors")):
            folder = _fetch(name, ("config.json", *TOKENIZER_FILES, *_TORCH_FILES))
    except errors.HFValidationError as error:
        raise ModelNotFoundError(
            f"{name!r} is neither a folder here nor a name on the hub ({error}); correct the name"
        ) from error
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"the hub's model {name!r} is gated; ask for access at its page on the hub, log in with `hf auth login`, "
            "and try again"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"there is no folder {name!r} here, and no model of that name on the hub; correct the name or, if the "
            "model is private, log in with `hf auth login`"
        ) from error
    # The hub's HTTP library changed between its versions; this is the base of that library's errors.
    except (errors.HTTPError, OSError) as error:
        raise ModelNotFoundError(_unreachable(name, error)) from error
    return _check_folder(folder)


def _fetch(name: str, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=list(patterns)))


def _unreachable(name: str, error: Exception) -> str:
    from huggingface_hub import is_offline_mode

    local = name.rpartition("/")[2]
    why = "HF_HUB_OFFLINE is set" if is_offline_mode() else f"{type(error).__name__}: {error}"
    return (
        f"there is no folder {name!r} here, the hub's cache does not have the whole model, and it could not be "
        f"downloaded ({why}). On a machine with network access, run `hf download {name} --local-dir {local}`, copy the "
        f"folder here, and name it as the model: ./{local}"
    )
