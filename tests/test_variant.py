"""Variants: their names, read back; what does not fit together is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.variant import Skip, Variant
from tiny import CONFIG, FULL, GRID, PER_LAYER


@dataclasses.dataclass(frozen=True)
class Sleep:
    """A method of the tests alone."""

    setting: str
    after: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        return f"sleep{self.setting}"

    def check_fits(self, config: ModelConfig, sub: SubNetwork) -> None:  # noqa: ARG002
        if config.model_type != "bert":
            raise ValueError("only a BERT sleeps")


@dataclasses.dataclass(frozen=True)
class Dream(Sleep):
    @property
    def name(self) -> str:
        return f"dream{self.setting}"


METHODS = {"sleep": Sleep, "dream": Dream}


@pytest.mark.parametrize("sub", [FULL, GRID[1].full(CONFIG), PER_LAYER], ids=lambda sub: sub.name)
@pytest.mark.parametrize("skips", [(), (Sleep("0.5"),), (Dream("1,2"), Sleep("0.25"))])
def test_a_name_is_read_back(sub: SubNetwork, skips: tuple[Skip, ...]) -> None:
    variant = Variant(sub, skips)
    assert Variant.parse(variant.name, CONFIG, METHODS) == variant
    assert hash(Variant.parse(variant.name, CONFIG, METHODS)) == hash(variant)


def test_names_are_those_of_the_parts() -> None:
    assert Variant(FULL).name == "w1_d1"
    assert Variant(FULL, (Dream("0.5"), Sleep("0.3"))).name == "w1_d1+dream0.5+sleep0.3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w1_d1+nap0.3", "'nap0.3' is not a method that skips work; allowed: sleep, dream"),
        ("w1_d1+0.3", "'0.3' is not a method that skips work"),
        ("w1_d1+sleep1+sleep2", "may use each method only once; got sleep, sleep"),
        ("w2_d1", r"width must be in \(0, 1\]; got 2.0"),
        ("w1", "'w1' is not the name of a sub-network; write its width and depth, such as 'w0.75_d0.5'"),
        ("", "'' is not the name of a sub-network"),
        ("l0h9n5", "keeps 9 heads and 5 neurons of layer 0, but that layer has 4 heads"),
        ("l7h1n5", "keeps layer 7, but the model has 3 layers"),
        ("w1_d0.666667", "the multipliers in 'w1_d0.666667' may be rounded"),
    ],
)
def test_what_is_no_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Variant.parse(name, CONFIG, METHODS)


def test_a_variant_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sleep1 acts after kept layers \(5,\), but w1_d1 has only 3"):
        Variant(FULL, (Sleep("1", after=(5,)),))
    Variant(FULL, (Sleep("1"),)).check_fits(CONFIG)
    with pytest.raises(ValueError, match="only a BERT sleeps"):
        Variant(FULL, (Sleep("1"),)).check_fits(CONFIG.replace(model_type="roberta", pad_token_id=1))
    with pytest.raises(ValueError, match="the model has 2 layers"):
        Variant(FULL).check_fits(CONFIG.replace(heads=(4, 4), neurons=(20, 20)))


@given(st.integers(1, 99_999), st.integers(1, 99_999), st.integers(1, 24), st.integers(1, 16))
def test_multipliers_of_five_digits_name_one_sub_network(width: int, depth: int, layers: int, heads: int) -> None:
    """Of every model; a name of six digits is rounded, and refused."""
    shape = CONFIG.replace(heads=(heads,) * layers, neurons=(64,) * layers)
    try:
        sub = SubNetwork.uniform(shape, width / 1e5, depth / 1e5)
    except ValueError:  # it keeps nothing
        return
    read = SubNetwork.parse(f"w{width / 1e5:.5f}_d{depth / 1e5:.5f}", shape)
    assert (read, read.width, read.depth) == (sub, sub.width, sub.depth)
