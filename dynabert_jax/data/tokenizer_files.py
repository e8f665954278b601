"""The files of a tokenizer: which there are, and what is refused or reported before transformers reads them."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dynabert_jax.data.rows import DataError
from dynabert_jax.system.json_file import JsonError, read_object

log = logging.getLogger(__name__)

# The files of a tokenizer; the first ones hold a JSON object.
TOKENIZER_JSON = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
TOKENIZER_FILES = (*TOKENIZER_JSON, "vocab.txt", "merges.txt")
LARGEST_ID = 2**24  # the library below transformers counts up to it, in hours if it is large
GROWTH = 100  # characters that replace one; transformers' own normalizers write a handful


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder has a vocabulary. Without one, transformers makes a tokenizer that knows no words."""
    vocabularies = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
    return any(all((folder / name).is_file() for name in names) for names in vocabularies)


def files_there(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder: each of them can change the tokens."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def read_files(folder: Path) -> Mapping[str, dict[str, Any]]:
    """The objects in the tokenizer's files, by name."""
    found = {}
    for name in TOKENIZER_JSON:
        try:
            found[name] = read_object(folder / name)
        except FileNotFoundError:
            continue
        except (OSError, JsonError) as error:
            raise DataError(
                f"{folder / name}: the tokenizer cannot be read ({error}); copy or download it again"
            ) from error
    return found


def other_vocabularies(folder: Path, files: Mapping[str, dict[str, Any]]) -> list[str]:
    """What is said of a vocabulary next to a tokenizer.json that gives a token another id, or has other tokens."""
    known, own = _vocabulary("tokenizer.json", files["tokenizer.json"])
    if not own:
        return []
    others: dict[str, Mapping[str, Any]] = {}
    if (folder / "vocab.txt").is_file():
        words = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        others["vocab.txt"] = {word: i for i, word in enumerate(words)}
    if "vocab.json" in files:
        others["vocab.json"] = files["vocab.json"]
    sentences = []
    for name, there in others.items():
        different = [token for token, number in there.items() if known.get(token) != number]
        if different:
            sentences.append(
                f"tokenizer.json counts: {name} has {len(different)} of {len(there)} tokens under other ids, such as "
                f"{different[0]!r}"
            )
            log.warning("%s: %s; remove the file that is not the model's", folder, sentences[-1])
    return sentences


def check_growth(folder: Path, values: Mapping[str, Any]) -> None:
    """Refuses a normalizer that makes very long texts of short ones, which would fill the memory."""
    growth = 1.0
    for step in _steps(values.get("normalizer")):
        content = step.get("content") if step.get("type") == "Replace" else step.get("prepend")
        growth *= max(1, len(content)) if isinstance(content, str) else 1
    if growth > GROWTH:
        raise DataError(
            f"{folder / 'tokenizer.json'}: the normalizer may make a text {growth:.0f} times as long; it must not be "
            f"more than {GROWTH}; use the tokenizer that came with the model"
        )


def check_largest_id(folder: Path, files: Mapping[str, dict[str, Any]]) -> None:
    """Refuses ids that are far beyond those of any model; each text's own ids are compared with the model's."""
    for name, values in files.items():
        ids, _ = _vocabulary(name, values)
        largest = max((number for number in ids.values() if isinstance(number, int)), default=0)
        if largest > LARGEST_ID:
            raise DataError(
                f"{folder / name}: a token has the id {largest}; no model has so many tokens; copy or download it again"
            )


def _vocabulary(name: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ids of the tokens in a file, by token: of all, and of those that were not added to it."""
    if name == "vocab.json":
        return dict(values), dict(values)
    model, added = values.get("model"), values.get("added_tokens")
    ids = model.get("vocab") if isinstance(model, dict) else None
    own = ids if isinstance(ids, dict) else {}
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return own | {str(token.get("content")): token.get("id") for token in tokens}, own


def _steps(normalizer: Any) -> Iterator[Mapping[str, Any]]:
    """A normalizer, or those that a sequence holds."""
    if not isinstance(normalizer, dict):
        return
    inner = normalizer.get("normalizers")
    if isinstance(inner, list):
        for one in inner:
            yield from _steps(one)
    else:
        yield normalizer
