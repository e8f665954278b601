"""The checks that every configuration goes through."""

import pydantic
import pytest

from dynabert_jax.config.checked import Checked, ConfigError


class Wheel(Checked):
    size: int = 1
    spokes: tuple[int, ...] = (1, 2)


class Cart(Checked):
    name: str
    wheel: Wheel = Wheel()
    spare: Wheel | None = None
    more: tuple[Wheel, ...] = ()
    load: float = 0.5

    @pydantic.model_validator(mode="after")
    def _check(self) -> "Cart":
        if self.load > 10:
            raise ValueError("the load is too heavy; take 10 at most")
        return self


WHOLE = Cart(name="c", wheel=Wheel(size=3), spare=Wheel(spokes=(7,)), more=(Wheel(), Wheel(size=2)), load=1e-7)


def test_a_value_is_frozen_and_hashable() -> None:
    assert len({WHOLE, WHOLE.replace(), WHOLE.replace(name="d")}) == 2
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        WHOLE.name = "d"  # type: ignore[misc]


def test_json_returns_the_same_value() -> None:
    assert Cart.from_json(WHOLE.to_json()) == WHOLE


def test_json_must_hold_an_object() -> None:
    with pytest.raises(ConfigError, match=r"Cart: it must be a JSON object, \{\.\.\.\}; it is a list; got '\[1\]'"):
        Cart.from_json("[1]")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"load":' * 700 + "1" + "}" * 700, '{"load": ' + "9" * 5000 + "}"]
)
def test_what_is_no_json_that_can_be_read_is_refused(text: str) -> None:
    """Too deep for the parser, too deep for what walks through it, and a number that Python makes no int of."""
    with pytest.raises(ConfigError, match=r"Cart: it (is not JSON|is nested too deep|has a number that is too long)"):
        Cart.from_json(text)


def test_replace_checks_the_copy() -> None:
    assert WHOLE.replace(load=2.0).load == 2.0
    assert WHOLE.load == 1e-7
    with pytest.raises(ConfigError, match="load is too heavy"):
        WHOLE.replace(load=11.0)
    with pytest.raises(ConfigError, match="unknown key 'lod'; did you mean 'load'"):
        WHOLE.replace(lod=2.0)


@pytest.mark.parametrize("value", [{"wheel": {"siez": 2}}, {"spare": {"siez": 2}}, {"more": ({"siez": 2},)}])
def test_an_unknown_key_is_answered_with_the_nearest_of_its_own_class(value: dict[str, object]) -> None:
    nearest = "unknown key 'siez'; did you mean 'size'[?] allowed: size, spokes"
    with pytest.raises(ConfigError, match=nearest):
        Wheel(siez=2)
    with pytest.raises(ConfigError, match=nearest):
        Cart(name="c", **value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "Cart: name is required and was not given"),
        ({"name": 3}, "Cart: name = 3: should be a valid string"),
        ({"name": "c", "load": "0.5"}, "Cart: load = '0.5': should be a valid number"),
        ({"name": "c", "wheel": 3}, "wheel = 3: should be a valid dictionary or instance of Wheel"),
        ({"name": "c", "wheel": {"size": 2.0}}, r"size = 2\.0: should be a valid integer"),
        ({"name": "c", "wheel": {"size": True}}, "size = True: should be a valid integer"),
        ({"name": "c", "wheel": {"spokes": [1]}}, r"spokes = \[1\]: should be a valid tuple"),
        ({"name": "c", "wheel": {"spokes": (1, "2")}}, r"spokes\.1 = '2': should be a valid integer"),
        ({"name": "c", "load": 11.0}, "Cart: the load is too heavy; take 10 at most"),
        ({"load": "x"}, "name is required and was not given; load = 'x': should be a valid number"),
    ],
)
def test_an_error_says_what_came_and_what_is_allowed(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Cart(**values)


def test_a_whole_number_is_a_number() -> None:
    assert Cart(name="c", load=2).load == 2.0
