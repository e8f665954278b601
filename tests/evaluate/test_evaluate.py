"""Scores: every sentence's answer in its place, every sub-network compiled once, and the same on any devices."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from dynabert_jax import cost
from dynabert_jax.config.complete import CompleteData
from dynabert_jax.config.tasks import Task
from dynabert_jax.data.encode import Split
from dynabert_jax.evaluate.evaluate import EvaluationError, evaluate, logits_of
from dynabert_jax.evaluate.rows import mean_score
from dynabert_jax.infer import in_jax
from dynabert_jax.infer.in_jax import forward_program
from dynabert_jax.model.bert import Bert
from dynabert_jax.model.params import Model, cut_model
from dynabert_jax.subnetwork import SubNetwork
from tiny import CONFIG, Params, random_params
from tiny_run import Finished, cache_settings

TASK = Task(name="words", text_columns=("text",), labels=CONFIG.labels, metrics=("macro_f1", "accuracy"))
DATA = CompleteData(task=TASK, lengths=(6, 12), eval_batch_size=4)
SUBS = (SubNetwork.uniform(CONFIG, 0.75, 1.0), SubNetwork.uniform(CONFIG, 0.5, 1 / 3))


def sentences_of(sizes: list[int]) -> Split:
    """Sentences of so many tokens, some of them of the second type."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(1, CONFIG.vocab_size, size, np.int32) for size in sizes]
    types = [(np.arange(size) > size // 2).astype(np.int32) for size in sizes]
    return Split("dev", ids, types, rng.integers(0, 3, len(sizes)).astype(np.int32))


SPLIT = sentences_of([12, 3, 8, 3, 12, 8, 3, 12, 3, 8, 3])  # batches: rows 1 3 6 8, rows 10 2 5 9, and rows 0 4 7


@pytest.fixture(scope="module")
def params() -> Params:
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def alone(params: Params) -> dict[SubNetwork, np.ndarray]:
    """Logits `[n, C]` of each sentence alone, without padding, the sub-network sliced inside the full-size model."""

    @functools.partial(jax.jit, static_argnums=2)
    def forward(ids: jax.Array, types: jax.Array, sub: SubNetwork) -> jax.Array:
        return Bert(CONFIG).apply({"params": params}, ids, np.ones(ids.shape, np.int32), types, sub).logits

    pairs = list(zip(SPLIT.input_ids, SPLIT.token_type_ids, strict=True))
    return {sub: np.concatenate([forward(ids[None], types[None], sub) for ids, types in pairs]) for sub in SUBS}


@pytest.mark.parametrize("sub", SUBS, ids=lambda sub: sub.name)
def test_answers_come_back_in_the_splits_order(
    params: Params, alone: dict[SubNetwork, np.ndarray], sub: SubNetwork
) -> None:
    answers = logits_of(in_jax.open_model(cut_model(CONFIG, params, sub)), SPLIT, DATA, CONFIG.pad_token_id)
    assert answers.shape == (11, 3)
    assert len(np.unique(answers, axis=0)) == 11  # so that an exchange of two of them would be seen
    np.testing.assert_allclose(answers, alone[sub], rtol=1e-5, atol=1e-5)


def test_rows_say_what_was_scored_and_what_it_costs(params: Params, alone: dict[SubNetwork, np.ndarray]) -> None:
    rows = evaluate(Model(CONFIG, params), SUBS, [SPLIT], DATA, "float32")
    assert [(row.sub, row.width, row.depth) for row in rows] == [
        ("w0.75_d1", 0.75, 1.0),
        ("w0.5_d0.333333", 0.5, 1 / 3),
    ]
    for row, sub in zip(rows, SUBS, strict=True):
        answers = alone[sub].argmax(1)
        f1 = f1_score(SPLIT.labels, answers, average="macro")
        assert row.scores == pytest.approx({"macro_f1": f1, "accuracy": accuracy_score(SPLIT.labels, answers)})
        assert (row.metric, row.score, row.split, row.examples) == ("macro_f1", pytest.approx(f1), "dev", 11)
        assert row.parameters == sum(leaf.size for leaf in jax.tree.leaves(cut_model(CONFIG, params, sub).params))
        assert (row.length, row.flops) == (12, cost.flops(CONFIG, sub, 12))
    assert mean_score(rows) == pytest.approx((rows[0].score + rows[1].score) / 2)


def test_answers_that_are_no_numbers_are_an_error(params: Params) -> None:
    """Of one sub-network, which is named; the one that lacks the broken neuron is well."""
    broken = jax.tree.map(np.array, params)
    broken["layer_1"]["up"]["bias"][-1] = np.nan
    narrow, full = SubNetwork.uniform(CONFIG, 0.5, 1.0), SubNetwork.full(CONFIG)
    assert len(evaluate(Model(CONFIG, broken), (narrow,), [SPLIT], DATA, "float32")) == 1
    with pytest.raises(
        EvaluationError, match=f"sub-network {full.name} answers 11 of 11 examples of dev with NaN .+ smaller learning"
    ):
        evaluate(Model(CONFIG, broken), (narrow, full), [SPLIT], DATA, "float32")


def test_a_sub_network_is_traced_once_a_length(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches there are, however often it is evaluated, and with whatever weights."""
    traced: list[tuple[int, ...]] = []
    apply = Bert.apply

    def counting(self: Bert, variables: Any, ids: jax.Array, *args: Any, **kwargs: Any) -> Any:
        traced.append((*self.config.heads, ids.shape[1]))
        return apply(self, variables, ids, *args, **kwargs)

    monkeypatch.setattr(Bert, "apply", counting)
    forward_program.cache_clear()
    for weights in (params, random_params(CONFIG, seed=1)):
        evaluate(Model(CONFIG, weights), SUBS, [SPLIT, dataclasses.replace(SPLIT, name="test")], DATA, "float32")
    assert sorted(traced) == [(2, 6), (2, 12), (3, 3, 3, 6), (3, 3, 3, 12)]


def test_a_sub_network_is_cut_once_and_scored_on_every_split(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows come split by split, as results list them."""
    cut: list[SubNetwork] = []
    whole = Model.cut
    monkeypatch.setattr(Model, "cut", lambda model, sub: cut.append(sub) or whole(model, sub))
    fewer = Split("test", SPLIT.input_ids[:5], SPLIT.token_type_ids[:5], SPLIT.labels[:5])
    rows = evaluate(Model(CONFIG, params), SUBS, [SPLIT, fewer], DATA, "float32")
    assert cut == list(SUBS)
    assert [(row.split, row.sub, row.examples) for row in rows] == [
        (split, sub.name, examples) for split, examples in (("dev", 11), ("test", 5)) for sub in SUBS
    ]
    assert rows[2:] == evaluate(Model(CONFIG, params), SUBS, [fewer], DATA, "float32")


@pytest.mark.skipif(jax.local_device_count() < 2, reason="needs several devices to compare with one")
def test_one_device_scores_as_several_do(finished: Finished, tmp_path: Path) -> None:
    """By the command that scores a finished run again, in a process that has one."""
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "results.md").unlink()
    command = [sys.executable, "-m", "dynabert_jax", "evaluate", str(tmp_path / "run")]
    one_device = {"XLA_FLAGS": "", "CUDA_VISIBLE_DEVICES": "0"} | cache_settings(tmp_path / "programs")
    environment = os.environ | {name: str(value) for name, value in one_device.items()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.md").read_text() == (finished.folder / "results.md").read_text()
    assert (tmp_path / "run" / "results.md").read_text() in done.stdout
    theirs, ours = (json.loads((run / "results.json").read_text()) for run in (tmp_path / "run", finished.folder))
    assert theirs["provenance"]["devices"] == 1
    assert ours["provenance"]["devices"] == jax.local_device_count()
    assert theirs["rows"] == ours["rows"]
