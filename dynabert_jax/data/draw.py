"""Which rows are held out for dev, and which few are used. Every draw is a function of its arguments and the seed."""

import collections
import math

import numpy as np


def held_out(copies: np.ndarray, classes: np.ndarray, seed: int) -> np.ndarray:
    """The rows of about a tenth, in ascending order: as many of each class as its share, and all copies of a text.

    Every class keeps a row that is not held out. Where the copies of a text are more than the share of its class, the
    class gives its fewest copies, so that it is in both parts. Without copies and classes this is a plain random draw.

    Args:
        copies: `[n]`; equal numbers for rows with the same text.
        classes: `[n]`; ids of classes, or zeros.

    Returns:
        int `[m]`; empty if no row can be held out.
    """
    return _Draw(copies, classes, seed).rows()


class _Draw:
    """The state of one draw: what every class still has, and what it is still due."""

    def __init__(self, copies: np.ndarray, classes: np.ndarray, seed: int):
        self.groups, self.classes = _Groups(copies), classes
        self.class_of = classes[self.groups.first].tolist()
        self.left = np.bincount(classes).tolist()
        self.due = _shares(np.array(self.left), math.ceil(len(classes) / 10)).tolist()
        self.order = np.random.default_rng(seed).permutation(len(self.groups.sizes)).tolist()
        self.taken: list[np.ndarray] = []

    def rows(self) -> np.ndarray:
        sizes, shares = self.groups.sizes, self.due.copy()
        fewest_first = sorted(self.order, key=sizes.__getitem__)
        for group in self.order:
            if sizes[group] <= self.due[self.class_of[group]]:
                self._take(group)
        for group in fewest_first:
            if 0 < shares[self.class_of[group]] == self.due[self.class_of[group]]:
                self._take(group)
        for group in fewest_first if not self.taken else ():
            if not self.taken:
                self._take(group)
        return np.sort(np.concatenate(self.taken)) if self.taken else np.array([], int)

    def _take(self, group: int) -> None:
        """Holds the group out, unless a class would be left without a row."""
        rows = self.groups.rows(group)
        counts = collections.Counter(self.classes[rows].tolist())
        if all(self.left[one] > count for one, count in counts.items()):
            for one, count in counts.items():
                self.left[one] -= count
                self.due[one] -= count
            self.taken.append(rows)


class _Groups:
    """Rows by their text. Texts are numbered in the order in which they first occur.

    Attributes:
        first: each text's first row.
        sizes: the number of rows of each text.
    """

    def __init__(self, copies: np.ndarray):
        self._rows = np.argsort(copies, kind="stable")
        texts = copies[self._rows]
        starts = np.append(0, 1 + np.flatnonzero(texts[1:] != texts[:-1]))
        ends = np.append(starts[1:], len(copies))
        in_order = np.argsort(self._rows[starts])
        self._starts = starts[in_order].tolist()
        self.first = self._rows[starts[in_order]]
        self.sizes = (ends - starts)[in_order].tolist()

    def rows(self, group: int) -> np.ndarray:
        start = self._starts[group]
        return self._rows[start : start + self.sizes[group]]


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Divides a number in proportion to the counts; the largest fractions are rounded up."""
    exact = counts * total / counts.sum()
    shares = np.floor(exact).astype(int)
    up = np.argsort(shares - exact, kind="stable")[: total - shares.sum()]
    shares[up] += 1
    return shares


def few(classes: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """So many rows, in ascending order: a plain random draw, but with a row of every class as long as there is room.

    Args:
        classes: `[n]`; ids of classes, or zeros.
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    first = np.unique(classes[order], return_index=True)[1]
    return np.sort(np.concatenate([order[np.sort(first)], np.delete(order, first)])[:limit])
