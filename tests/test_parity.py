"""Every golden case of the authors' PyTorch code, and everything in it. tests/golden/README.md says what a case is."""

import dataclasses
import functools
import json
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynabert_jax.config import ModelConfig
from dynabert_jax.config.complete import CompleteDepthStage, CompleteFinalStage, CompleteOptimizer, CompleteWidthStage
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.model.bert import Bert, Outputs
from dynabert_jax.model.params import cut_model
from dynabert_jax.plan import StagePlan, depth, final, width
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.distillation import Distillation
from dynabert_jax.train.importance import importance
from dynabert_jax.train.losses import task_loss
from dynabert_jax.train.step import Programs, gradients, init_state, make_update, train_step
from dynabert_jax.weights.names import from_torch_names, to_torch_names
from dynabert_jax.weights.rewire import Scores, by_importance, rewire
from golden_cases import FOLDER, LATER_METHODS, cases, kind_of

pytestmark = pytest.mark.parity

EXACT = {"rtol": 0.0, "atol": 1e-5}  # logits, hidden states, losses
RELATIVE = {"rtol": 1e-4, "atol": 1e-6}  # gradients, importance, weights


@dataclasses.dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
        spec: the contents of NAME.json.
        arrays: the contents of NAME.npz by name.
    """

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def config(self) -> ModelConfig:
        return ModelConfig.from_hugging_face(self.spec["config"])

    def tree(self, folder: str) -> Any:
        """The parameters under `folder/`, or any arrays named like them."""
        return from_torch_names(self.config, self.under(folder))

    def under(self, folder: str) -> dict[str, np.ndarray]:
        prefix = folder + "/"
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}

    def batch(self, folder: str) -> Batch:
        arrays = self.under(folder)
        ids = arrays["input_ids"].astype(np.int32)
        labels = arrays["labels"]
        return Batch(
            inputs=Inputs(
                ids,
                arrays["attention_mask"].astype(np.int32),
                arrays.get("token_type_ids", np.zeros_like(ids)).astype(np.int32),
            ),
            labels=labels.astype(np.float32 if self.config.is_regression else np.int32),
            weights=np.ones(len(ids), np.float32),
        )

    def sub_networks(self, folder: str) -> dict[str, SubNetwork]:
        """The folders `folder/w{w}_d{d}` of the case, and the sub-network that each stands for."""
        names = {name.split("/")[0] for name in self.under(folder)}
        found = {}
        for name in sorted(n for n in names if n.startswith("w") and "_d" in n):
            width, depth = name[1:].split("_d")
            found[f"{folder}/{name}"] = SubNetwork.uniform(self.config, float(width), float(depth))
        return found


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    file = request.param
    with np.load(file.with_suffix(".npz")) as arrays:
        return Case(json.loads(file.read_text()), {name: arrays[name] for name in arrays.files})


def forward(config: ModelConfig, params: Any, batch: Batch, sub: SubNetwork) -> Outputs:
    return Bert(config).apply({"params": params}, *batch.inputs, sub, with_attention=True)


def test_there_are_cases_and_each_is_of_a_known_kind() -> None:
    found = list(FOLDER.glob("*.json"))
    assert {kind_of(file) for file in found} <= {"forward", "importance", "train", "train_dropout"}
    assert found or any(cases(folder=method) for method in LATER_METHODS), f"no golden cases in {FOLDER}"


@pytest.mark.parametrize("case", cases("forward"), indirect=True)
def test_forward(case: Case) -> None:
    config, params, batch = case.config, case.tree("weights"), case.batch("batch")
    real = batch.inputs.attention_mask.astype(bool)
    subs = case.sub_networks("sub")
    assert len(subs) == len(case.spec["widths"]) * len(case.spec["depths"])
    for folder, sub in subs.items():
        golden = case.under(folder)
        outputs = forward(config, params, batch, sub)
        np.testing.assert_allclose(outputs.logits, golden["logits"], **EXACT, err_msg=folder)
        np.testing.assert_allclose(outputs.hidden_states[-1], golden["last_hidden"], **EXACT, err_msg=folder)
        loss = task_loss(config.head, outputs.logits, batch.labels).mean()
        np.testing.assert_allclose(loss, golden["loss"], **EXACT)
        assert len(outputs.hidden_states) == golden["n_hidden"]
        sums = [np.abs(np.asarray(hidden, np.float64)).sum() for hidden in outputs.hidden_states]
        np.testing.assert_allclose(sums, golden["hidden_sums"], rtol=1e-5)
        assert (sub.heads[0], sub.neurons[0]) == (golden["heads"], golden["neurons"])
        # At -10000 float32 steps by 1e-3: only scores between real positions can be compared.
        pairs = np.broadcast_to(real[:, None, :, None] & real[:, None, None, :], golden["attention0"].shape)
        scores = np.asarray(outputs.attention_scores[0])
        np.testing.assert_allclose(scores[pairs], golden["attention0"][pairs], **EXACT, err_msg=folder)


@pytest.mark.parametrize("case", cases("forward"), indirect=True)
def test_a_cut_model_gives_the_same_logits(case: Case) -> None:
    config, params, batch = case.config, case.tree("weights"), case.batch("batch")
    for folder, sub in case.sub_networks("sub").items():
        small = cut_model(config, params, sub)
        logits = forward(small.config, small.params, batch, SubNetwork.full(small.config)).logits
        np.testing.assert_allclose(logits, case.under(folder)["logits"], **EXACT, err_msg=folder)


@pytest.mark.parametrize("case", cases("importance"), indirect=True)
def test_importance_and_rewiring(case: Case) -> None:
    config, params = case.config, case.tree("weights")
    batches = [case.batch(f"batch{i}") for i in range(case.spec["batches"])]
    model = Bert(config)
    released = importance(model, params, batches, "running")
    np.testing.assert_allclose(np.stack(released.heads), case.arrays["head_importance"], **RELATIVE)
    np.testing.assert_allclose(np.stack(released.neurons), case.arrays["neuron_importance"], **RELATIVE)
    # With a single batch there is nothing to zero, and the two readings are one.
    zeroed = "_zeroed" if len(batches) > 1 else ""
    paper = importance(model, params, batches, "per_batch")
    np.testing.assert_allclose(np.stack(paper.heads), case.arrays["head_importance" + zeroed], **RELATIVE)
    np.testing.assert_allclose(np.stack(paper.neurons), case.arrays["neuron_importance" + zeroed], **RELATIVE)

    # Rewired by their scores: two that are equal but for rounding may stand in another order in ours.
    theirs = Scores(tuple(case.arrays["head_importance"]), tuple(case.arrays["neuron_importance"]))
    rewired = rewire(params, by_importance(theirs))
    names = to_torch_names(config, rewired)
    for name, golden in case.under("rewired").items():
        np.testing.assert_array_equal(names[name], golden, err_msg=name)
    for folder, sub in case.sub_networks("rewired_sub").items():
        logits = forward(config, rewired, batches[0], sub).logits
        np.testing.assert_allclose(logits, case.arrays[f"{folder}/logits"], **EXACT, err_msg=folder)


def stage_of(case: Case) -> StagePlan:
    """The case's stage, as our configuration describes it."""
    spec, config = case.spec, case.config
    optimizer = CompleteOptimizer(
        learning_rate=spec["learning_rate"],
        weight_decay=spec["weight_decay"],
        warmup=spec["warmup_steps"] / spec["total_steps"],
        b1=spec["adam_betas"][0],
        b2=spec["adam_betas"][1],
        eps=spec["adam_eps"],
        clip_norm=spec["clip_norm"],
    )
    widths, depths = tuple(spec["widths"]), tuple(spec["depths"])
    # The golden values have no loss on the outputs of a regression task: the released code's reading.
    distil = {"logit_weight": float(spec["lambda_logit"]), "hidden_weight": float(spec["lambda_hidden"]),
              "distil_regression": False, "optimizer": optimizer}  # fmt: skip
    if spec["stage"] == "width":
        return width(config, CompleteWidthStage(widths=widths, **distil))
    if spec["stage"] == "depth":
        settings = CompleteDepthStage(widths=widths, depths=depths, teacher_width=spec["teacher_width"], **distil)
        return depth(config, settings)
    assert spec["stage"] == "finetune"
    return final(config, CompleteFinalStage(widths=widths, depths=depths, optimizer=optimizer))


@pytest.mark.parametrize("case", cases("train"), indirect=True)
def test_training(case: Case) -> None:
    programs = Programs(Bert(case.config))
    check_training(case, [(programs, case.batch(f"step{step}/batch")) for step in range(case.spec["steps"])])


@pytest.mark.parametrize("case", cases("train_dropout"), indirect=True)
def test_training_with_dropout(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the case's masks in the place of random numbers; which of them drop what, and how, is the model's part."""
    monkeypatch.setattr("dynabert_jax.train.step.example_keys", lambda _, rows: rows)
    monkeypatch.setattr("dynabert_jax.model.dropout._folded", lambda masks, number: masks[number])
    monkeypatch.setattr("dynabert_jax.model.dropout.random_bits", bits_of)
    programs = functools.cache(lambda steps: Programs(MaskedBert(case.config, masks=Masks(case, steps))))
    alike = [steps_like(case, step) for step in range(case.spec["steps"])]
    check_training(case, [(programs(steps), batch_among(case, step, steps)) for step, steps in enumerate(alike)])


def steps_like(case: Case, step: int) -> tuple[int, ...]:
    """The steps whose batches have this one's shape. One program runs them all."""
    shapes = [case.arrays[f"step{s}/batch/input_ids"].shape for s in range(case.spec["steps"])]
    return tuple(s for s, shape in enumerate(shapes) if shape == shapes[step])


def batch_among(case: Case, step: int, steps: tuple[int, ...]) -> Batch:
    """The batches of all these steps, one after the other; the rows of all but this one have the weight 0."""
    batches = [case.batch(f"step{s}/batch") for s in steps]
    weighted = [dataclasses.replace(b, weights=b.weights * (s == step)) for s, b in zip(steps, batches, strict=True)]
    return concatenated(weighted)


@dataclasses.dataclass(frozen=True, eq=False)
class Masks:
    """The masks of these steps of a case, whose rows are numbered as in `batch_among`."""

    case: Case
    steps: tuple[int, ...]

    def of(self, width: float, rows: jax.Array) -> dict[int, jax.Array]:
        """Those of a width by the number of the place of dropout, `[B, ...]` each: one for each of these rows."""
        masks = concatenated([self.case.under(f"step{step}/w{width}/mask") for step in self.steps])
        return {zlib.crc32(place.encode()): jnp.asarray(a)[rows] for place, a in pad_to_devices(masks).items()}


class MaskedBert(Bert):
    """A network that takes numbers of rows in the place of random keys, and drops by their masks."""

    masks: Masks | None = None

    def run_together(self, *inputs: Any, dropout: jax.Array) -> tuple[Outputs, ...]:
        (width,) = {sub.width for sub in inputs[-1]}
        return super().run_together(*inputs, dropout=self.masks.of(width, dropout))


def bits_of(mask: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The smallest number, which is always dropped, where an example's mask is 0; else the largest, which never is.

    A mask of attention weights has all heads of the model: those that run are the first ones.
    """
    return jnp.where(mask[: shape[0]] == 0, jnp.uint32(0), jnp.uint32(2**32 - 1))


def check_training(case: Case, steps: Sequence[tuple[Programs, Batch]]) -> None:
    """Every loss, norm and learning rate of every step, the first gradient, and the weights after the last step.

    Args:
        steps: what each step runs, and its batch.
    """
    config, objective = case.config, Distillation(stage_of(case))
    students = {folder.split("/")[1]: sub for folder, sub in case.sub_networks("step0").items()}
    assert set(objective.stage.students) == set(students.values())
    update = make_update(objective, case.spec["total_steps"])
    state = init_state(objective, case.tree("weights"), case.spec["total_steps"])
    teacher = devices.replicate(case.tree("teacher")) if case.under("teacher") else None

    for step, (programs, batch) in enumerate(steps):
        batch, key = pad_to_devices(batch), jax.random.key(step)
        if step == 0:
            summed = gradients(programs, objective, state.params, teacher, batch, key).grads
            compare_trees(case, "step0/grad", jax.tree.map(lambda g: np.asarray(g).sum(0), summed))
        state, report = train_step(programs, update, objective, state, teacher, batch, key)
        np.testing.assert_allclose(report.grad_norm, case.arrays[f"step{step}/grad_norm"], rtol=1e-4)
        np.testing.assert_allclose(report.learning_rate, case.arrays[f"step{step}/lr"], rtol=1e-6)
        losses = dict(zip(objective.stage.students, report.losses, strict=True))
        for name, sub in students.items():
            golden = case.under(f"step{step}/{name}")
            ours = {"logit_loss": losses[sub].logit, "hidden_loss": losses[sub].hidden, "loss": losses[sub].total}
            if config.is_regression:
                golden.pop("logit_loss", None)  # there is none; its weight is 0
            assert golden, f"no losses of {name} in step {step}"
            for what, value in golden.items():
                # A sum of up to 13 states' errors: absolute to 1e-5 of its size.
                np.testing.assert_allclose(ours[what], value, rtol=1e-5, atol=1e-5, err_msg=f"{step} {name} {what}")
    compare_trees(case, "after", jax.device_get(state.params))


def concatenated(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *trees)


def pad_to_devices(tree: Any) -> Any:
    """Arrays `[B, ...]` with rows of zeros after their own, so that they divide over the devices of the tests."""

    def padded(a: np.ndarray) -> np.ndarray:
        return np.pad(a, [(0, -len(a) % devices.num_devices()), *[(0, 0)] * (a.ndim - 1)])

    return jax.tree.map(padded, tree)


def compare_trees(case: Case, folder: str, ours: Any) -> None:
    """Our tree against the arrays of a folder.

    The keys' bias is left out: its gradient is rounding noise around zero. So is a pooler that RoBERTa's checkpoints
    carry beside the classifier: no answer depends on it.
    """
    names = to_torch_names(case.config, ours)
    golden = {name: value for name, value in case.under(folder).items() if not name.startswith("roberta.pooler.")}
    assert golden
    assert golden.keys() <= names.keys()
    for name, value in names.items():
        if not name.endswith("attention.self.key.bias"):
            # PyTorch has no gradient where the loss does not depend on a parameter; ours is zero there.
            np.testing.assert_allclose(value, golden.get(name, np.zeros_like(value)), **RELATIVE, err_msg=name)
