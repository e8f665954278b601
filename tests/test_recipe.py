"""What a configuration leaves open is chosen by the data and the model; what it names is kept."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from dynabert_jax import recipe
from dynabert_jax.config import (
    ConfigError,
    DataConfig,
    DepthStage,
    FinalStage,
    FineTune,
    Optimizer,
    RunConfig,
    WidthStage,
)
from dynabert_jax.config.checked import Checked
from dynabert_jax.config.complete import (
    CHOSEN,
    CompleteData,
    CompleteDepthStage,
    CompleteFinalStage,
    CompleteFineTune,
    CompleteOptimizer,
    CompleteRun,
    CompleteWidthStage,
    resumed,
)
from dynabert_jax.config.tasks import task
from dynabert_jax.recipe import LEAST_STEPS, Known, complete
from tiny import CONFIG

MODEL = CONFIG.replace(hidden_size=384, heads=(12,) * 6, head_size=32, neurons=(1536,) * 6, max_position_embeddings=512)
OPEN = RunConfig(model="any", run_dir="none", data=DataConfig(task=task("movie_reviews")))


def known(rows: int, sizes: Any = (17, 20), dev: int = 100) -> Known:
    """So many examples of these lengths, in turn."""
    return Known(np.resize(sizes, rows), max(sizes), dict.fromkeys((*OPEN.stages, "final"), rows), dev)


def chosen(rows: int, config: RunConfig = OPEN, **data: Any) -> CompleteRun:
    return complete(config, MODEL, known(rows, **data))


@pytest.mark.parametrize("rows", [1, 54, 270, 800, 4000, 12_800, 20_000, 400_000])
def test_every_stage_takes_its_steps_however_few_the_examples(rows: int) -> None:
    config = chosen(rows, OPEN.replace(final=FinalStage()))
    for name, stage in config.stages.items():
        per_epoch = -(-rows // config.data.batch_size)
        assert stage.epochs * per_epoch >= LEAST_STEPS[name]
        if stage.epochs > recipe.LEAST_EPOCHS[name]:  # and no epoch more
            assert (stage.epochs - 1) * per_epoch < LEAST_STEPS[name]


@pytest.mark.parametrize(("size", "small"), [(8, 16), (32, 16), (33, 8), (64, 8), (100, 4), (128, 4)])
def test_small_data_come_in_small_batches_and_large_data_in_the_papers(size: int, small: int) -> None:
    """An epoch of the larger batches has the steps that the longest stage needs."""
    longest = max(LEAST_STEPS.values())
    rows = (60, small * longest, 16 * longest, 32 * longest - 1, 32 * longest, 400_000)
    assert [chosen(count, sizes=(size,)).data.batch_size for count in rows] == [small, small, 16, 16, 32, 32]


@pytest.mark.parametrize(("share", "batch"), [(1, 4), (2, 4), (3, 6), (8, 8), (48, 48)])
def test_every_device_and_microbatch_gets_its_share(share: int, batch: int) -> None:
    data = dataclasses.replace(known(60, (128,)), share=share)
    assert complete(OPEN, MODEL, data).data.batch_size == batch


def test_the_papers_learning_rate_is_that_of_its_model() -> None:
    """And MiniLM's is near the 1e-4 that its configurations have."""
    rates = {
        hidden: complete(OPEN, MODEL.replace(hidden_size=hidden), known(800)).stages["depth"].optimizer.learning_rate
        for hidden in (16, 128, 384, 768, 1024)
    }
    assert rates == {16: 5e-4, 128: 5e-4, 384: 8e-5, 768: 2e-5, 1024: 1.1e-5}


@pytest.mark.parametrize(
    ("rows", "sizes", "lengths"),
    [
        (800, (8,), (8, 32)),  # 8 tokens are not padded to 32, for which there is no text
        (800, (4, 14), (16, 32)),
        (800, (130, 300), (128,)),  # as few as possible where compiling costs more than padding
        (60, (115, 128), (128,)),
        (100_000, (5, 60, 128), (8, 64, 128)),
        (20_000, (10,) * 9 + (100,), (16, 104)),
    ],
)
def test_texts_are_padded_to_few_lengths_that_fit_them(
    rows: int, sizes: tuple[int, ...], lengths: tuple[int, ...]
) -> None:
    cut = np.minimum(sizes, recipe.longest_text(OPEN, MODEL))
    assert chosen(rows, sizes=tuple(cut.tolist())).data.lengths == lengths


def test_every_length_of_any_data_fits_the_model() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        positions = int(rng.integers(3, 200))
        model = MODEL.replace(max_position_embeddings=positions)
        longest = min(recipe.LONGEST, positions)
        sizes = tuple(rng.integers(2, longest + 1, rng.integers(1, 30)).tolist())
        lengths = complete(OPEN, model, known(int(rng.integers(1, 10_000)), sizes)).data.lengths
        assert max(sizes) <= lengths[-1] <= positions
        assert len(lengths) <= recipe.MOST_LENGTHS + 1


def test_a_longer_text_in_dev_fits() -> None:
    data = known(800, (8,))
    longer = Known(data.sizes, 70, data.rows, data.dev)
    assert complete(OPEN, MODEL, longer).data.lengths == (8, 72)


@pytest.mark.parametrize(
    ("rows", "dev", "evaluations"),
    [(800, 200, 4), (60, 6, 4), (800, 20_000, 1), (400_000, 40_000, 4), (800, 3000, 1)],
)
def test_dev_is_scored_a_few_times_and_less_often_where_it_is_large(rows: int, dev: int, evaluations: int) -> None:
    stage = chosen(rows, dev=dev).stages["fine_tune"]
    assert round(stage.evaluations * stage.epochs) in range(max(1, evaluations - 1), evaluations + 1)


def test_what_a_configuration_names_is_kept() -> None:
    named = OPEN.replace(
        data=OPEN.data.replace(lengths=(24, 48), batch_size=8),
        fine_tune=FineTune(epochs=1, evaluations=9, optimizer=Optimizer(learning_rate=1e-3, warmup=0.5, eps=1e-6)),
        depth=DepthStage(epochs=2, optimizer=Optimizer(warmup=0.0)),
    )
    config = chosen(800, named)
    assert (config.data.lengths, config.data.batch_size) == ((24, 48), 8)
    assert config.fine_tune is not None
    assert config.fine_tune.to_values() == named.stages["fine_tune"].to_values()
    assert config.depth is not None
    assert (config.depth.epochs, config.depth.optimizer.warmup) == (2, 0.0)
    assert config.depth.optimizer.learning_rate == 8e-5
    assert complete(config, MODEL, known(7)) == config  # nothing is open any more


def test_everything_that_is_not_open_stays() -> None:
    settings = OPEN.replace(seed=7, depth=DepthStage(depths=(1.0, 0.5), teacher_width="full"), width=None)
    config = chosen(800, settings)
    assert config.width is None
    before, after = settings.to_values(), config.to_values()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"data", "fine_tune", "depth"}
    assert CompleteRun.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("complete", "base"),
    [
        (CompleteFineTune, FineTune),
        (CompleteWidthStage, WidthStage),
        (CompleteDepthStage, DepthStage),
        (CompleteFinalStage, FinalStage),
        (CompleteData, DataConfig),
        (CompleteOptimizer, Optimizer),
        (CompleteRun, RunConfig),
    ],
)
def test_a_complete_class_changes_nothing_but_what_is_chosen(complete: type[Checked], base: type[Checked]) -> None:
    stages = ("data", "fine_tune", "width", "depth", "final", "optimizer")  # have complete values of their own
    assert list(complete.model_fields) == list(base.model_fields)
    for name, field in base.model_fields.items():
        if name not in (*CHOSEN, *stages):
            assert complete.model_fields[name].default == field.default, name
            assert complete.model_fields[name].annotation == field.annotation, name


def test_an_incomplete_run_is_not_a_complete_one() -> None:
    with pytest.raises(ConfigError):
        CompleteRun.from_values(OPEN.to_values())


def test_a_run_keeps_the_recipe_that_it_began_with() -> None:
    stored = chosen(800)
    later = resumed(OPEN, stored)
    assert complete(later, MODEL, known(50)) == stored
    named = resumed(OPEN.replace(depth=DepthStage(epochs=99)), stored)
    assert named.stages["depth"].epochs == 99  # which the run's folder refuses


def test_what_was_chosen_is_told_and_what_was_named_is_not() -> None:
    data = known(800)
    lines = recipe.told(OPEN, complete(OPEN, MODEL, data), MODEL, data)
    assert lines[0] == (
        "recipe: batches of 16 (800 examples of 18 tokens in the mean), padded to 24 or 32 tokens (examples have "
        "17 to 20)"
    )
    assert lines[1].startswith("recipe: fine_tune: 3 epochs of 150 steps in all (at least 150), learning rate 8e-05 (")
    config = complete(OPEN, MODEL, data)
    assert recipe.told(config, config, MODEL, data) == []


def test_values_of_all_stages() -> None:
    both = OPEN.with_stages(epochs=4, learning_rate=5e-5)
    assert {stage.epochs for stage in both.stages.values()} == {4}
    assert {stage.optimizer.learning_rate for stage in both.stages.values()} == {5e-5}
    assert OPEN.with_stages() == OPEN
    assert both.final is None
