"""Rows of a latency card and of a table of scores, with every value given."""

from typing import Any

from dynabert_jax.evaluate.rows import Row
from dynabert_jax.runs.latency_card import Card, Measurement, Origin

CPU, GPU = "AMD EPYC (2 threads)", "NVIDIA H100"
EARLY, LATE = "2025-01-31T12:00:00Z", "2025-02-01T08:00:00Z"


def measurement(**changes: Any) -> Measurement:
    values = {
        "device": CPU, "time": EARLY, "backend": "jax", "dtype": "float32", "batch": 1, "length": 128, "sub": "w1_d1",
        "rounds": 20, "median_ms": 8.0, "p95_ms": 9.0, "speed_up": 1.0, "speed_up_low": 1.0, "speed_up_high": 1.0,
        "ideal_speed_up": 1.0,
    }  # fmt: skip
    return Measurement(**(values | changes))


def card(*rows: Measurement, model: str = "abc") -> Card:
    origins = {
        (row.device, row.time): Origin(
            device=row.device, time=row.time, platform="cpu", threads=2, versions={"jax": "0.10"}, memory="planned"
        )
        for row in rows
    }
    return Card(model=model, origins=tuple(origins.values()), rows=rows)


def row(width: float | None, depth: float | None, score: float, **changes: Any) -> Row:
    name = "l0h2n5_l2h1n7" if width is None else f"w{width:g}_d{depth:g}"
    values = {
        "sub": name, "width": width, "depth": depth, "split": "dev", "examples": 1004, "metric": "accuracy",
        "scores": {"f1": 0.1, "accuracy": score}, "parameters": 22_713_986, "flops": 1_449_000_000, "length": 64,
    }  # fmt: skip
    return Row(**(values | changes))
