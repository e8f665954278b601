"""The golden values of the authors' PyTorch code: every case that the folder holds, and everything in it.

DYNABERT_GOLDEN names another folder of cases; tests/golden/README.md says what is in one.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dynabert_jax.config import DepthStage, FinalStage, ModelConfig, Optimizer, WidthStage
from dynabert_jax.data.batches import Batch, Inputs
from dynabert_jax.model.bert import Bert, Outputs
from dynabert_jax.model.params import cut_model
from dynabert_jax.plan import Objective, depth, final, width
from dynabert_jax.subnetwork import SubNetwork
from dynabert_jax.system import devices
from dynabert_jax.train.importance import importance
from dynabert_jax.train.losses import task_loss
from dynabert_jax.train.step import Programs, gradients, init_state, make_update, train_step
from dynabert_jax.weights.names import from_torch_names, to_torch_names
from dynabert_jax.weights.rewire import Scores, by_importance, rewire

GOLDEN = Path(os.environ.get("DYNABERT_GOLDEN") or Path(__file__).parent / "golden")
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


def cases(kind: str) -> list[Any]:
    files = sorted(GOLDEN.glob("*.json"))
    return [pytest.param(f, id=f.stem) for f in files if json.loads(f.read_text())["kind"] == kind]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    file = request.param
    with np.load(file.with_suffix(".npz")) as arrays:
        return Case(json.loads(file.read_text()), {name: arrays[name] for name in arrays.files})


def forward(config: ModelConfig, params: Any, batch: Batch, sub: SubNetwork) -> Outputs:
    return Bert(config).apply({"params": params}, *batch.inputs, sub, with_attention=True)


def test_every_case_is_of_a_known_kind() -> None:
    kinds = {json.loads(file.read_text())["kind"] for file in GOLDEN.glob("*.json")}
    assert kinds, f"no golden cases in {GOLDEN}"
    assert kinds <= {"forward", "importance", "train"}


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
        np.testing.assert_allclose(task_loss(outputs.logits, batch.labels).mean(), golden["loss"], **EXACT)
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


def objective_of(case: Case) -> Objective:
    """The case's stage, as our configuration describes it."""
    spec, config = case.spec, case.config
    optimizer = Optimizer(
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
        return width(config, WidthStage(widths=widths, **distil))
    if spec["stage"] == "depth":
        return depth(config, DepthStage(widths=widths, depths=depths, teacher_width=spec["teacher_width"], **distil))
    assert spec["stage"] == "finetune"
    return final(config, FinalStage(widths=widths, depths=depths, optimizer=optimizer))


@pytest.mark.parametrize("case", cases("train"), indirect=True)
def test_training(case: Case) -> None:
    """Every loss, norm and learning rate of every step, the first gradient, and the weights after the last step."""
    config, objective = case.config, objective_of(case)
    students = {folder.split("/")[1]: sub for folder, sub in case.sub_networks("step0").items()}
    assert set(objective.students) == set(students.values())
    programs = Programs(Bert(config))
    update = make_update(objective, case.spec["total_steps"])
    state = init_state(objective, case.tree("weights"), case.spec["total_steps"])
    teacher = devices.replicate(case.tree("teacher")) if case.under("teacher") else None

    for step in range(case.spec["steps"]):
        batch = pad_to_devices(case.batch(f"step{step}/batch"))
        key = jax.random.key(step)
        if step == 0:
            summed = gradients(programs, objective, state.params, teacher, batch, key).grads
            compare_trees(case, "step0/grad", jax.tree.map(lambda g: np.asarray(g).sum(0), summed))
        state, report = train_step(programs, update, objective, state, teacher, batch, key)
        np.testing.assert_allclose(report.grad_norm, case.arrays[f"step{step}/grad_norm"], rtol=1e-4)
        np.testing.assert_allclose(report.learning_rate, case.arrays[f"step{step}/lr"], rtol=1e-6)
        losses = dict(zip(objective.students, report.losses, strict=True))
        for name, sub in students.items():
            golden = case.under(f"step{step}/{name}")
            ours = {"logit_loss": losses[sub].logit, "hidden_loss": losses[sub].hidden, "loss": losses[sub].total}
            if config.is_regression:
                golden.pop("logit_loss", None)  # there is none; its weight is 0
            for what, value in golden.items():
                # A sum of up to 13 states' errors: absolute to 1e-5 of its size.
                np.testing.assert_allclose(ours[what], value, rtol=1e-5, atol=1e-5, err_msg=f"{step} {name} {what}")
    compare_trees(case, "after", jax.device_get(state.params))


def pad_to_devices(batch: Batch) -> Batch:
    """The batch with rows of weight 0 behind it, so that it divides over the devices of the tests."""
    filler = -len(batch.labels) % devices.num_devices()
    return jax.tree.map(lambda a: np.concatenate([a, np.zeros_like(a[:1]).repeat(filler, 0)]), batch)


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
