"""The audit: what gains clearly less than its FLOPs promise is reported, what noise could explain is not."""

import pytest

from dynabert_jax.choose.audit import CLEARLY_LESS, audit, fixed_ms, likely_cause
from dynabert_jax.runs.latency_card import Measurement
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG
from tiny_rows import measurement

BASE = CONFIG.replace(hidden_size=768, head_size=64, heads=(12,) * 12, neurons=(3072,) * 12)
SUBS = {sub.name: sub for sub in (SubNetwork.uniform(BASE, width, depth) for width in (1.0, 0.5, 0.25, 1 / 12)
                                  for depth in (1.0, 0.5))}  # fmt: skip


def timed(sub: str, full_ms: float, median_ms: float, ideal: float, noise: float = 0.0) -> Measurement:
    ratio = full_ms / median_ms
    return measurement(
        sub=sub, median_ms=median_ms, p95_ms=median_ms, speed_up=ratio, speed_up_low=ratio - noise,
        speed_up_high=ratio + noise, ideal_speed_up=ideal,
    )  # fmt: skip


def test_only_what_is_clearly_slower_than_promised_is_reported() -> None:
    rows = [
        timed("w1_d1", 10.0, 10.0, 1.0),
        timed("w0.5_d1", 10.0, 5.2, 2.0),
        timed("w1_d0.5", 10.0, 10.0 / 1.5, 2.0),  # 75 % of the promise
        timed("w0.5_d0.5", 10.0, 10.0 / 3.0, 4.0, noise=0.3),  # 75 %, too, but it may be more than 80
    ]
    rows.append(rows[2].replace(speed_up_low=None, speed_up_high=None))  # timed too seldom to tell
    assert CLEARLY_LESS == 0.8
    assert [one.row for one in audit(BASE, SUBS, rows)] == [rows[2]]


@pytest.mark.parametrize(("fixed", "slope"), [(0.0, 1.0), (2.0, 8.0), (5.0, 1.0)])
def test_the_part_that_does_not_shrink_is_found(fixed: float, slope: float) -> None:
    for ideal in (1.5, 4.0):
        assert fixed_ms(timed("w0.5_d1", fixed + slope, fixed + slope / ideal, ideal)) == pytest.approx(fixed)


def test_a_size_slower_than_the_full_network_has_nothing_that_shrinks() -> None:
    assert fixed_ms(timed("w0.5_d1", 4.0, 5.0, 2.0)) == 5.0


def test_a_size_faster_than_promised_has_nothing_that_stays() -> None:
    assert fixed_ms(timed("w0.5_d1", 4.0, 1.0, 2.0)) == 0.0


@pytest.mark.parametrize(
    ("sub", "full_ms", "words"),
    [
        ("w0.5_d0.5", 0.9, "mostly launch overhead"),
        ("w1_d0.5", 9.0, "cost the same at every depth"),
        ("w0.5_d1", 9.0, "layer norms, residuals and the softmax keep their size at every width"),
        ("w0.0833333_d1", 9.0, "its narrowest matmuls have 64 columns"),
    ],
)
def test_the_cause_follows_from_the_shape(sub: str, full_ms: float, words: str) -> None:
    assert words in likely_cause(BASE, SUBS[sub], timed(sub, full_ms, full_ms / 1.1, 2.0))


def test_a_shortfall_in_words() -> None:
    (one,) = audit(BASE, SUBS, [timed("w0.5_d1", 10.0, 8.0, 2.0)])
    assert str(one) == (
        "w0.5_d1, batch 1, 128 tokens, jax, float32: 1.25 times as fast as the full network instead of 2.00; 6 of 8 "
        "ms do not shrink"
    )
