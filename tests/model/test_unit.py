"""A regression's unit: the numbers against scikit-learn's, and the network that answers in it."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from dynabert_jax.config import ModelConfig
from dynabert_jax.config.unit import Unit
from dynabert_jax.data.encode import Split
from dynabert_jax.model.unit import in_unit, out_of_unit, standardised, unit_of
from tiny import CONFIG, FULL, ROBERTA, assert_trees_close, random_batch, random_params, run

PRICES = Unit(mean=57_000.0, deviation=21_000.0)


def split_of(labels: np.ndarray) -> Split:
    tokens = [np.array([2, 3], np.int32)] * len(labels)
    return Split("train", tokens, tokens, labels)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (57.0, 48.0), (-1e6, 3e5), (2007.0, 9.0), (0.0, 1e-8)])
def test_numbers_are_standardised_as_by_scikit_learn(mean: float, deviation: float) -> None:
    labels = (mean + deviation * np.random.default_rng(0).standard_normal(1000)).astype(np.float32)
    theirs = StandardScaler().fit(labels[:, None].astype(np.float64))
    unit = unit_of(labels)
    assert unit.mean == pytest.approx(theirs.mean_[0], rel=1e-12)
    assert unit.deviation == pytest.approx(theirs.scale_[0], rel=1e-9)
    ours = standardised(split_of(labels), unit).labels
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs.transform(labels[:, None].astype(np.float64))[:, 0], rtol=1e-6, atol=1e-7)


def test_classes_stay_as_they_are() -> None:
    split = split_of(np.array([0, 1, 1], np.int32))
    assert standardised(split, Unit()) is split


@pytest.mark.parametrize("config", [CONFIG, ROBERTA], ids=["bert", "roberta"])
def test_the_network_answers_in_the_unit(config: ModelConfig) -> None:
    config = config.replace(labels=("price",), head="regression")
    params, batch = random_params(config), random_batch(config)
    plain = np.asarray(run(config, params, batch, FULL).logits, np.float64)
    answers = np.asarray(run(config, in_unit(params, PRICES), batch, FULL).logits)
    wanted = plain * PRICES.deviation + PRICES.mean
    np.testing.assert_allclose(answers, wanted, rtol=0, atol=PRICES.tolerance(1e-6))
    assert np.ptp(answers) > PRICES.deviation / 100
    assert_trees_close(out_of_unit(in_unit(params, PRICES), PRICES), params, rtol=1e-6, atol=1e-6)


def test_without_a_unit_nothing_is_rounded() -> None:
    params = random_params(CONFIG)
    assert in_unit(params, Unit()) is params
    assert out_of_unit(params, Unit()) is params
