"""The latency card: how long each sub-network of one model took, on which devices. Reading one needs no jax.

A card is a small JSON file. Cards of several devices can be merged into one; a newer measurement replaces an older one
of the same thing.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Self

import filelock
import pydantic

from dynabert_jax.config.checked import AtLeastOne, Checked, NonNegative, Positive
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.errors import UserError
from dynabert_jax.runs.files import sealed, unsealed
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system.files import locked, reason, whole

CARD = "latency.json"  # in a run's folder


class LatencyError(UserError, RuntimeError):
    """Latencies that cannot be measured, read or found; the message says what there is and what to do."""


class Origin(Checked):
    """Where and when rows were measured. `Measurement.device` and `.time` refer to it.

    Attributes:
        device: its usual name, such as `NVIDIA H100 80GB HBM3`, or the CPU with its threads.
        time: when the measuring began, UTC, as in `2025-01-31T12:00:00Z`.
        platform: cpu, gpu or tpu.
        threads: CPU cores that the process could use.
        versions: by package, of everything that the times may depend on.
        memory: what `Measurement.memory_bytes` counts, in words.
    """

    device: str
    time: str
    platform: str
    threads: AtLeastOne
    versions: dict[str, str]
    memory: str


class Measurement(Checked):
    """One sub-network's latency: from token ids on the host to logits on the host, of one batch.

    Attributes:
        device, time: those of its origin.
        backend: what ran it, such as `jax` or `onnxruntime`.
        dtype: of its matmuls: float32, bfloat16 or int8.
        batch: sentences.
        length: tokens per sentence, none of them padding.
        sub: the sub-network's name.
        rounds: how often it was timed.
        median_ms, p95_ms: milliseconds per batch, the median and the 95th percentile.
        speed_up: how many times as fast as the full network in the same rounds; the median over rounds.
        speed_up_low, speed_up_high: the 95 % confidence interval of the speed-up; None with too few rounds for one.
        ideal_speed_up: the full network's FLOPs over its own.
        memory_bytes: what it needs on the device; None if the backend does not report it.
    """

    device: str
    time: str
    backend: str
    dtype: str
    batch: AtLeastOne
    length: AtLeastOne
    sub: str
    rounds: AtLeastOne
    median_ms: Positive
    p95_ms: Positive
    speed_up: Positive
    speed_up_low: Positive | None = None
    speed_up_high: Positive | None = None
    ideal_speed_up: Positive
    memory_bytes: NonNegative | None = None

    @property
    def examples_per_second(self) -> float:
        return 1e3 * self.batch / self.median_ms

    @property
    def key(self) -> tuple[object, ...]:
        """What was measured: rows with the same key are measurements of the same thing."""
        return self.device, self.backend, self.dtype, self.batch, self.length, self.sub


class Card(Checked):
    """All latencies measured for one model.

    Attributes:
        model: the fingerprint of the model that was measured.
        origins: of the rows.
        rows: one for every sub-network, shape, dtype, backend and device.
    """

    model: str
    origins: tuple[Origin, ...]
    rows: Annotated[tuple[Measurement, ...], pydantic.Field(min_length=1)]

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if len({row.key for row in self.rows}) < len(self.rows):
            raise ValueError("it has two rows for the same measurement")
        return self


class Where(Checked):
    """Selects latencies of a card: by exact values, and by a device's name or a part that no other device's name has.

    None selects the only value that the card has.
    """

    device: str | None = None
    backend: str | None = None
    dtype: str | None = None
    batch: AtLeastOne | None = None
    length: AtLeastOne | None = None


def fingerprint(config: ModelConfig, subs: Iterable[SubNetwork]) -> str:
    """A hash of what latencies depend on, 64 hex digits: the model's sizes, the sub-networks' names and structures."""
    sizes = config.model_dump(
        include={"model_type", "vocab_size", "hidden_size", "head_size", "heads", "neurons",
                 "max_position_embeddings", "type_vocab_size"}
    )  # fmt: skip
    structures = sorted([sub.name, sub.layers, sub.heads, sub.neurons] for sub in subs)
    text = json.dumps([sizes, config.num_labels, structures], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_card(path: Path, model: str) -> Card:
    """Reads the card of a model.

    Args:
        model: its fingerprint.

    Raises:
        LatencyError: there is no card, it is damaged, or it belongs to another model.
    """
    try:
        card = Card.from_values(unsealed(path.read_bytes()))
    except FileNotFoundError:
        raise LatencyError(f"there is no latency card {path}; `dynabert bench RUN` writes one") from None
    except (OSError, ValueError) as error:  # ConfigError is a ValueError
        raise LatencyError(f"{path} is not a latency card, or is damaged ({error}); use another one") from error
    if card.model != model:
        raise LatencyError(
            f"{path} is the latency card of another model ({card.model[:12]}; this one is {model[:12]}): sizes or "
            f"sub-networks differ. Run `dynabert bench` on this run, or name its own card"
        )
    return card


def write_card(path: Path, card: Card) -> None:
    """Writes a card atomically, and makes its folder if needed.

    Raises:
        LatencyError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            temporary.write_text(sealed(card.to_values()) + "\n", encoding="utf-8")
    except OSError as error:
        raise LatencyError(
            f"cannot write {path}: {reason(error)}; free some space, or name another file with --out"
        ) from error


def add_to_card(path: Path, new: Card) -> None:
    """Adds rows to a card, or makes one. Several processes may do so at once: none loses another's rows.

    Raises:
        LatencyError: the card cannot be read or written, or belongs to another model.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, timeout=60):
            old = _without(read_card(path, new.model), new) if path.exists() else []
            write_card(path, merge([*old, new]))
    except filelock.Timeout:
        raise LatencyError(f"another process has been writing {path} for a minute; name another file") from None
    except OSError as error:
        raise LatencyError(f"cannot write {path}: {reason(error)}; name another file with --out") from error


def _without(old: Card, new: Card) -> list[Card]:
    """The old card without what was measured again, whatever time its rows claim: a clock may have been set back."""
    again = {row.key for row in new.rows}
    rows = tuple(row for row in old.rows if row.key not in again)
    return [old.replace(rows=rows)] if rows else []


def merge(cards: Sequence[Card]) -> Card:
    """Merges the rows of all cards. Of measurements of the same thing the newest is kept; of equals, the last given.

    Raises:
        LatencyError: there is no card, or they belong to different models.
    """
    if len({card.model for card in cards}) != 1:
        raise LatencyError("cannot merge these latency cards; give at least one, and only cards of the same model")
    rows: dict[tuple[object, ...], Measurement] = {}
    for row in sorted((row for card in cards for row in card.rows), key=lambda row: row.time):  # stable
        rows[row.key] = row
    origins = {(origin.device, origin.time): origin for card in cards for origin in card.origins}
    used = {(row.device, row.time) for row in rows.values()}
    return Card(
        model=cards[0].model,
        origins=tuple(origin for key, origin in origins.items() if key in used),
        rows=tuple(rows.values()),
    )


def latencies(card: Card, where: Where) -> tuple[Measurement, ...]:
    """The measurements for one device, backend, dtype and shape, one per sub-network.

    Raises:
        LatencyError: the card has none, or `where` leaves several to choose from; the message lists what the card has.
    """
    rows = card.rows
    for name in Where.model_fields:
        rows = _narrowed(rows, name, getattr(where, name))
    return rows


def _narrowed(rows: Sequence[Measurement], name: str, wanted: str | int | None) -> tuple[Measurement, ...]:
    """The rows whose field has the wanted value or, with None, the only value that there is."""
    there = sorted({getattr(row, name) for row in rows})
    if wanted is None:
        found = there
    elif name == "device" and isinstance(wanted, str):  # devices have long names; other values must match exactly
        found = _matching(there, wanted)
    else:
        found = [value for value in there if value == wanted]
    if not found:
        raise LatencyError(
            f"the latency card has no {name} {wanted}; it has {', '.join(map(str, there))}. Choose another --{name}, "
            f"or measure this one with `dynabert bench`"
        )
    if len(found) > 1:
        raise LatencyError(
            f"the latency card has more than one {name}: {', '.join(map(str, found))}; say which with --{name}"
        )
    return tuple(row for row in rows if getattr(row, name) == found[0])


def _matching(there: Sequence[str], wanted: str) -> list[str]:
    """The wanted name itself, or else all names that contain it."""
    return [wanted] if wanted in there else [name for name in there if wanted.casefold() in name.casefold()]
