"""What the stages train, and that a step over all devices is the step that one device would take."""

import collections
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynabert_jax.config.complete import (
    CompleteData,
    CompleteDepthStage,
    CompleteFinalStage,
    CompleteFineTune,
    CompleteOptimizer,
    CompleteRun,
    CompleteWidthStage,
)
from dynabert_jax.config.tasks import task
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.model.bert import Bert
from dynabert_jax.plan import Group, LossWeights, StagePlan, depth, final, fine_tune, plan_run, results_of, width
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.distillation import Distillation, DistillationLosses, Targets
from dynabert_jax.train.optim import adamw
from dynabert_jax.train.step import (
    Programs,
    Summed,
    example_keys,
    gradients,
    init_state,
    make_update,
    train_step,
)
from tiny import CONFIG as THREE_LAYERS
from tiny import assert_trees_close, by_path, norm, part_of, random_batch, random_params, run

Params = Any

CONFIG = THREE_LAYERS.replace(heads=(4, 4), neurons=(20, 20))
SHALLOW = CONFIG.replace(heads=(4,), neurons=(20,))
FULL = SubNetwork.full(CONFIG)
STEPS = 4


def sub(width: float, depth: float = 1.0) -> SubNetwork:
    return SubNetwork.uniform(CONFIG, width, depth)


# What they train


def test_fine_tuning_teaches_the_full_network_the_labels() -> None:
    objective = fine_tune(CONFIG, CompleteFineTune())
    assert objective.groups == (Group(None, (FULL,)),)
    assert objective.weights == LossWeights(logit=0.0, hidden=0.0, label=1.0)


def test_the_width_stage_has_every_width_and_the_full_teacher() -> None:
    objective = width(CONFIG, CompleteWidthStage(widths=(0.25, 1.0, 0.5)))
    assert objective.groups == (Group(FULL, (FULL, sub(0.5), sub(0.25))),)
    assert objective.weights == LossWeights(logit=1.0, hidden=0.1, label=0.0)


def test_the_depth_stages_teacher_has_the_students_width() -> None:
    objective = depth(CONFIG, CompleteDepthStage(widths=(1.0, 0.5), depths=(0.5, 1.0)))
    assert objective.groups == (
        Group(FULL, (FULL, sub(1.0, 0.5))),
        Group(sub(0.5), (sub(0.5), sub(0.5, 0.5))),
    )
    assert objective.weights == LossWeights(logit=1.0, hidden=1.0, label=0.0)


def test_the_released_codes_depth_teacher_is_full() -> None:
    objective = depth(CONFIG, CompleteDepthStage(widths=(1.0, 0.5), depths=(0.5,), teacher_width="full"))
    assert objective.groups == (Group(FULL, (sub(1.0, 0.5), sub(0.5, 0.5))),)


def test_widths_that_round_to_the_same_are_taught_once() -> None:
    two_heads = CONFIG.replace(heads=(2, 2))
    full = SubNetwork.full(two_heads)
    assert width(two_heads, CompleteWidthStage(widths=(1.0, 0.75))).students == (full,)
    assert depth(two_heads, CompleteDepthStage(widths=(1.0, 0.75), depths=(1.0,))).groups == (Group(full, (full,)),)


def test_the_final_stage_teaches_every_size_the_labels() -> None:
    objective = final(CONFIG, CompleteFinalStage(widths=(1.0, 0.5), depths=(0.5,)))
    assert objective.groups == (Group(None, (sub(1.0, 0.5), sub(0.5, 0.5))),)
    assert objective.weights == LossWeights(logit=0.0, hidden=0.0, label=1.0)


@pytest.mark.parametrize("released", [False, True])
def test_regression_distils_unless_the_released_code_is_meant(released: bool) -> None:
    for config, distils in ((CONFIG.replace(labels=("score",), head="regression"), not released), (CONFIG, True)):
        narrow = width(config, CompleteWidthStage(distil_regression=not released))
        shallow = depth(config, CompleteDepthStage(distil_regression=not released))
        assert narrow.weights == LossWeights(float(distils), 0.1, 0.0)
        assert shallow.weights == LossWeights(float(distils), 1.0, 0.0)


def test_a_stage_that_learns_from_labels_alone_runs_no_teacher() -> None:
    labels_alone = {"logit_weight": 0.0, "hidden_weight": 0.0, "label_weight": 2.0}
    narrow = width(CONFIG, CompleteWidthStage(widths=(1.0, 0.5), **labels_alone))
    assert narrow.groups == (Group(None, (FULL, sub(0.5))),)
    assert narrow.weights == LossWeights(0.0, 0.0, 2.0)
    shallow = depth(CONFIG, CompleteDepthStage(widths=(1.0,), depths=(1.0,), **labels_alone))
    assert shallow.groups == (Group(None, (FULL,)),)
    # A regression task's outputs are not matched by the released code: without hidden states nothing is left.
    released = CompleteWidthStage(distil_regression=False, hidden_weight=0.0, label_weight=1.0)
    assert width(CONFIG.replace(labels=("score",), head="regression"), released).groups[0].teacher is None
    assert width(CONFIG, released).groups[0].teacher == FULL


def test_a_stage_has_a_teacher_where_somebody_learns_from_one() -> None:
    taught, untaught = (
        width(CONFIG, CompleteWidthStage()),
        CompleteWidthStage(logit_weight=0.0, hidden_weight=0.0, label_weight=1.0),
    )
    assert taught.has_teacher
    assert not width(CONFIG, untaught).has_teacher
    assert not final(CONFIG, CompleteFinalStage()).has_teacher


def test_the_plan_has_the_runs_stages_in_their_order() -> None:
    run = CompleteRun(model="some/folder", run_dir="runs/some", data=CompleteData(task=task("movie_reviews")))
    plan = plan_run(CONFIG, run)
    assert [objective.name for objective in plan.stages] == ["fine_tune", "width", "depth"]
    assert plan.final is None
    assert results_of(CONFIG, plan) == plan.stages[-1].students

    nothing = run.replace(fine_tune=None, width=None, depth=None)
    assert results_of(CONFIG, plan_run(CONFIG, nothing)) == (FULL,)
    with pytest.raises(ValueError, match=r"width 0\.1 keeps none of 4 heads"):
        plan_run(CONFIG, run.replace(width=CompleteWidthStage(widths=(0.1,))))


class Recorder:
    """Stands in for the compiled programs and writes down what they are asked."""

    def __init__(self) -> None:
        self.taught: list[SubNetwork] = []
        self.asked: list[tuple[tuple[SubNetwork, ...], Any]] = []
        self.keys: list[tuple[int, ...]] = []

    def zeros(self, *_: Any) -> int:
        return 0

    def teach(self, _params: Params, _batch: Batch, which: tuple[type, SubNetwork]) -> SubNetwork:
        kind, teacher = which
        assert kind is Distillation
        self.taught.append(teacher)
        return teacher

    def accumulate(
        self, _params: Params, grads: int, batch: Batch, rows: Any, targets: Any, _weights: Any, key: Any,
        which: tuple[type, tuple[SubNetwork, ...]],
    ) -> tuple[int, list[str]]:  # fmt: skip
        kind, family = which
        assert kind is Distillation
        np.testing.assert_allclose(batch.weights.sum(), 1.0, rtol=1e-6)
        assert batch.weights.shape == (devices.num_devices(), 8 // devices.num_devices())
        np.testing.assert_array_equal(rows.reshape(-1), np.arange(8))
        self.asked.append((family, targets))
        self.keys.append(tuple(jax.random.key_data(key).tolist()))
        return grads + 1, [student.name for student in family]


@pytest.mark.parametrize("teacher_width", ["same", "full"])
def test_each_teacher_answers_once_and_every_width_draws_its_own_dropout(teacher_width: Any) -> None:
    objective = depth(CONFIG, CompleteDepthStage(widths=(1.0, 0.5), depths=(1.0, 0.5), teacher_width=teacher_width))
    recorder = Recorder()
    batch = random_batch(CONFIG, rows=8)
    summed = gradients(recorder, Distillation(objective), {}, None, batch, jax.random.key(0))  # type: ignore[arg-type]
    assert recorder.taught == ([FULL, sub(0.5)] if teacher_width == "same" else [FULL])
    wide, narrow = (sub(1.0), sub(1.0, 0.5)), (sub(0.5), sub(0.5, 0.5))
    assert recorder.asked == [(wide, FULL), (narrow, sub(0.5) if teacher_width == "same" else FULL)]
    assert summed.grads == 2
    assert list(summed.losses.items()) == [(student, student.name) for student in objective.students]
    assert len(set(recorder.keys)) == 2


# The step


class CountingPrograms(Programs):
    """Counts how often the gradients of each family of students are traced."""

    def __init__(self, model: Bert):
        self.traces: collections.Counter[tuple[SubNetwork, ...]] = collections.Counter()
        super().__init__(model)

    def _accumulate(self, *arguments: Any) -> Any:
        _, family = arguments[-1]
        self.traces[family] += 1
        return super()._accumulate(*arguments)


@pytest.fixture(scope="module")
def programs() -> CountingPrograms:
    """For all tests: compiling them takes most of the time."""
    return CountingPrograms(Bert(CONFIG))


# Two teachers, and students that are narrower, shallower and both: few, since each has to be compiled.
NARROW = Group(sub(0.5), (sub(0.5, 0.5),))
GROUPS = (Group(FULL, (FULL, sub(1.0, 0.5))), NARROW)
LEARNING_RATE = 1e-2


def objective_of(*groups: Group, eps: float = 1e-8) -> StagePlan:
    """All three losses."""
    settings = CompleteDepthStage(optimizer=CompleteOptimizer(learning_rate=LEARNING_RATE, eps=eps))
    return StagePlan("depth", settings, groups, LossWeights(logit=1.0, hidden=0.7, label=0.5))


def ragged_batch(seed: int) -> tuple[Batch, Batch]:
    """Five examples and rows that only fill the batch up, as `make_batch` makes them; and the same without filler.

    The latter has the fifth example four times, with a quarter of its weight each: one shape is compiled once.
    """
    batch = random_batch(CONFIG, rows=8, seed=seed)
    real = np.arange(8) < 5
    first = np.eye(1, batch.inputs.input_ids.shape[1], dtype=np.int32)
    filled = Batch(
        inputs=Inputs(
            np.where(real[:, None], batch.inputs.input_ids, CONFIG.pad_token_id),
            np.where(real[:, None], batch.inputs.attention_mask, first),
            np.where(real[:, None], batch.inputs.token_type_ids, 0),
        ),
        labels=np.where(real, batch.labels, 0),
        weights=real.astype(np.float32),
    )
    repeated = jax.tree.map(lambda a: a[[0, 1, 2, 3, 4, 4, 4, 4]], batch)
    return filled, repeated.replace(weights=np.where(np.arange(8) < 4, 1.0, 0.25).astype(np.float32))


@functools.partial(jax.jit, static_argnums=0)
def one_by_one(objective: StagePlan, params: Params, teacher: Params, batch: Batch) -> Summed:
    """The gradients and losses of one student after the other on one device, added up; no pmap."""
    model, keys = Bert(CONFIG), jax.random.split(jax.random.key(0), len(batch.weights))
    batch = batch.replace(weights=batch.weights / batch.weights.sum())
    total, found = jax.tree.map(jnp.zeros_like, params), {}
    for group in objective.groups:
        outputs = model.apply({"params": teacher}, *batch.inputs, group.teacher)
        targets = Targets(outputs.logits, outputs.hidden_states)
        for student in group.students:
            own, (losses,) = jax.grad(Distillation.loss, argnums=1, has_aux=True)(
                model, params, batch, targets, objective.weights, keys, (student,)
            )
            total = jax.tree.map(jnp.add, total, own)
            found[student.name] = losses
    return total, found


def test_a_step_over_the_devices_is_the_step_of_one(programs: CountingPrograms) -> None:
    """Two steps of the depth stage without dropout, the first with a ragged batch: gradients, losses, weights."""
    # An eps that is not tiny: Adam would make a step of full size out of the rounding noise of a zero gradient.
    objective = objective_of(*GROUPS, eps=1e-3)
    params, teacher = random_params(CONFIG), random_params(CONFIG, seed=1)
    update = make_update(Distillation(objective), STEPS)
    state = init_state(Distillation(objective), params, STEPS)
    optimizer = adamw(objective.settings.optimizer, STEPS)
    opt_state = optimizer.init(params)
    everywhere = devices.replicate(teacher)

    whole = random_batch(CONFIG, rows=8, seed=3)
    for step, (batch, real) in enumerate([ragged_batch(seed=2), (whole, whole)]):
        key = jax.random.key(step)
        expected, losses = one_by_one(objective, params, teacher, real)
        summed = gradients(programs, Distillation(objective), state.params, everywhere, batch, key)
        found = jax.tree.map(lambda g: np.asarray(g).sum(0), summed.grads)
        assert_trees_close(found, expected, rtol=1e-4, atol=1e-6 * norm(expected))

        updates, opt_state = jax.jit(optimizer.update)(expected, opt_state, params)
        params = optax.apply_updates(params, updates)
        state, report = train_step(programs, update, Distillation(objective), state, everywhere, batch, key)
        assert_trees_close(state.params, params, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(report.grad_norm, norm(expected), rtol=1e-5)
        assert report.finite
        for student, parts in zip(objective.students, report.losses, strict=True):
            jax.tree.map(
                lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6),
                parts,
                losses[student.name],
            )
    assert int(state.step) == 2


def test_a_family_is_its_students_one_by_one() -> None:
    """With the same dropout: the same losses, and the sum of their gradients, out of fewer layers."""
    config = THREE_LAYERS.replace(hidden_dropout=0.5, attention_dropout=0.5)
    family = tuple(SubNetwork.uniform(config, 1.0, depth) for depth in (1.0, 2 / 3, 1 / 2))  # layers 012, 01, 02
    model, params, batch = Bert(config), random_params(config), random_batch(config, rows=4)
    outputs = model.apply({"params": params}, *batch.inputs, family[0])
    targets = Targets(outputs.logits, outputs.hidden_states)
    keys = jax.random.split(jax.random.key(0), 4)

    def gradients(students: tuple[SubNetwork, ...]) -> tuple[Params, tuple[DistillationLosses, ...]]:
        loss = functools.partial(Distillation.loss, model)
        step = jax.jit(jax.grad(loss, has_aux=True), static_argnums=5)
        return step(params, batch, targets, LossWeights(1.0, 0.7, 0.5), keys, students)

    together, losses = gradients(family)
    alone = [gradients((student,)) for student in family]
    summed = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), [grads for grads, _ in alone])
    assert_trees_close(together, summed, rtol=1e-5, atol=1e-6 * norm(summed))
    for ours, (_, (theirs,)) in zip(losses, alone, strict=True):
        assert_trees_close(vars(ours), vars(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 8 // devices.num_devices()])
def test_a_batch_in_parts_is_the_batch_at_once(parts: int) -> None:
    """A ragged one, so that some parts have fewer examples, or none."""
    objective, programs = objective_of(NARROW), Programs(Bert(CONFIG))
    params, teacher = (devices.replicate(random_params(CONFIG, seed)) for seed in range(2))
    batch, _ = ragged_batch(seed=2)
    learning = Distillation(objective)
    whole, summed = (gradients(programs, learning, params, teacher, batch, jax.random.key(0), n) for n in (1, parts))
    ours, theirs = (jax.tree.map(lambda g: np.asarray(g).sum(0), one.grads) for one in (summed, whole))
    assert_trees_close(ours, theirs, atol=1e-6 * norm(theirs))
    for student, losses in whole.losses.items():
        for name, loss in vars(losses).items():
            np.testing.assert_allclose(np.sum(vars(summed.losses[student])[name]), np.sum(loss), rtol=1e-6, atol=1e-7)


def test_activations_that_are_computed_again_are_the_same() -> None:
    """With dropout and at less than full width, where the parameters' names must not change either."""
    config = SHALLOW.replace(hidden_dropout=0.5, attention_dropout=0.5)
    objective = width(config, CompleteWidthStage(widths=(0.5,)))
    params, teacher = (devices.replicate(random_params(config, seed)) for seed in range(2))
    batch = random_batch(config, rows=8)
    kept, again = (
        jax.tree.map(
            lambda g: np.asarray(g).sum(0),
            gradients(
                Programs(Bert(config, rematerialize=remat)),
                Distillation(objective),
                params,
                teacher,
                batch,
                jax.random.key(0),
            ).grads,
        )
        for remat in (False, True)
    )
    assert_trees_close(again, kept, rtol=1e-5, atol=1e-6 * norm(kept))


def test_dropout_in_parts_is_that_of_the_batch_at_once() -> None:
    config = SHALLOW.replace(hidden_dropout=0.5, attention_dropout=0.5)
    objective, programs = fine_tune(config, CompleteFineTune()), Programs(Bert(config))
    params, batch = devices.replicate(random_params(config)), random_batch(config, rows=8)
    whole, parts = (
        jax.tree.map(
            lambda g: np.asarray(g).sum(0),
            gradients(programs, Distillation(objective), params, None, batch, jax.random.key(0), n).grads,
        )
        for n in (1, 2)
    )
    assert_trees_close(parts, whole, rtol=1e-5, atol=1e-6 * norm(whole))


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Grows by one entry for each program that is compiled."""
    events: list[str] = []

    def listen(event: str, _: float, **__: Any) -> None:
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_family_is_traced_once_and_the_second_epoch_compiles_nothing(
    programs: CountingPrograms, compiled: list[str]
) -> None:
    objective = objective_of(*GROUPS)
    update = make_update(Distillation(objective), STEPS)
    start = devices.replicate(random_params(CONFIG))
    state = init_state(Distillation(objective), start, STEPS)
    for epoch in range(2):
        before = len(compiled)
        for step in range(2):
            batch = random_batch(CONFIG, rows=8, seed=step)
            key = jax.random.fold_in(jax.random.key(0), 2 * epoch + step)
            state, _ = train_step(programs, update, Distillation(objective), state, start, batch, key)
    assert before > 0  # the update at least: it would be noticed if compiling went on
    assert len(compiled) == before
    assert programs.traces == {(FULL, sub(1.0, 0.5)): 1, (sub(0.5, 0.5),): 1}
    # The teacher's arrays are those that training began with, and training does not write into them.
    assert_trees_close(start, random_params(CONFIG))


@pytest.mark.parametrize("groups", [GROUPS, (NARROW,)], ids=["all", "narrow"])
def test_one_step_moves_what_the_sub_networks_hold_and_nothing_else(
    programs: CountingPrograms, groups: tuple[Group, ...]
) -> None:
    objective = objective_of(*groups)
    before = random_params(CONFIG)
    batch = random_batch(CONFIG, rows=8)
    update = make_update(Distillation(objective), STEPS)
    state = init_state(Distillation(objective), before, STEPS)
    teacher = devices.replicate(random_params(CONFIG, seed=1))
    state, _ = train_step(programs, update, Distillation(objective), state, teacher, batch, jax.random.key(0))

    held = part_of(CONFIG, *objective.students)
    ids = np.asarray(batch.inputs.input_ids)
    used = np.isin(np.arange(CONFIG.vocab_size), ids) & (np.arange(CONFIG.vocab_size) != CONFIG.pad_token_id)
    held["embeddings/word/embedding"][~used] = False
    held["embeddings/position/embedding"][ids.shape[1] :] = False
    before, after = by_path(before), by_path(state.params)
    assert (groups is GROUPS) == all(np.all(mask) for path, mask in held.items() if path.startswith("layer_"))
    for path, mask in held.items():
        moved = after[path] != before[path]
        if not path.endswith("key/bias"):  # its gradient is zero but for rounding
            np.testing.assert_array_equal(moved, mask, err_msg=path)
        assert not np.any(moved & ~mask), path


def test_dropout_is_that_of_one_device() -> None:
    """An example draws by its row of the global batch, wherever that row is computed; one sentence in all rows."""
    config = SHALLOW.replace(hidden_dropout=0.5, attention_dropout=0.5)
    objective, full = fine_tune(config, CompleteFineTune()), SubNetwork.full(config)
    model, params = Bert(config), random_params(config)
    batch = jax.tree.map(lambda a: np.repeat(a[:1], 8, axis=0), random_batch(config))

    def over_the_devices(seed: int) -> Summed:
        key = jax.random.key(seed)
        return gradients(Programs(model), Distillation(objective), devices.replicate(params), None, batch, key)

    @jax.jit
    def on_one(key: jax.Array) -> tuple[Params, tuple[DistillationLosses]]:
        keys = example_keys(key, jnp.arange(8))
        whole = batch.replace(weights=batch.weights / 8)
        loss = functools.partial(Distillation.loss, model)
        return jax.grad(loss, has_aux=True)(params, whole, None, objective.weights, keys, (full,))

    found = over_the_devices(0)
    grads, (losses,) = on_one(jax.random.split(jax.random.key(0), 1)[0])
    assert_trees_close(
        jax.tree.map(lambda g: np.asarray(g).sum(0), found.grads), grads, rtol=1e-4, atol=1e-6 * norm(grads)
    )
    np.testing.assert_allclose(np.sum(found.losses[full].label), losses.label, rtol=1e-5)
    assert len(set(np.asarray(found.losses[full].label).tolist())) == devices.num_devices()
    assert not np.any(np.asarray(over_the_devices(1).losses[full].label) == np.asarray(found.losses[full].label))


def test_a_regressions_outputs_are_distilled_by_squared_error() -> None:
    config = SHALLOW.replace(labels=("score",), head="regression")
    params, teacher = random_params(config), random_params(config, seed=1)
    batch = random_batch(config, rows=8)
    programs, full = Programs(Bert(config)), SubNetwork.full(config)

    def losses(settings: CompleteWidthStage) -> dict[str, float]:
        objective = width(config, settings)
        summed = gradients(
            programs,
            Distillation(objective),
            devices.replicate(params),
            devices.replicate(teacher),
            batch,
            jax.random.key(0),
        )
        return {name: float(np.sum(value)) for name, value in vars(summed.losses[full]).items()}

    ours, theirs = (np.asarray(run(config, tree, batch, full).logits) for tree in (params, teacher))
    error = float(np.square(ours - theirs).mean())
    found = losses(CompleteWidthStage(widths=(1.0,), hidden_weight=0.0))
    assert error > 1e-3
    np.testing.assert_allclose([found["logit"], found["total"]], error, rtol=1e-5)
    # The released code matches hidden states alone.
    found = losses(CompleteWidthStage(widths=(1.0,), distil_regression=False))
    np.testing.assert_allclose(found["total"], 0.1 * found["hidden"], rtol=1e-6)


# Stages of other kinds


class ClassifierAlone(Distillation):
    """Learns from the labels, and trains the classifier alone."""

    @staticmethod
    def trains(path: tuple[str, ...]) -> bool:
        return path[0] == "classifier"


def test_an_objective_trains_what_it_names_and_nothing_else() -> None:
    """The rest stays bit for bit what it was and has no gradient and no moments; the classifier's are the same."""
    stage, params, batch = fine_tune(CONFIG, CompleteFineTune()), random_params(CONFIG), random_batch(CONFIG, rows=8)
    programs, found = Programs(Bert(CONFIG)), {}
    for objective in (ClassifierAlone(stage), Distillation(stage)):
        state = init_state(objective, params, STEPS)
        summed = gradients(programs, objective, state.params, None, batch, jax.random.key(0))
        found[type(objective)] = by_path(jax.tree.map(lambda g: np.asarray(g).sum(0), summed.grads))
    part, whole = found[ClassifierAlone], found[Distillation]
    assert set(part) == {"classifier/kernel", "classifier/bias"}
    for path, gradient in part.items():
        np.testing.assert_array_equal(gradient, whole[path])

    objective = ClassifierAlone(stage)
    state, update = init_state(objective, params, STEPS), make_update(objective, STEPS)
    assert {leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim} == {
        leaf.size for leaf in jax.tree.leaves(params["classifier"])
    }
    state, _ = train_step(programs, update, objective, state, None, batch, jax.random.key(0))
    moved, before = by_path(state.params), by_path(params)
    assert {path for path in before if not np.array_equal(moved[path], before[path])} == set(part)
