"""DynaBERT's training step in PyTorch: the other side of `steps.py`.

`BertForSequenceClassification`'s own modules hold the weights, and a sub-network uses the first rows and columns of
each, as the released code does. The losses are those of `distillation.student_losses`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from benchmarks import torch_bert
from dynabert_jax.config import ModelConfig
from dynabert_jax.data.batches import Batch
from dynabert_jax.model.params import Params
from dynabert_jax.plan import LossWeights, StagePlan
from dynabert_jax.subnetwork import SubNetwork

Answers = tuple[torch.Tensor, list[torch.Tensor]]  # logits [B, C] and hidden states [B, S, H]


@dataclasses.dataclass(frozen=True)
class Style:
    """How the step is written.

    Attributes:
        autocast: matmuls in bfloat16; else in float32, like everything else.
        attention: as in `torch_bert`.
        compiled: with `torch.compile`, one program per sub-network.
        fused: the optimizer's update in one kernel.
    """

    autocast: bool
    attention: torch_bert.Attention
    compiled: bool
    fused: bool


RELEASED = Style(autocast=False, attention="eager", compiled=False, fused=False)
TODAY = Style(autocast=True, attention="sdpa", compiled=False, fused=True)
COMPILED = Style(autocast=True, attention="sdpa", compiled=True, fused=True)


class Step:
    """One stage's step: teachers, students one after the other, clip, AdamW; each call waits for its end."""

    def __init__(self, config: ModelConfig, objective: StagePlan, params: Params, batch: Batch, style: Style):
        self.config, self.objective, self.style = config, objective, style
        self.inputs = torch_bert.to_device(batch)
        self.labels = torch.from_numpy(batch.labels).long().to(torch_bert.DEVICE)
        self.model = torch_bert.make_model(config, params).train()
        self.teacher = torch_bert.make_model(config, params).eval()
        settings = objective.settings.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, betas=(settings.b1, settings.b2), eps=settings.eps,
            weight_decay=settings.weight_decay, fused=style.fused,
        )  # fmt: skip
        self.clip_norm = settings.clip_norm
        self.answer = {sub: self._made(functools.partial(answers, self.teacher, sub)) for sub in self._teachers()}
        self.loss = {sub: self._made(functools.partial(self._loss, sub)) for sub in objective.students}

    def __call__(self) -> None:
        self.losses()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if torch_bert.DEVICE == "cuda":
            torch.cuda.synchronize()

    def losses(self) -> list[torch.Tensor]:
        """Every student's loss, in order. Sums their gradients, and does not wait for the device."""
        found = []
        for group in self.objective.groups:
            targets = None
            if group.teacher is not None:
                with torch.no_grad(), self._autocast():
                    targets = self.answer[group.teacher](self.inputs, self.style.attention)
            for student in group.students:
                with self._autocast():
                    loss = self.loss[student](targets)
                loss.backward()
                found.append(loss.detach())
        return found

    def gradient_norm(self) -> float:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def _teachers(self) -> list[SubNetwork]:
        return [group.teacher for group in self.objective.groups if group.teacher is not None]

    def _loss(self, sub: SubNetwork, targets: Answers | None) -> torch.Tensor:
        return student_loss(
            answers(self.model, sub, self.inputs, self.style.attention), targets, self.labels, sub,
            self.objective.weights,
        )  # fmt: skip

    def _autocast(self) -> torch.autocast:
        return torch.autocast(torch_bert.DEVICE, dtype=torch.bfloat16, enabled=self.style.autocast)

    def _made(self, function: Callable[..., Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = torch_bert.compile_alone(function) if self.style.compiled else function
        return made


def student_loss(
    student: Answers, targets: Answers | None, labels: torch.Tensor, sub: SubNetwork, weights: LossWeights
) -> torch.Tensor:
    """The total of `distillation.student_losses`, for classification and a batch without filler rows."""
    logits, states = student
    label = functional.cross_entropy(logits.float(), labels)
    if targets is None:
        return weights.label * label
    soft = functional.softmax(targets[0].float(), dim=-1)
    logit = torch.sum(-soft * functional.log_softmax(logits.float(), dim=-1), dim=-1).mean()
    matched = [targets[1][i] for i in (*sub.layers, -1)]
    hidden = sum(
        functional.mse_loss(ours.float(), theirs.float()) for ours, theirs in zip(states, matched, strict=True)
    )
    return weights.logit * logit + weights.hidden * hidden + weights.label * label


def answers(model: Any, sub: SubNetwork, inputs: dict[str, torch.Tensor], attention: torch_bert.Attention) -> Answers:
    """A sub-network's logits and hidden states."""
    hidden = model.bert.embeddings(input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
    mask = inputs["attention_mask"][:, None, None, :].bool()  # [B, 1, 1, S]
    states = [hidden]
    for kept in sub.kept:
        hidden = block(model.bert.encoder.layer[kept.layer], hidden, mask, kept.heads, kept.neurons, attention)
        states.append(hidden)
    return model.classifier(model.dropout(model.bert.pooler(hidden))), states


def block(
    layer: Any, hidden: torch.Tensor, mask: torch.Tensor, heads: int, neurons: int, attention: torch_bert.Attention
) -> torch.Tensor:
    """The first heads and neurons of one transformer layer, `[B, S, H]` to `[B, S, H]`."""
    own, (rows, tokens, _) = layer.attention.self, hidden.shape
    size = heads * own.attention_head_size
    query, key, value = (
        linear(hidden, module, outputs=size).view(rows, tokens, heads, -1).transpose(1, 2)
        for module in (own.query, own.key, own.value)
    )  # [B, n, S, D]
    dropped = own.dropout.p if layer.training else 0.0
    if attention == "sdpa":
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropped)
    else:
        bias = torch.where(mask, 0.0, -10000.0)
        scores = query @ key.transpose(-1, -2) / math.sqrt(own.attention_head_size) + bias
        context = functional.dropout(functional.softmax(scores, dim=-1), dropped) @ value
    attended = linear(context.transpose(1, 2).reshape(rows, tokens, size), layer.attention.output.dense, inputs=size)
    hidden = layer.attention.output.LayerNorm(hidden + layer.attention.output.dropout(attended))
    between = functional.gelu(linear(hidden, layer.intermediate.dense, outputs=neurons))
    fed = linear(between, layer.output.dense, inputs=neurons)
    normed: torch.Tensor = layer.output.LayerNorm(hidden + layer.output.dropout(fed))
    return normed


def linear(x: torch.Tensor, module: Any, *, outputs: int | None = None, inputs: int | None = None) -> torch.Tensor:
    return functional.linear(x, module.weight[:outputs, :inputs], module.bias[:outputs])
