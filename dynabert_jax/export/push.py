"""Uploads a whole export to the Hugging Face hub, to a private repository unless it is to be public."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dynabert_jax.errors import UserError
from dynabert_jax.export.errors import ExportError
from dynabert_jax.export.folder import CARD
from dynabert_jax.export.manifest import FILE, Manifest, files_in, read_manifest
from dynabert_jax.system.files import expanded, first_damage, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUBS_OWN = (".gitattributes",)  # in every repository
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class PushError(UserError, RuntimeError):
    """An export that cannot be pushed; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Pushed:
    """Where an export is on the hub.

    Attributes:
        name: the repository, `owner/name`.
        url: its page.
        public: everybody may read it; otherwise its owner alone, and whom they allow.
    """

    name: str
    url: str
    public: bool

    def __str__(self) -> str:
        return f"pushed to {self.url} ({'public' if self.public else 'private'})"

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)


def check_push(name: str) -> None:
    """Raises PushError if nothing can be pushed to a repository of that name; asks nobody."""
    from huggingface_hub import errors, get_token, is_offline_mode
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        raise PushError(f"{name!r} is no name of a repository ({first_line(error)}); give owner/name") from error
    if "/" not in name:
        raise PushError(f"a repository is named with its owner, such as me/{name}; got {name!r}")
    if is_offline_mode():
        raise PushError("nothing can be pushed while HF_HUB_OFFLINE is set; unset it")
    if get_token() is None:
        raise PushError(f"pushing needs a token of the hub; {LOG_IN}")


def push_export(folder: str | Path, name: str, public: bool = False) -> Pushed:
    """Uploads an export in one commit; creates the repository if there is none.

    A repository that is there has to be as public as asked for, and has to be empty or hold an earlier export, which
    the new one replaces: no file of it stays. Its history stays.

    Args:
        folder: what `dynabert export` wrote. Its README.md may have been edited since, and no other file.
        name: the repository, `owner/name`.
        public: everybody may read it.

    Raises:
        ExportError: the folder is no export, or is not as it was written.
        PushError: there is no token, the repository is of something else, or the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    folder = expanded(folder)
    manifest = check_whole(folder)
    check_push(name)
    api = HfApi(library_name="dynabert_jax")
    with _hub_errors(folder, name):
        url = api.create_repo(name, private=not public, exist_ok=True)
        _check_repository(api, name, public)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[*manifest.files, FILE],
            delete_patterns="*",  # what is not uploaded, in the same commit
            commit_message=f"Export of {', '.join(sub.name for sub in manifest.subs)} ({manifest.format})",
        )
    return Pushed(name, str(url), public)


def check_whole(folder: Path) -> Manifest:
    """The manifest of an export that is as it was written and verified; only its card may differ.

    Raises:
        ExportError: it is not.
    """
    manifest = read_manifest(folder) if folder.is_dir() else None
    if manifest is None:
        raise ExportError(f"{folder} is no export with a manifest.json; make one with `dynabert export`")
    unchecked = [name for name, checksum in manifest.files.items() if not checksum]
    if unchecked:
        raise ExportError(f"{folder} was exported by an older version, without checksums; export it again")
    foreign = sorted(set(files_in(folder)) - set(manifest.files))
    if foreign:
        raise ExportError(f"{folder / foreign[0]} is not of this export; remove it, or export again")
    damage = first_damage(folder, {name: sha for name, sha in manifest.files.items() if name != CARD})
    if damage or not (folder / CARD).is_file():
        raise ExportError(f"{damage or f'{folder / CARD} is missing'}; export it again")
    return manifest


def _check_repository(api: "HfApi", name: str, public: bool) -> None:
    """Raises PushError if the repository is more or less public than asked for, or holds something else."""
    info = api.model_info(name)
    if info.private is public:
        is_now, cure = ("private", "leave --public out") if info.private else ("public", "allow that with --public")
        raise PushError(f"{name} is {is_now}; {cure}, change it on its page, or name another repository")
    files = {file.rfilename for file in info.siblings or ()} - set(HUBS_OWN)
    if files and FILE not in files:
        raise PushError(f"{name} holds {min(files)} and no export, so it is not replaced; name another repository")


@contextlib.contextmanager
def _hub_errors(folder: Path, name: str) -> Iterator[None]:
    """Turns the hub's errors into PushErrors that say what to do."""
    from huggingface_hub import errors

    again = f"The export is in {folder}; `dynabert push {folder} {name}` tries again"
    try:
        yield
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = error.server_message or first_line(error)
        cures = {
            401: f"the token is not valid; {LOG_IN}",
            403: f"the token may not write to {name}; {LOG_IN}, or name a repository of your own",
        }
        why = cures.get(status, f"the hub answers {status} ({said})")
        raise PushError(f"{name} cannot be pushed: {why}. {again}") from error
    except (errors.HTTPError, OSError) as error:
        raise PushError(f"{name} cannot be pushed: the hub cannot be reached ({first_line(error)}). {again}") from error
