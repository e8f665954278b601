"""What was understood of the data: its rows, classes, lengths, unknown words and copies, in numbers and in words."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dynabert_jax.data.texts import TaskTexts, Texts
from dynabert_jax.data.tokenizer import Tokenizer, is_unknown

MUCH_UNKNOWN = 0.05  # of the tokens: above this, warn
SHOWN = 5  # words or classes that a message names as examples
MOST_CLASSES = 20  # that a line counts; more numbers than that are probably no names of classes
NEARLY_ALL = 0.9  # of the texts
ROWS_AT_ONCE = 10_000


class Encoded(Protocol):
    """The tokens of a split; see `dynabert_jax.data.encode.Split`."""

    @property
    def name(self) -> str: ...

    @property
    def input_ids(self) -> Sequence[np.ndarray]: ...

    @property
    def sizes(self) -> np.ndarray: ...

    @property
    def whole_sizes(self) -> np.ndarray | None: ...


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What was understood of one split.

    Attributes:
        name: of the split.
        rows: examples.
        classes: the number of examples by class, in the order of their ids; empty for a regression and without labels.
        labels: the smallest, mean and largest label of a regression; empty for classes.
        by_position: labels were given as the classes' positions.
        median_tokens, longest_tokens: of a text or pair before it is truncated, with special tokens.
        most_tokens: to which texts are truncated.
        truncated: examples that are longer.
        unknown: the share of tokens, without special ones, that the tokenizer does not know.
        unknown_words: a few words with such tokens.
        empty: examples of which a text is empty or blank.
        repeated: examples that repeat the text of an earlier one, except for letter case and white space.
        contradicting: those of them with another class than the first one.
        first_contradicting: where the first one and its text's first example are; empty if there is none.
        in_train: examples whose text is also trained on; 0 in train itself.
        first_in_train: where the first one and its copy in train are; empty if there is none.
        is_labelled: whether the examples have labels.
        left_out: unlabelled examples that are not used because their text is in dev or test.
        codes: examples whose texts are single words with a digit in them.
        first_code: the first of them; empty if there is none.
    """

    name: str
    rows: int
    classes: Mapping[str, int]
    labels: tuple[float, ...]
    by_position: bool
    median_tokens: float
    longest_tokens: int
    most_tokens: int
    truncated: int
    unknown: float
    unknown_words: tuple[str, ...]
    empty: int
    repeated: int
    contradicting: int
    first_contradicting: str
    in_train: int
    first_in_train: str
    is_labelled: bool = True
    left_out: int = 0
    codes: int = 0
    first_code: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(self._parts())}"

    def _parts(self) -> Iterator[str]:
        yield f"{self.rows} rows"
        yield self._classes()
        yield f"{self.median_tokens:g} tokens in the median and {self.longest_tokens} at most"
        yield f"{100 * self.unknown:.1f} % of tokens unknown" + _such_as(self.unknown_words)
        yield f"{self.empty} empty texts"
        yield f"{self.repeated} texts repeated"
        if self.name != "train":
            yield f"{self.in_train} texts also in train"
        if self.left_out:
            yield f"{self.left_out} more texts left out, because they are in dev or test"

    def _classes(self) -> str:
        if not self.is_labelled:
            return "no labels"
        if not self.classes:
            return "labels from {:g} to {:g}, {:g} in the mean".format(*(self.labels[i] for i in (0, 2, 1)))
        counts = [f"{name} {count}" for name, count in self.classes.items()]
        more = f" and {len(counts) - MOST_CLASSES} more classes" if len(counts) > MOST_CLASSES else ""
        how = " (labels are positions, from 0)" if self.by_position else ""
        return ", ".join(counts[:MOST_CLASSES]) + more + how

    @property
    def warnings(self) -> list[str]:
        """What is probably not as the user wants it, a sentence each."""
        return [f"{self.name}: {fault}" for fault in self._faults()]

    def _faults(self) -> Iterator[str]:
        missing = [name for name, count in self.classes.items() if not count]
        if missing:
            named = ", ".join(missing[:MOST_CLASSES]) + (", ..." if len(missing) > MOST_CLASSES else "")
            what = "they are never learned" if self.name == "train" else "scores say nothing of them"
            yield f"there is no example of {named}: {what}; add some"
        yield from self._faults_of_classes()
        if self.rows > 1 and self.repeated == self.rows - 1:
            yield "all texts are the same; check text_columns"
        if self.codes > NEARLY_ALL * self.rows:
            yield (
                f"{self.codes} of {self.rows} texts are single words with digits, such as {self.first_code!r}, which "
                "say little; check text_columns"
            )
        if self.empty:
            yield f"{self.empty} of {self.rows} texts are empty; remove those that should not be"
        if self.unknown > MUCH_UNKNOWN:
            yield (
                f"the tokenizer does not know {100 * self.unknown:.0f} % of the tokens{_such_as(self.unknown_words)}; "
                "use a model of this language, script and letter case"
            )
        if self.contradicting:
            yield (
                f"{self.contradicting} of {self.rows} texts repeat an earlier one with another label "
                f"({self.first_contradicting}); check the labels"
            )
        if self.in_train and self.name != "unlabelled":
            yield (
                f"{self.in_train} of {self.rows} texts are also trained on ({self.first_in_train}): scores of them say "
                "little of new texts; remove them from one of the files"
            )

    def _faults_of_classes(self) -> Iterator[str]:
        """Labels that are probably numbers or names of rows, and classes of which the scores say next to nothing."""
        once = [name for name, count in self.classes.items() if count == 1]
        if self.name != "train":
            if once:
                named = ", ".join(once[:MOST_CLASSES]) + (", ..." if len(once) > MOST_CLASSES else "")
                yield f"there is one example of {named}: scores say next to nothing of it; add some"
            return
        cure = 'set kind="regression" if they are quantities, or label_column to the column of the classes'
        if len(once) > max(2, self.rows / 2):
            yield f"{len(once)} of {self.rows} labels occur once, such as {once[0]!r}; {cure}"
        elif len(self.classes) > MOST_CLASSES and all(map(_is_number, self.classes)):
            yield f"{len(self.classes)} classes are numbers, such as {next(iter(self.classes))!r}; {cure}"


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _such_as(words: Sequence[str]) -> str:
    return f" ({', '.join(map(repr, words))})" if words else ""


def truncation(splits: Sequence[SplitSummary]) -> list[str]:
    """One sentence on all texts that are truncated; none if there are none."""
    cut = [f"{split.truncated} of {split.rows} in {split.name}" for split in splits if split.truncated]
    return [f"texts of more than {splits[0].most_tokens} tokens are truncated: {', '.join(cut)}"] if cut else []


@dataclasses.dataclass(frozen=True)
class Understood:
    """What was understood of the data, and what was taken for granted of the model.

    Attributes:
        splits: train first.
        model: plain sentences.
    """

    splits: tuple[SplitSummary, ...]
    model: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """One line for each split, and one for each sentence."""
        return [*map(str, self.splits), *(f"model: {sentence}" for sentence in self.model)]

    def to_json(self) -> dict[str, Any]:
        """Values for JSON."""
        return dataclasses.asdict(self)


def summarize(
    texts: TaskTexts, splits: Sequence[Encoded], tokenizer: Tokenizer, max_length: int
) -> tuple[SplitSummary, ...]:
    """What was understood of every split. `splits` are encoded, in the order of `texts.splits`."""
    return tuple(
        _summary(texts, examples, split, tokenizer, max_length)
        for (_, examples), split in zip(texts.splits, splits, strict=True)
    )


def _summary(texts: TaskTexts, examples: Texts, split: Encoded, tokenizer: Tokenizer, max_length: int) -> SplitSummary:
    sizes = split.sizes if split.whole_sizes is None else split.whole_sizes
    unknown, words = _unknown(examples, split, tokenizer)
    first, repeated = _first_copies(examples.copies)
    other = repeated[examples.classes[repeated] != examples.classes[first[repeated]]]
    in_train, copies = _copies_in(texts.train, examples) if examples is not texts.train else (np.array([], int),) * 2
    counts = np.bincount(examples.classes, minlength=len(texts.labels)).tolist()
    is_labelled = examples.table.is_labelled
    codes = [parts for parts in examples.texts if all(map(_is_code, parts))]
    return SplitSummary(
        name=split.name,
        rows=len(examples),
        classes=dict(zip(texts.labels, counts, strict=True)) if texts.labels and is_labelled else {},
        labels=() if texts.labels or not is_labelled else _range(examples.labels.astype(np.float64)),
        by_position=examples.by_position,
        median_tokens=float(np.median(sizes)),
        longest_tokens=int(sizes.max()),
        most_tokens=max_length,
        truncated=int((sizes > max_length).sum()),
        unknown=unknown,
        unknown_words=words,
        empty=sum(not all(map(str.strip, parts)) for parts in examples.texts),
        repeated=len(repeated),
        contradicting=len(other),
        first_contradicting=_places(examples, other[:1], examples, first[other[:1]]),
        in_train=len(in_train),
        first_in_train=_places(examples, in_train[:1], texts.train, copies[:1]),
        is_labelled=is_labelled,
        left_out=examples.left_out,
        codes=len(codes),
        first_code=codes[0][0] if codes else "",
    )


def _is_code(text: str) -> bool:
    """Whether a text is one word with a digit in it, such as A-1024."""
    return len(text.split(maxsplit=1)) == 1 and any(map(str.isdecimal, text))


def _range(labels: np.ndarray) -> tuple[float, ...]:
    return float(labels.min()), float(labels.mean()), float(labels.max())


def _places(one: Texts, rows: np.ndarray, other: Texts, copies: np.ndarray) -> str:
    pairs = zip(rows.tolist(), copies.tolist(), strict=True)
    return "".join(f"the first is {one.place(row)}, as {other.place(copy)}" for row, copy in pairs)


# Copies


def _first_copies(copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row `[n]` the first one with its text, and the rows `[m]` that are not the first ones."""
    _, where, inverse = np.unique(copies, return_index=True, return_inverse=True)
    first = where[inverse]
    return first, np.flatnonzero(first != np.arange(len(copies)))


def _copies_in(train: Texts, examples: Texts) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose text is also in train, and the first row there."""
    known, where = np.unique(train.copies, return_index=True)
    at = np.minimum(np.searchsorted(known, examples.copies), len(known) - 1)
    rows = np.flatnonzero(known[at] == examples.copies)
    return rows, where[at[rows]]


# Unknown tokens


def _unknown(examples: Texts, split: Encoded, tokenizer: Tokenizer) -> tuple[float, tuple[str, ...]]:
    """The share of unknown tokens, and some words with them."""
    unknown = tokenizer.unknown_id
    if unknown is None:
        return 0.0, ()
    special = np.array([number for number in tokenizer.base.all_special_ids if number != unknown], np.int32)
    rows: list[int] = []
    found = total = 0
    for start in range(0, len(examples), ROWS_AT_ONCE):
        arrays = split.input_ids[start : start + ROWS_AT_ONCE]
        ids = np.concatenate(arrays)
        where = np.flatnonzero(ids == unknown)
        found, total = found + len(where), total + int((~np.isin(ids, special)).sum())
        if len(rows) < SHOWN:
            ends = np.cumsum([len(array) for array in arrays])
            rows += (start + np.unique(np.searchsorted(ends, where, side="right"))).tolist()[:SHOWN]
    return found / max(total, 1), _unknown_words([examples.texts[row] for row in rows[:SHOWN]], tokenizer)


def _unknown_words(texts: Sequence[tuple[str, ...]], tokenizer: Tokenizer) -> tuple[str, ...]:
    words = dict.fromkeys(word[:40] for text in texts for part in text for word in part[:1000].split())
    found: list[str] = []
    for word in words:
        if is_unknown(tokenizer, word):
            found.append(word)
        if len(found) == SHOWN:
            break
    return tuple(found)
