"""A tokenizer whose vocabulary is what it meets in given texts, and what it needs to spell everything else.

The smaller tokenizer makes the same tokens of the given texts. That follows from how the two kinds work:

- WordPiece takes, again and again, the longest token that a word goes on with. Fewer tokens that still include all
  that it took leave each of them the longest. A word that it gives up on is given up on again, because all tokens
  within such a word stay.
- BPE joins, again and again, the pair that comes first in its list. A shorter list that still has all pairs that it
  joined leaves each of them the first. The list keeps every pair whose result stays, and the parts of each.

Single characters (of byte-level BPE: all bytes) stay, too, so that other words are spelled instead of unknown.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.data.rows import DataError
from dynabert_jax.data.tokenizer import Tokenizer, load_tokenizer, tokenize

CURE = "leave its vocabulary as it is"
OLDER_FILES = ("vocab.txt", "vocab.json", "merges.txt")  # what tokenizer.json has as well


def with_fewer_tokens(tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]]) -> tuple[Tokenizer, np.ndarray]:
    """The tokenizer with what it meets in these texts, special tokens, and what it needs to spell other words.

    Args:
        texts: single texts or pairs, which are read whole, however long they are.

    Returns:
        The smaller tokenizer, whose `model` has the new size and padding token; and the ids that its tokens have in the
        larger one, int64 `[new vocabulary]`, ascending. The same rows of the embeddings belong to it.

    Raises:
        DataError: the tokenizer is of a kind that cannot be made smaller, or does not fit the model.
    """
    state = _state(tokenizer)
    before = [tokens.input_ids for tokens in tokenize(tokenizer, texts)]
    wanted = _tokens_of_texts(tokenizer, before) | _always_there(tokenizer, state)
    wanted |= _KINDS[state["model"]["type"]](tokenizer, state["model"], wanted, texts, before)
    kept = _kept_ids(tokenizer, state, wanted)
    smaller = _with_ids(tokenizer, state, kept)
    after = [kept[tokens.input_ids] for tokens in tokenize(smaller, texts)]
    _check_same(tokenizer, texts, before, after)
    return smaller, kept


def _state(tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of its tokenizer.json, if it can be made smaller."""
    if not tokenizer.base.is_fast:
        raise DataError(f"{tokenizer.folder}: a tokenizer without a tokenizer.json cannot be made smaller; {CURE}")
    state: dict[str, Any] = json.loads(tokenizer.base.backend_tokenizer.to_str())
    model = state["model"]
    reason = "" if model["type"] in _KINDS else f"it is of the kind {model['type']}, not {' or '.join(_KINDS)}"
    odd = [name for name in _ODD.get(model["type"], ()) if model.get(name)]
    reason = reason or (f"it uses {odd[0]}" if odd else "")
    if reason:
        raise DataError(f"{tokenizer.folder}: the tokenizer cannot be made smaller: {reason}; {CURE}")
    return state


# Which tokens stay


def _tokens_of_texts(tokenizer: Tokenizer, rows: Sequence[np.ndarray]) -> set[str]:
    return set(tokenizer.base.convert_ids_to_tokens(np.unique(np.concatenate(rows)).tolist()))


def _always_there(tokenizer: Tokenizer, state: Mapping[str, Any]) -> set[str]:
    """Special and added tokens, those that frame a text or a pair, and single characters."""
    backend, model = tokenizer.base.backend_tokenizer, state["model"]
    added = {token["content"] for token in state["added_tokens"]}
    nothing = backend.encode("", add_special_tokens=False)
    framed = backend.post_process(nothing, nothing).tokens
    unknown = [] if model.get("unk_token") is None else [model["unk_token"]]
    prefix = model.get("continuing_subword_prefix") or ""
    characters = {token for token in model["vocab"] if len(token.removeprefix(prefix)) == 1}
    return {*added, *tokenizer.base.all_special_tokens, *framed, *unknown, *characters} & backend.get_vocab().keys()


def _within_unknown_words(
    tokenizer: Tokenizer,
    model: Mapping[str, Any],
    _: set[str],
    texts: Sequence[tuple[str, ...]],
    rows: Sequence[np.ndarray],
) -> set[str]:
    """WordPiece: all tokens within words of the texts that it does not know."""
    unknown, words = tokenizer.unknown_id, set[str]()
    for text, ids in zip(texts, rows, strict=True):
        if unknown in ids:
            words.update(_unknown_words(tokenizer, text))
    prefix, longest = model["continuing_subword_prefix"], model["max_input_chars_per_word"]
    return {
        piece
        for word in words
        if len(word) <= longest
        for start in range(len(word))
        for end in range(start + 1, len(word) + 1)
        if (piece := (prefix if start else "") + word[start:end]) in model["vocab"]
    }


def _unknown_words(tokenizer: Tokenizer, text: tuple[str, ...]) -> Iterator[str]:
    backend = tokenizer.base.backend_tokenizer
    for part in text:
        plain = part if backend.normalizer is None else backend.normalizer.normalize_str(part)
        words = [(plain, ())] if backend.pre_tokenizer is None else backend.pre_tokenizer.pre_tokenize_str(plain)
        for word, _ in words:
            if any(token.id == tokenizer.unknown_id for token in backend.model.tokenize(word)):
                yield word


def _parts_of_pairs(_: Tokenizer, model: Mapping[str, Any], wanted: set[str], *__: Any) -> set[str]:
    """BPE: the tokens that others are joined of."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for first, second in map(_pair, model["merges"]):
        parts.setdefault(first + second, []).append((first, second))
    found, left = set[str](), list(wanted)
    while left:
        for part in {part for pair in parts.get(left.pop(), ()) for part in pair} - found:
            found.add(part)
            left.append(part)
    return found


def _pair(merge: Any) -> tuple[str, str]:
    """One entry of BPE's list: two tokens or, in older files, both in one string."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


_KINDS: Mapping[str, Callable[..., set[str]]] = {"WordPiece": _within_unknown_words, "BPE": _parts_of_pairs}
# Settings that no BERT or RoBERTa has, with which single characters have other names.
_ODD = {"BPE": ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")}


def _kept_ids(tokenizer: Tokenizer, state: Mapping[str, Any], wanted: set[str]) -> np.ndarray:
    """The ids of these tokens, and of those that a padding token cannot do without, ascending.

    RoBERTa's positions count from its padding token's id, so that no id up to it may change.
    """
    pad, ids = tokenizer.model.pad_token_id, _ids(state)
    needed = range(pad + 1) if tokenizer.model.model_type == "roberta" else [pad]
    kept = np.union1d([ids[token] for token in wanted], needed).astype(np.int64)
    nameless = np.setdiff1d(kept, list(ids.values()))
    if len(nameless):
        raise DataError(
            f"{tokenizer.folder}: the model's padding token is {pad}, and the tokenizer has no token {nameless[0]}, so "
            f"it cannot be made smaller; {CURE}"
        )
    if kept[-1] >= tokenizer.model.vocab_size:
        raise DataError(
            f"{tokenizer.folder}: the tokenizer has the token {kept[-1]}, but the weights have only "
            f"{tokenizer.model.vocab_size} tokens, so it cannot be made smaller; {CURE}"
        )
    return kept


def _ids(state: Mapping[str, Any]) -> dict[str, int]:
    return {**state["model"]["vocab"], **{token["content"]: token["id"] for token in state["added_tokens"]}}


# The smaller tokenizer


def _with_ids(tokenizer: Tokenizer, state: dict[str, Any], kept: np.ndarray) -> Tokenizer:
    """The tokenizer with these tokens alone, in their order."""
    new = {int(old): i for i, old in enumerate(kept)}
    pad = new[tokenizer.model.pad_token_id]
    model = tokenizer.model.replace(vocab_size=len(kept), pad_token_id=pad)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.base.save_pretrained(folder)
        for older in OLDER_FILES:
            (folder / older).unlink(missing_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(_renumbered(state, new)), encoding="utf-8")
        _renumber_added(folder / "tokenizer_config.json", new)
        _write_kind(folder / "config.json", model)
        smaller = load_tokenizer(folder, model)
    ids = {token: new[old] for token, old in _ids(state).items() if old in new}
    if smaller.base.get_vocab() != ids:
        raise DataError(f"{tokenizer.folder}: the tokenizer gives its tokens other ids when it is made smaller; {CURE}")
    return Tokenizer(smaller.base, tokenizer.folder, model, tokenizer.assumed)


def _renumbered(state: dict[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """The contents of tokenizer.json with new ids, without the tokens that have none."""
    model = state["model"]
    vocabulary = {token: new[old] for token, old in model["vocab"].items() if old in new}
    smaller = {**model, "vocab": vocabulary}
    if "merges" in model:
        pairs = map(_pair, model["merges"])
        smaller["merges"] = [pair for pair in pairs if pair[0] + pair[1] in vocabulary]
    added = [{**token, "id": new[token["id"]]} for token in state["added_tokens"]]
    parts = {"model": smaller, "added_tokens": added, "padding": None}
    return {**state, **parts, "post_processor": _reframed(state["post_processor"], new)}


def _reframed(part: Any, new: Mapping[int, int]) -> Any:
    """A post-processor with new ids: its class decides where they are."""
    if not isinstance(part, dict):
        return part
    changes: dict[str, Any] = {name: [part[name][0], new[part[name][1]]] for name in ("sep", "cls") if name in part}
    if "processors" in part:
        changes["processors"] = [_reframed(inner, new) for inner in part["processors"]]
    if "special_tokens" in part:
        tokens = part["special_tokens"]
        changes["special_tokens"] = {
            name: {**token, "ids": [new[old] for old in token["ids"]]} for name, token in tokens.items()
        }
    return {**part, **changes}


def _renumber_added(file: Path, new: Mapping[int, int]) -> None:
    """Changes the ids of added tokens in a tokenizer_config.json, which some classes write there as well."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    added = settings.get("added_tokens_decoder")
    if added:
        settings["added_tokens_decoder"] = {str(new[int(old)]): token for old, token in added.items()}
        file.write_text(json.dumps(settings), encoding="utf-8")


def _write_kind(file: Path, model: ModelConfig) -> None:
    """Lets transformers find the class of a tokenizer whose own files do not name it."""
    file.write_text(json.dumps({"model_type": model.model_type}), encoding="utf-8")


def _check_same(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], before: Sequence[np.ndarray], after: Sequence[np.ndarray]
) -> None:
    """Raises DataError if the smaller tokenizer makes other tokens of a text."""
    for text, old, new in zip(texts, before, after, strict=True):
        if not np.array_equal(old, new):
            raise DataError(
                f"{tokenizer.folder}: the tokenizer cannot be made smaller: it would make other tokens of "
                f"{text!r:.100}; {CURE}"
            )
