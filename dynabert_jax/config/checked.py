"""The base class of all settings: frozen, typed, and checked on creation."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, get_args

import pydantic

from dynabert_jax.config.trainer_names import trainer_hint
from dynabert_jax.errors import UserError, nearest
from dynabert_jax.system.json_file import JsonError, parse_object


class ConfigError(UserError, ValueError):
    """A configuration that cannot be used; the message says what was given, what is allowed and what to do."""


class Checked(pydantic.BaseModel):
    """A frozen, hashable value whose fields are checked on creation.

    Types are strict: no "3" for 3, and no list for a tuple, except in JSON. An unknown key is an error that names the
    nearest key.

    Raises:
        ConfigError: a key is unknown, or a value has the wrong type or is out of range.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(type(self), error)) from None

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`."""
        try:
            values = parse_object(text)
        except JsonError as error:
            raise ConfigError(f"{cls.__name__}: {error}; got {text[:40]!r}") from None
        return cls.from_values(values)

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_values`."""
        return cls(**_with_tuples(values))

    def to_values(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like a new one."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)


def _with_tuples(value: Any) -> Any:
    """Turns all lists into tuples: JSON has only lists, settings have only tuples."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _explain(cls: type[Checked], error: pydantic.ValidationError) -> str:
    lines = [_explain_one(cls, problem) for problem in error.errors()]
    return f"{cls.__name__}: " + "; ".join(lines)


def _explain_one(cls: type[Checked], problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(cls, problem['loc'])}"
    if problem["type"] == "missing":
        return f"{key} is required and was not given"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not key:
        return message
    return f"{key} = {problem['input']!r}: {message}"


def _nearest(cls: type[Checked], location: tuple[str | int, ...]) -> str:
    """'; did you mean ...' with the class's own fields. A nested class has already explained its own keys."""
    names, key = list(cls.model_fields), str(location[-1])
    inside = [path for path in setting_paths(cls) if path.endswith(f".{key}")]
    if inside:
        return f"; did you mean {' or '.join(inside)}? allowed: {', '.join(names)}"
    if hint := trainer_hint(key):
        return f"; {hint}; allowed: {', '.join(names)}"
    return f"; {nearest(key, names, cutoff=0.0)}allowed: {', '.join(names)}"


def setting_paths(cls: type[Checked]) -> Iterator[str]:
    """The names of all settings, as dotted paths: those of the settings inside of a setting, too."""
    for name, field in cls.model_fields.items():
        yield name
        for inner in _classes_in(field.annotation):
            yield from (f"{name}.{path}" for path in setting_paths(inner))


def _classes_in(annotation: Any) -> Iterator[type[Checked]]:
    """The classes of settings in a type: `FineTune` in `FineTune | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Checked):
        yield annotation
    for part in get_args(annotation):
        yield from _classes_in(part)


Fraction = Annotated[float, pydantic.Field(gt=0.0, le=1.0)]
NonNegative = Annotated[float, pydantic.Field(ge=0.0, allow_inf_nan=False)]
Positive = Annotated[float, pydantic.Field(gt=0.0, allow_inf_nan=False)]
Probability = Annotated[float, pydantic.Field(ge=0.0, lt=1.0)]
Count = Annotated[int, pydantic.Field(ge=0)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]  # a random key of jax takes 32 bits
AtLeastOne = Annotated[int, pydantic.Field(ge=1)]
Name = Annotated[str, pydantic.Field(min_length=1)]
Dtype = Literal["float32", "bfloat16"]


def _not_empty(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("give at least one, such as (1.0,)")
    return values


Fractions = Annotated[tuple[Fraction, ...], pydantic.AfterValidator(_not_empty)]
