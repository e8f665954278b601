"""Texts to the tokens that one model takes: its tokenizer, found and checked, and the segments of pairs.

This is the one place that decides which token ids and segments a model gets, in training, evaluation, prediction and
exports, and that compares them with the sizes of its tables.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer_files import (
    check_growth,
    check_largest_id,
    has_tokenizer,
    other_vocabularies,
    read_files,
)
from dynabert_jax.system.files import first_line
from dynabert_jax.system.json_file import read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

UNKNOWN = "\u2603"  # few vocabularies have it: a tokenizer without an unknown token fails only on such a text
CASED = 0.01  # share of words with upper-case letters: a cased vocabulary has a third, and an uncased one none

# A tokenizer's result is far larger than the ids, so it gets so many texts, or so many characters, at once.
TEXTS_AT_ONCE = 1000
CHARACTERS_AT_ONCE = 2**20

# What `BertNormalizer` calls a setting, and what tokenizer_config.json calls it.
SETTINGS = {
    "lowercase": "do_lower_case",
    "strip_accents": "strip_accents",
    "handle_chinese_chars": "tokenize_chinese_chars",
}


class Tokens(NamedTuple):
    """The tokens of one text or pair, int32 `[tokens]` each."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """The tokenizer of one model.

    Attributes:
        base: transformers' own; what it returns and what it writes to a folder fits the model.
        folder: where it was read.
        model: the model that takes the tokens.
        assumed: what was taken for granted about letter case, files and segments, in sentences.
    """

    base: "PreTrainedTokenizerBase"
    folder: Path
    model: ModelConfig
    assumed: tuple[str, ...]

    @functools.cached_property
    def unknown_id(self) -> int | None:
        """The id of what it does not know; None if there is none. A generic class of transformers may not tell."""
        if self.base.unk_token_id is not None or not self.base.is_fast:
            return self.base.unk_token_id
        backend = self.base.backend_tokenizer
        model = json.loads(backend.to_str())["model"]
        token = model.get("unk_token")
        return model.get("unk_id") if token is None else backend.token_to_id(token)


def tokenize(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], max_length: int | None = None) -> list[Tokens]:
    """The tokens of each text or pair, truncated to `max_length`, the longer sentence of a pair first.

    Raises:
        DataError: the tokenizer fails, or gives ids or segments that the model has no embedding for.
    """
    return [tokens for chunk in _chunks(texts) for tokens in _tokens_at_once(tokenizer, chunk, max_length)]


def is_unknown(tokenizer: Tokenizer, word: str) -> bool:
    """Whether the tokenizer does not know a part of the word."""
    try:
        (ids,), _ = _encoded(tokenizer.base, [(word,)], None)
    except _ForeignError:  # of this word alone: the texts were read
        return False
    return tokenizer.unknown_id in ids


def _chunks(texts: Sequence[tuple[str, ...]]) -> Iterator[Sequence[tuple[str, ...]]]:
    start, characters = 0, 0
    for end, parts in enumerate(texts):
        characters += sum(map(len, parts))
        if end > start and (end - start == TEXTS_AT_ONCE or characters > CHARACTERS_AT_ONCE):
            yield texts[start:end]
            start, characters = end, sum(map(len, parts))
    if start < len(texts):
        yield texts[start:]


def _tokens_at_once(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], max_length: int | None) -> list[Tokens]:
    try:
        ids, types = _encoded(tokenizer.base, texts, max_length)
    except _ForeignError as error:
        raise DataError(
            f"{tokenizer.folder}: the tokenizer fails on {_failing(tokenizer, texts, max_length)!r:.100} ({error}); "
            "use the tokenizer that came with the model"
        ) from error
    empty = next((text for text, row in zip(texts, ids, strict=True) if not len(row)), None)
    if empty is not None:
        raise DataError(
            f"{tokenizer.folder}: the tokenizer adds no special tokens and makes no token of {empty!r:.100}, so there "
            "is nothing to answer; use the tokenizer that came with the model, or remove the text"
        )
    _check_ids(tokenizer, "token", ids, tokenizer.model.vocab_size)
    _check_ids(tokenizer, "segment", types, tokenizer.model.type_vocab_size)
    return [Tokens(row.astype(np.int32), kind.astype(np.int32)) for row, kind in zip(ids, types, strict=True)]


def _encoded(
    base: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, ...]], max_length: int | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Ids and segments of each text, int64 `[tokens]`."""
    with _foreign_errors():
        encoded = base(
            *map(list, zip(*texts, strict=True)),  # all first sentences, then all second ones, if any
            truncation=False if max_length is None else "longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            verbose=False,
        )
    ids = [np.array(row, np.int64) for row in encoded["input_ids"]]
    types = encoded.get("token_type_ids")
    return ids, [np.zeros_like(row) for row in ids] if types is None else [np.array(row, np.int64) for row in types]


def _check_ids(tokenizer: Tokenizer, what: str, rows: Sequence[np.ndarray], size: int) -> None:
    largest = max((int(row.max()) for row in rows if len(row)), default=0)
    if largest >= size:
        raise DataError(
            f"{tokenizer.folder}: the tokenizer gives the {what} {largest}, but the weights have only {size} {what}s; "
            "use the tokenizer and the weights of the same model"
        )


def _failing(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], max_length: int | None) -> tuple[str, ...]:
    """The first text that fails alone; else the first of all."""
    for text in texts:
        try:
            _encoded(tokenizer.base, [text], max_length)
        except _ForeignError:
            return text
    return texts[0]


class _ForeignError(Exception):
    """An error of transformers or of the library below it, in one line."""


@contextlib.contextmanager
def _foreign_errors() -> Iterator[None]:
    """Turns their errors, of many types, into `_ForeignError`. A panic of the Rust library is no `Exception`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise _ForeignError(f"{type(error).__name__}: {first_line(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _ForeignError(f"{type(error).__name__}: {first_line(error)}") from error


# Loading


def load_tokenizer(folder: str | Path, model: ModelConfig) -> Tokenizer:
    """The tokenizer in a folder in Hugging Face's format, for the model that takes its tokens; a vocabulary is enough.

    A tokenizer.json is read as it is; settings that tokenizer_config.json has itself come before it. Without both, a
    vocab.txt that has upper-case words is read as cased, and another one as uncased. Pairs get segments if the model
    has two of them, unless `model_input_names` in tokenizer_config.json leaves them out.

    Raises:
        DataError: the folder has no tokenizer, a damaged one, or one that does not fit the model.
    """
    folder = Path(folder)
    if not has_tokenizer(folder):
        raise DataError(f"{folder} has no tokenizer; add a tokenizer.json, a vocab.txt, or a vocab.json and merges.txt")
    files = read_files(folder)
    check_growth(folder, files.get("tokenizer.json", {}))
    check_largest_id(folder, files)
    try:
        with _foreign_errors():
            base, assumed = _loaded(folder, files)
    except _ForeignError as error:
        raise DataError(f"{folder}: the tokenizer cannot be read ({error}); copy or download it again") from error
    base.model_max_length = _longest(folder, base)
    segments = _set_segments(folder, base, model, files.get("tokenizer_config.json", {}))
    return Tokenizer(base, folder, model, (*assumed, *segments))


def _loaded(folder: Path, files: Mapping[str, dict[str, Any]]) -> tuple["PreTrainedTokenizerBase", list[str]]:
    """The tokenizer, tried out on a text, and what was taken for granted."""
    settings = files.get("tokenizer_config.json", {})
    if "tokenizer.json" not in files:
        case, assumed = _case_of_vocabulary(folder, settings)
        base = _from_pretrained(folder, **case)
    else:
        base, assumed = _as_written(folder, _from_pretrained(folder), settings)
        assumed += other_vocabularies(folder, files)
    base(UNKNOWN)
    return base, assumed


def _from_pretrained(folder: Path, **changes: Any) -> "PreTrainedTokenizerBase":
    with _without_advice():
        import transformers

    if any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        # False: a folder may name its own code, and otherwise the user would be asked whether to run it.
        options = {"local_files_only": True, "trust_remote_code": False, "config": _stock_config(folder)}
        return transformers.AutoTokenizer.from_pretrained(folder, **options, **changes)
    if (folder / "vocab.txt").is_file():
        return transformers.BertTokenizer.from_pretrained(folder, local_files_only=True, **changes)
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
        values = read_object(folder / "config.json")
        return transformers.AutoConfig.for_model(values["dynabert"]["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Letter case, and which file counts


def _case_of_vocabulary(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The setting of a vocab.txt whose letter case nothing else tells, and what was taken for granted."""
    is_bert = settings.get("tokenizer_class") in (None, "BertTokenizer", "BertTokenizerFast")
    if not is_bert or "do_lower_case" in settings or not (folder / "vocab.txt").is_file():
        return {}, []
    words = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    words = [word for word in words if any(map(str.isalpha, word)) and word[:1] not in "[<"]
    is_cased = sum(word != word.lower() for word in words) > CASED * len(words)
    case, cure = ("cased", "true") if is_cased else ("uncased", "false")
    sentence = f"vocab.txt has {'' if is_cased else 'no '}upper-case words, so the tokenizer is taken for {case}"
    if is_cased:
        log.warning(
            '%s: %s; if it is not, add a tokenizer_config.json with "do_lower_case": %s', folder, sentence, cure
        )
    return {"do_lower_case": not is_cased}, [sentence]


def _as_written(
    folder: Path, base: "PreTrainedTokenizerBase", settings: Mapping[str, Any]
) -> tuple["PreTrainedTokenizerBase", list[str]]:
    """The tokenizer that tokenizer.json describes, where transformers' class for it makes another one of it.

    Settings that tokenizer_config.json has itself, and that the class obeys, come before tokenizer.json.
    """
    from tokenizers import Tokenizer as Backend

    if not base.is_fast:
        return base, []
    backend: Backend = base.backend_tokenizer
    written = Backend.from_file(str(folder / "tokenizer.json"))
    parts, assumed = _with_settings(written, backend, settings)
    if written.post_processor is None:  # some files leave the special tokens to the class
        written.post_processor = backend.post_processor
    others = [*parts, *(["post_processor"] if _framed(backend) != _framed(written) else [])]
    if not others:
        return base, assumed
    generic = _generic(written, base)
    sentence = f"tokenizer.json counts, where it differs from what {type(base).__name__} makes: {', '.join(others)}"
    return generic, [*assumed, sentence]


def _generic(backend: "Backend", base: "PreTrainedTokenizerBase") -> "PreTrainedTokenizerBase":
    """The backend in transformers' generic class, with all that the files set beside the backend's parts."""
    import transformers

    special = {name: str(token) for name, token in base.special_tokens_map.items() if isinstance(token, str)}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=base.model_max_length,
        model_input_names=list(base.model_input_names),
        truncation_side=base.truncation_side,
        padding_side=base.padding_side,
        split_special_tokens=base.split_special_tokens,
        added_tokens_decoder=base.init_kwargs.get("added_tokens_decoder", {}),
        extra_special_tokens=list(base.extra_special_tokens),
        **special,
    )


def _framed(backend: "Backend") -> list[tuple[list[int], list[int]]]:
    """What the post-processor makes of a text and of a pair: ids and segments."""
    one = backend.encode(UNKNOWN, add_special_tokens=False)
    made = (backend.post_process(one, pair) for pair in (None, one))
    return [(encoded.ids, encoded.type_ids) for encoded in made]


def _with_settings(written: "Backend", backend: "Backend", settings: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Applies settings of tokenizer_config.json that contradict tokenizer.json, if the class obeys them.

    Returns the parts that are others than the class's even then, and what is to be said of the settings.
    """
    from tokenizers.normalizers import BertNormalizer

    sentences = []
    ours, theirs = (json.loads(one.to_str()) for one in (written, backend))
    if _types(ours["normalizer"], theirs["normalizer"]) == {"BertNormalizer"}:
        state = ours["normalizer"]
        for name, key in SETTINGS.items():
            if key in settings and settings[key] != state[name]:
                obeyed = theirs["normalizer"][name] == settings[key]
                state[name] = settings[key] if obeyed else state[name]
                sentences.append(_contradiction(key, settings[key], obeyed))
        written.normalizer = BertNormalizer(**{name: value for name, value in state.items() if name != "type"})
    key, part = "add_prefix_space", "pre_tokenizer"
    if key in settings and _types(ours[part], theirs[part]) == {"ByteLevel"} and settings[key] != ours[part][key]:
        obeyed = theirs[part][key] == settings[key]
        if obeyed:
            written.pre_tokenizer, ours[part] = backend.pre_tokenizer, theirs[part]
        sentences.append(_contradiction(key, settings[key], obeyed))
    parts = [part for part in ("normalizer", "pre_tokenizer", "model") if _set(ours[part]) != _set(theirs[part])]
    return parts, sentences


def _set(part: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of a part that are not empty: none is written in two ways."""
    return {name: value for name, value in (part or {}).items() if value not in (None, "")}


def _types(*parts: dict[str, Any] | None) -> set[str]:
    return {str((part or {}).get("type")) for part in parts}


def _contradiction(key: str, value: Any, obeyed: bool) -> str:
    counts = "tokenizer_config.json" if obeyed else "tokenizer.json"
    return f"{counts} counts: {key} is {json.dumps(value)} in tokenizer_config.json, and tokenizer.json says otherwise"


# What the model can take


def _longest(folder: Path, base: "PreTrainedTokenizerBase") -> int:
    """The tokenizer's own limit on tokens."""
    value, special = base.model_max_length, base.num_special_tokens_to_add(pair=True)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not value > special or (value < 2**31 and value != int(value)):
        raise DataError(
            f"{folder / 'tokenizer_config.json'}: model_max_length is {value!r}; it must be a whole number larger than "
            f"{special}, the special tokens of a pair; correct it, or remove it"
        )
    return int(min(value, 2**62))


def _set_segments(
    folder: Path, base: "PreTrainedTokenizerBase", model: ModelConfig, settings: Mapping[str, Any]
) -> list[str]:
    """Lets the tokenizer return segments if the model has more than one; what it writes to a folder says so, too.

    transformers' generic classes return none by default, although their files may describe them.
    """
    names = [name for name in base.model_input_names if name != "token_type_ids"]
    by_default = len(names) < len(base.model_input_names)
    wanted = model.type_vocab_size > 1 and (by_default or "model_input_names" not in settings)
    base.model_input_names = [*names[:1], "token_type_ids", *names[1:]]
    try:
        _, (types,) = _encoded(base, [(UNKNOWN, UNKNOWN)], None)
    except _ForeignError as error:
        raise DataError(f"{folder}: the tokenizer fails on a pair ({error}); copy or download it again") from error
    marks = bool(types.any())
    if not wanted:
        base.model_input_names = names
    base.init_kwargs["model_input_names"] = list(base.model_input_names)
    if model.type_vocab_size == 1:
        left_out = marks and "model_input_names" not in settings
        return ["the model has one segment; the tokenizer's others are left out: all are 0"] if left_out else []
    if not wanted:
        return ["model_input_names in tokenizer_config.json leaves out segments: all are 0"]
    if not marks and model.model_type == "bert":
        return [f"the model has {model.type_vocab_size} segments, but the tokenizer marks no second one in a pair"]
    if marks and not by_default:
        return ["pairs get the segments 0 and 1, which this tokenizer's class returns only when asked"]
    return []
