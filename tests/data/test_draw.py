"""What is held out, and which few are used: no class is lost, and no text is on both sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from dynabert_jax.data.draw import few, held_out


def rows_of(count: int) -> np.ndarray:
    """Texts of which none is another's copy."""
    return np.arange(count)


@pytest.mark.parametrize("seed", range(20))
def test_without_classes_and_copies_the_draw_is_plain(seed: int) -> None:
    found = held_out(rows_of(57), np.zeros(57, int), seed)
    assert found.tolist() == sorted(np.random.default_rng(seed).permutation(57)[:6])


@pytest.mark.parametrize("counts", [(18, 2), (50, 50), (90, 10), (700, 200, 100), (33, 33, 34), (995, 5)])
def test_every_class_gives_its_share(counts: tuple[int, ...]) -> None:
    """As scikit-learn divides them."""
    classes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for seed in range(5):
        found = held_out(rows_of(len(classes)), classes, seed)
        splitter = StratifiedShuffleSplit(1, test_size=-(-len(classes) // 10), random_state=seed)
        _, theirs = next(splitter.split(classes, classes))
        ours = np.bincount(classes[found], minlength=len(counts))
        assert abs(ours - np.bincount(classes[theirs], minlength=len(counts))).max() <= 1  # it breaks ties by chance
        assert len(found) == len(theirs)


@pytest.mark.parametrize("seed", range(50))
def test_a_rare_class_keeps_an_example_in_train(seed: int) -> None:
    """rare_class_held_out.csv: two of twenty."""
    classes = np.zeros(20, int)
    classes[[4, 11]] = 1
    found = held_out(rows_of(20), classes, seed)
    assert len(found) == 2
    assert 1 in np.delete(classes, found)


def test_what_cannot_be_divided_is_not() -> None:
    assert not len(held_out(rows_of(1), np.zeros(1, int), 0))
    assert not len(held_out(rows_of(2), np.array([0, 1]), 0))
    assert not len(held_out(np.zeros(30, int), np.arange(30) % 2, 0))  # all rows have one text
    assert not len(held_out(np.arange(30) % 3, np.arange(30) % 3, 0))  # each class has one text
    assert len(held_out(rows_of(2), np.zeros(2, int), 0)) == 1
    assert held_out(rows_of(3), np.array([0, 1, 0]), 0).tolist() in ([0], [2])


def test_a_few_texts_many_times_are_divided_by_text() -> None:
    """Eight texts ten times each, of two classes: each class gives one text."""
    texts = np.tile(np.arange(8), 10)
    found = held_out(texts, texts % 2, 0)
    assert len(found) == 20
    assert sorted(set(texts[found] % 2)) == [0, 1]
    assert not set(texts[found]) & set(np.delete(texts, found))


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=80),
    st.integers(0, 5),
)
def test_no_class_is_lost_and_no_text_is_on_both_sides(rows: list[tuple[int, int]], seed: int) -> None:
    texts, classes = (np.array(column) for column in zip(*rows, strict=True))
    found = held_out(texts, classes, seed)
    assert found.tolist() == sorted(set(found.tolist()))
    if len(found):
        assert set(np.delete(classes, found)) == set(classes)
        assert not set(texts[found]) & set(np.delete(texts, found))
    else:  # every text is the last one of a class
        assert all(set(classes[texts != text]) != set(classes) for text in set(texts))
    assert held_out(texts, classes, seed).tolist() == found.tolist()
    relabelled = texts * 1000 - 7  # only which texts are equal matters
    assert held_out(relabelled, classes, seed).tolist() == found.tolist()


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_a_few_are_drawn_plainly_unless_a_class_would_be_lost(labels: list[int], limit: int, seed: int) -> None:
    classes = np.array(labels)
    found = few(classes, limit, seed)
    plain = np.sort(np.random.default_rng(seed).permutation(len(classes))[:limit])
    assert len(set(found.tolist())) == len(found) == len(plain)
    assert len(set(classes[found])) == min(len(set(labels)), limit)
    if set(classes[plain]) == set(labels):
        assert found.tolist() == plain.tolist()
