"""From tables of text to arrays of token ids: what the labels mean, which rows are used, and the encoding."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynabert_jax.config.data import DataConfig
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.texts import TaskTexts, Texts, read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# The files of a tokenizer that hold a JSON object.
TOKENIZER_JSON = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
UNKNOWN = "\u2603"  # few vocabularies have it: a tokenizer without an unknown token fails only on such a text
ENCODED_AT_ONCE = 1000  # texts; a tokenizer's result is far larger than the ids


@dataclasses.dataclass(frozen=True)
class Split:
    """The encoded examples of one split.

    Attributes:
        name: train, dev, test, or the task's name for a dev split.
        input_ids: for each example int32 `[tokens]`, special tokens included, without padding.
        token_type_ids: likewise; 1 in the second sentence of a pair, if the tokenizer marks it.
        labels: `[n]`; int32 ids of classes, or float32 for a regression.
        origins: int `[n]`; each example's row in the data that was read, counted from 0; None if no data was read.
    """

    name: str
    input_ids: Sequence[np.ndarray]
    token_type_ids: Sequence[np.ndarray]
    labels: np.ndarray
    origins: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Tokens of each example, `[n]`."""
        return np.array([len(ids) for ids in self.input_ids], np.int32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of the examples. It changes with any token, any label and their order."""
        digest = hashlib.sha256()
        for array in (self.sizes, *self.input_ids, *self.token_type_ids, self.labels):
            digest.update(array.tobytes())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class TaskData:
    """All data of a run.

    Attributes:
        labels: the classes' names in the order of their ids; empty for a regression.
        dev: by name; one split, unless the task has more.
        test: by name; empty if no test split has labels.
    """

    labels: tuple[str, ...]
    train: Split
    dev: Mapping[str, Split]
    test: Mapping[str, Split]

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of train and dev, on which the result of training depends; test is not included."""
        splits = (self.train, *self.dev.values())
        return hashlib.sha256("".join(split.fingerprint for split in splits).encode()).hexdigest()


def load_data(config: DataConfig, tokenizer: "PreTrainedTokenizerBase") -> TaskData:
    """Reads, checks and encodes the data that the configuration names; raises what `read_texts` does."""
    return encode(read_texts(config), tokenizer, config.max_length)


def encode(texts: TaskTexts, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> TaskData:
    """Texts to token ids. Texts of more than `max_length` tokens are truncated, with one warning per split."""
    split = functools.partial(_encode, tokenizer=tokenizer, max_length=max_length)
    return TaskData(
        texts.labels,
        split("train", texts.train),
        {name: split(name, dev) for name, dev in texts.dev.items()},
        {name: split(name, test) for name, test in texts.test.items()},
    )


# Encoding


def load_tokenizer(folder: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer in a folder in Hugging Face's format; a vocabulary is enough.

    A vocab.txt without a tokenizer_config.json is read as uncased. For a cased model, add a tokenizer_config.json with
    `"do_lower_case": false`.

    Raises:
        DataError: the folder has no tokenizer, or a damaged one.
    """
    folder = Path(folder)
    if not has_tokenizer(folder):
        raise DataError(f"{folder} has no tokenizer; add a tokenizer.json, a vocab.txt, or a vocab.json and merges.txt")
    try:
        tokenizer = _from_pretrained(folder)
        tokenizer(UNKNOWN)
    # transformers lets any error of its parsing through, and the library below it raises plain Exceptions.
    except Exception as error:
        raise DataError(
            f"{_damaged_part(folder)}: the tokenizer cannot be read ({type(error).__name__}: {error}); copy or "
            "download it again"
        ) from error
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a vocabulary. Without one, transformers makes a tokenizer that knows no words."""
    vocabularies = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
    return any(all((folder / name).is_file() for name in names) for names in vocabularies)


def _from_pretrained(folder: Path) -> "PreTrainedTokenizerBase":
    with _without_advice():
        import transformers

    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        # False: a folder may name its own code, and otherwise the user would be asked whether to run it.
        options = {"local_files_only": True, "trust_remote_code": False, "config": _stock_config(folder)}
        return transformers.AutoTokenizer.from_pretrained(folder, **options)
    if (folder / "vocab.txt").is_file():
        return transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
    return transformers.RobertaTokenizer.from_pretrained(folder, local_files_only=True)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps transformers from advising, on import, to install PyTorch, which is not needed here."""
    variable = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _stock_config(folder: Path) -> Any:
    """The standard config for an export in exact shapes, to avoid a warning of transformers; else None."""
    import transformers

    try:
        values = json.loads((folder / "config.json").read_bytes())
        return transformers.AutoConfig.for_model(values["dynabert"]["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _damaged_part(folder: Path) -> Path:
    """The first tokenizer file that should be a JSON object but is not; else the folder."""
    files = (folder / name for name in TOKENIZER_JSON if (folder / name).is_file())
    return next((file for file in files if not _holds_object(file)), folder)


def _holds_object(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_bytes()), dict)
    except (ValueError, RecursionError):
        return False


def _encode(name: str, examples: Texts, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Split:
    encoded = tokenize(tokenizer, examples.texts)
    long = [row for row, tokens in enumerate(encoded) if len(tokens.input_ids) > max_length]
    shortened = tokenize(tokenizer, [examples.texts[row] for row in long], max_length)
    for row, tokens in zip(long, shortened, strict=True):
        encoded[row] = tokens
    if long:
        log.warning(
            "%s: %d of %d texts are longer than %d tokens and were truncated", name, len(long), len(encoded), max_length
        )
    input_ids = [tokens.input_ids for tokens in encoded]
    token_type_ids = [tokens.token_type_ids for tokens in encoded]
    return Split(name, input_ids, token_type_ids, examples.labels, examples.origins)


class Tokens(NamedTuple):
    """The tokens of one text or pair, int32 `[tokens]` each."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray


def unlabelled(name: str, tokens: Sequence[Tokens]) -> Split:
    """Encoded texts whose labels are not known, and are zeros."""
    ids, types = [one.input_ids for one in tokens], [one.token_type_ids for one in tokens]
    return Split(name, ids, types, np.zeros(len(tokens), np.int32))


def tokenize(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, ...]], max_length: int | None = None
) -> list[Tokens]:
    """The tokens of each text or pair, truncated to `max_length`, the longer sentence of a pair first."""
    starts = range(0, len(texts), ENCODED_AT_ONCE)
    chunks = (texts[start : start + ENCODED_AT_ONCE] for start in starts)
    return [tokens for chunk in chunks for tokens in _tokens_at_once(tokenizer, chunk, max_length)]


def _tokens_at_once(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, ...]], max_length: int | None
) -> list[Tokens]:
    encoded = tokenizer(
        *map(list, zip(*texts, strict=True)),  # all first sentences, then all second ones, if any
        truncation=False if max_length is None else "longest_first",
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        verbose=False,
    )
    ids = [np.array(row, np.int32) for row in encoded["input_ids"]]
    types = encoded.get("token_type_ids")
    if types is None:
        return [Tokens(row, np.zeros_like(row)) for row in ids]
    return [Tokens(row, np.array(kind, np.int32)) for row, kind in zip(ids, types, strict=True)]
