"""Rounding, kept layers and the grid, against hand-counted tables."""

import dataclasses
import itertools

import pytest

from dynabert_jax.subnetwork import (
    KeptLayer,
    SubNetwork,
    check_names,
    families_of,
    kept_heads,
    kept_layers,
    kept_neurons,
    shared_prefixes,
    uniform_grid,
)


@dataclasses.dataclass(frozen=True)
class Shape:
    heads: tuple[int, ...]
    neurons: tuple[int, ...]


BASE = Shape((12,) * 12, (3072,) * 12)
UNEVEN = Shape((4, 2, 8), (10, 100, 7))


def test_the_papers_grid_of_bert_base() -> None:
    """The twelve sub-networks of the paper's tables."""
    grid = uniform_grid(BASE, (0.25, 0.5, 0.75, 1.0), (0.5, 0.75, 1.0))
    found = [(sub.name, len(sub.layers), sub.heads[0], sub.neurons[0]) for sub in grid]
    assert found == [
        ("w1_d1", 12, 12, 3072), ("w0.75_d1", 12, 9, 2304), ("w0.5_d1", 12, 6, 1536), ("w0.25_d1", 12, 3, 768),
        ("w1_d0.75", 9, 12, 3072), ("w0.75_d0.75", 9, 9, 2304), ("w0.5_d0.75", 9, 6, 1536), ("w0.25_d0.75", 9, 3, 768),
        ("w1_d0.5", 6, 12, 3072), ("w0.75_d0.5", 6, 9, 2304), ("w0.5_d0.5", 6, 6, 1536), ("w0.25_d0.5", 6, 3, 768),
    ]  # fmt: skip
    assert grid[0] == SubNetwork.full(BASE)
    assert all(len(set(sub.heads)) == len(set(sub.neurons)) == 1 for sub in grid)


@pytest.mark.parametrize(("depth", "every"), [(0.75, 4), (0.5, 2)])
def test_of_twelve_layers_every_fourth_or_every_second_goes(depth: float, every: int) -> None:
    assert kept_layers(12, depth) == tuple(layer for layer in range(12) if (layer + 1) % every)


@pytest.mark.parametrize(
    ("layers", "depth", "kept"),
    [
        (12, 1 / 3, (0, 3, 6, 9)),
        (6, 0.75, (0, 1, 2, 4)),  # 4.5 goes to the even 4
        (6, 0.5, (0, 2, 4)),
        (5, 0.5, (0, 2)),  # 2.5 goes to the even 2
        (7, 0.5, (0, 2, 4, 6)),  # 3.5 goes to the even 4
        (3, 0.67, (0, 1)),
        (1, 1.0, (0,)),
        (1, 0.6, (0,)),
    ],
)
def test_odd_numbers_of_layers(layers: int, depth: float, kept: tuple[int, ...]) -> None:
    assert kept_layers(layers, depth) == kept


def test_kept_layers_exist_and_ascend_for_every_depth() -> None:
    for layers in range(1, 25):
        for percent in range(1, 101):
            depth = percent / 100
            if round(layers * depth) == 0:
                continue
            kept = kept_layers(layers, depth)
            assert len(kept) == round(layers * depth)
            assert all(a < b for a, b in itertools.pairwise(kept))
            assert kept[0] == 0
            assert kept[-1] < layers


@pytest.mark.parametrize(
    ("heads", "width", "kept"),
    [
        (12, 0.75, 9), (12, 0.25, 3), (12, 0.3, 4), (12, 0.2, 2), (16, 0.25, 4),
        (7, 0.75, 5), (7, 0.5, 4), (7, 0.25, 2),  # 3.5 goes to the even 4
        (10, 0.25, 2), (6, 0.75, 4), (2, 0.75, 2), (1, 0.75, 1), (3, 0.5, 2),  # 2.5, 4.5 and 1.5 to the even
    ],
)  # fmt: skip
def test_kept_heads(heads: int, width: float, kept: int) -> None:
    assert kept_heads(heads, width) == kept


@pytest.mark.parametrize(
    ("neurons", "heads", "width", "kept"),
    [
        (3072, 12, 0.75, 2304),
        (3072, 12, 0.3, 1024),  # 4 of 12 heads, not 0.3 of the neurons
        (3072, 7, 0.5, 1755),  # 4/7 of 3072 is 1755.4
        (5, 12, 0.25, 1),  # 1.25
        (3, 12, 0.25, 1),  # 0.75, and yet one is kept
    ],
)
def test_kept_neurons_follow_the_heads(neurons: int, heads: int, width: float, kept: int) -> None:
    assert kept_neurons(neurons, heads, width) == kept


def test_each_layer_is_rounded_by_its_own_size() -> None:
    sub = SubNetwork.uniform(UNEVEN, 0.5, 2 / 3)
    assert (sub.layers, sub.heads, sub.neurons) == ((0, 1), (2, 1), (5, 50))
    assert SubNetwork.full(UNEVEN) == SubNetwork((0, 1, 2), UNEVEN.heads, UNEVEN.neurons)


def test_a_structure_stands_in_the_grid_once_under_its_largest_name() -> None:
    two_heads = Shape((2, 2), (8, 8))
    grid = uniform_grid(two_heads, (0.5, 0.75, 1.0), (1.0, 0.9))
    assert [sub.name for sub in grid] == ["w1_d1", "w0.5_d1"]  # 1.5 heads are 2, 1.8 layers are 2


def test_the_structure_alone_is_the_identity() -> None:
    named = SubNetwork.uniform(BASE, 0.75, 0.5)
    plain = SubNetwork(named.layers, named.heads, named.neurons)
    assert named == plain
    assert hash(named) == hash(plain)
    assert named != SubNetwork.uniform(BASE, 0.5, 0.5)
    assert named.name == "w0.75_d0.5"
    assert SubNetwork((0, 2), (3, 1), (5, 17)).name == "l0h3n5_l2h1n17"


def test_check_fits_accepts_what_the_model_has() -> None:
    SubNetwork.full(UNEVEN).check_fits(UNEVEN)
    SubNetwork((1,), (2,), (100,)).check_fits(UNEVEN)


@pytest.mark.parametrize(
    ("sub", "message"),
    [
        (SubNetwork((0, 3), (1, 1), (1, 1)), "keeps layer 3, but the model has 3 layers"),
        (SubNetwork((0, 1), (4, 3), (1, 1)), "3 heads and 1 neurons of layer 1, but that layer has 2 heads and 100"),
        (SubNetwork((0, 2), (4, 8), (1, 8)), "8 heads and 8 neurons of layer 2, but that layer has 8 heads and 7"),
    ],
)
def test_check_fits_names_what_is_not_there(sub: SubNetwork, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sub.check_fits(UNEVEN)


@pytest.mark.parametrize(
    ("layers", "heads", "neurons", "message"),
    [
        ((), (), (), "must keep at least one layer"),
        ((0, 1), (1,), (1, 1), "for each of its 2 kept layers; got 1 and 2"),
        ((0, 1), (1, 1), (1,), "for each of its 2 kept layers; got 2 and 1"),
        ((1, 0), (1, 1), (1, 1), r"ascending indices from 0; got \(1, 0\)"),
        ((1, 1), (1, 1), (1, 1), "ascending"),
        ((-1, 1), (1, 1), (1, 1), "ascending indices from 0"),
        ((0, 1), (1, 0), (1, 1), r"at least one head; got heads \(1, 0\)"),
        ((0, 1), (1, 1), (0, 1), r"at least one neuron; got neurons \(0, 1\)"),
    ],
)
def test_a_sub_network_that_is_none_is_refused(
    layers: tuple[int, ...], heads: tuple[int, ...], neurons: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SubNetwork(layers, heads, neurons)


@pytest.mark.parametrize("value", [0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_multipliers_lie_between_0_and_1(value: float) -> None:
    with pytest.raises(ValueError, match=rf"width must be in \(0, 1\]; got {value!r}"):
        SubNetwork.uniform(BASE, value, 1.0)
    with pytest.raises(ValueError, match=rf"depth must be in \(0, 1\]; got {value!r}"):
        SubNetwork.uniform(BASE, 1.0, value)


def test_a_multiplier_that_keeps_nothing_names_one_that_does() -> None:
    with pytest.raises(ValueError, match=r"width 0\.04 keeps none of 12 heads; use more than 0\.0417"):
        SubNetwork.uniform(BASE, 0.04, 1.0)
    with pytest.raises(ValueError, match=r"depth 0\.1 keeps none of 5 layers; use more than 0\.1$"):
        kept_layers(5, 0.1)


def test_what_sub_networks_begin_with_alike_is_one_way() -> None:
    deep, two, skips = (
        SubNetwork(layers, (2,) * len(layers), (5,) * len(layers)) for layers in ((0, 1, 2), (0, 1), (0, 2))
    )
    zero, one, last = (KeptLayer(layer, 2, 5) for layer in range(3))
    assert deep.kept == (zero, one, last)
    assert shared_prefixes((deep, two, skips)) == ((zero,), (zero, one), (zero, one, last), (zero, last))
    narrow = SubNetwork((0, 1), (1, 2), (5, 5))
    assert families_of((deep, narrow, two, skips)) == ((deep, two, skips), (narrow,))
    assert set(shared_prefixes((two, narrow))) == {two.kept[:1], two.kept, narrow.kept[:1], narrow.kept}


def test_a_name_is_of_one_sub_network() -> None:
    """Of 4 heads, 0.625 keeps 2 and 0.6250001 keeps 3; both would be called w0.625_d1."""
    shape = Shape((4, 4), (24, 24))
    subs = [SubNetwork.uniform(shape, width, 1.0) for width in (0.625, 0.6250001)]
    assert subs[0] != subs[1]
    with pytest.raises(ValueError, match=r"the name w0\.625_d1: width 0\.625 .*, and width 0\.6250001 .* 6 digits"):
        check_names(subs)
    check_names([subs[0], subs[0]])
    check_names([subs[0], SubNetwork.uniform(shape, 0.626, 1.0)])  # the same structure under two names is one of them
