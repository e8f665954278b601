"""BERT and RoBERTa with a sequence classification (or regression) head, run whole or as any sub-network.

The parameters always have their full size. The sub-network is a static argument of the call: of every kept layer the
first heads and neurons are sliced out inside the traced function, so gradients land where they belong and are exactly
zero elsewhere. `cut.py` makes the slice permanent.

Letters in shapes: B examples, S tokens, H hidden size, N heads, D head size, F neurons, C labels; n and f are the
heads and neurons that a sub-network keeps.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from dynabert_jax.config import Dtype, ModelConfig
from dynabert_jax.dropout import Dropout
from dynabert_jax.products import product
from dynabert_jax.subnetwork import KeptLayer, SubNetwork, ways

# What BERT adds to the scores of positions that may not be attended to.
MASKED = -10000.0

_kernel_init = nn.initializers.normal(0.02)
_zeros = nn.initializers.zeros_init()


@struct.dataclass
class Outputs:
    """What a forward pass gives, by name.

    Attributes:
        logits: `[B, C]`.
        hidden_states: the embedding output and then each kept layer's output, `[B, S, H]` each.
        attention_scores: on request each kept layer's scores before the softmax, scaled and masked, `[B, n, S, S]`.
    """

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...]
    attention_scores: tuple[jax.Array, ...] = ()


class Bert(nn.Module):
    """The whole network: embeddings, blocks, head."""

    config: ModelConfig
    dtype: Dtype = "float32"
    rematerialize: bool = False  # each block computes its activations again in the backward pass, and keeps none

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config)
        block = nn.remat(Block, static_argnums=(3, 4)) if self.rematerialize else Block  # of its heads and neurons
        for i in range(self.config.num_layers):
            setattr(self, f"layer_{i}", block(self.config, i, self.dtype))
        self.pooler = Dense(self.config.hidden_size, self.config.hidden_size, self.dtype)
        self.classifier = Dense(self.config.hidden_size, self.config.num_labels, self.dtype)
        self.first_token_dropout = Dropout(self.config.head_dropout)  # RoBERTa's alone
        self.pooled_dropout = Dropout(self.config.head_dropout)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array,
        sub: SubNetwork,
        *,
        dropout: jax.Array | None = None,
        head_gates: jax.Array | None = None,
        with_attention: bool = False,
    ) -> Outputs:
        """Runs the sub-network.

        Args:
            input_ids: `[B, S]` int.
            attention_mask: `[B, S]`, 1 for a token and 0 for padding.
            token_type_ids: `[B, S]` int; zeros where there are no pairs.
            sub: which layers, heads and neurons run; static.
            dropout: `[B]` random keys, one an example, by which it draws what is dropped; None: dropout is off.
            head_gates: `[layers, N]`, factors on every head's output; their gradient is a head's importance.
            with_attention: also return the attention scores.
        """
        sub.check_fits(self.config)
        hidden = self.embed(input_ids, token_type_ids, dropout=dropout)
        outputs = self.run_blocks(
            hidden, attention_mask, sub, dropout=dropout, head_gates=head_gates, with_attention=with_attention
        )
        logits = self.classify(outputs.hidden_states[-1], dropout=dropout)
        return dataclasses.replace(outputs, logits=logits)

    def run_together(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array,
        subs: tuple[SubNetwork, ...],
        *,
        dropout: jax.Array | None = None,
    ) -> tuple[Outputs, ...]:
        """What each of the sub-networks answers, `__call__` by `__call__`; what they begin with alike runs once.

        That is most of what sub-networks of one width and several depths do, forwards and backwards: the gradient of
        the shared layers' output is the sum of what comes back through each of them. Head gates and attention scores
        are `__call__`'s alone.
        """
        for sub in subs:
            sub.check_fits(self.config)
        bias = attention_bias(attention_mask)
        states: dict[tuple[KeptLayer, ...], jax.Array] = {}  # by the way that leads to them
        states[()] = self.embed(input_ids, token_type_ids, dropout=dropout)
        for way in ways(subs):
            before, kept = states[way[:-1]], way[-1]
            block = getattr(self, f"layer_{kept.layer}")
            states[way], _ = block(before, bias, kept.heads, kept.neurons, None, dropout=dropout)
        return tuple(
            Outputs(
                logits=self.classify(states[sub.kept], dropout=dropout),
                hidden_states=tuple(states[sub.kept[:end]] for end in range(len(sub.kept) + 1)),
            )
            for sub in subs
        )

    def embed(self, input_ids: jax.Array, token_type_ids: jax.Array, *, dropout: jax.Array | None = None) -> jax.Array:
        """Token ids `[B, S]` to the hidden state that enters the first block, `[B, S, H]`."""
        return self.embeddings(input_ids, token_type_ids, dropout=dropout)

    def run_blocks(
        self,
        hidden: jax.Array,
        attention_mask: jax.Array,
        sub: SubNetwork,
        *,
        start: int = 0,
        stop: int | None = None,
        dropout: jax.Array | None = None,
        head_gates: jax.Array | None = None,
        with_attention: bool = False,
    ) -> Outputs:
        """Runs the kept layers number start to stop of the sub-network, stop excluded; all of them by default.

        Args:
            hidden: `[B, S, H]`, what enters block `start`.
            start, stop: positions in `sub.layers`; static.

        Returns:
            Outputs whose hidden states are `hidden` and each block's output. The logits are empty, `[B, 0]`.
        """
        bias = attention_bias(attention_mask)
        hidden_states, scores = [hidden], []
        for k in range(len(sub.layers))[start:stop]:
            layer = sub.layers[k]
            gates = None if head_gates is None else head_gates[layer, : sub.heads[k]]
            block = getattr(self, f"layer_{layer}")
            hidden, attention_scores = block(hidden, bias, sub.heads[k], sub.neurons[k], gates, dropout=dropout)
            hidden_states.append(hidden)
            scores.append(attention_scores)
        return Outputs(hidden[:, 0, :0], tuple(hidden_states), tuple(scores) if with_attention else ())

    def classify(self, hidden: jax.Array, *, dropout: jax.Array | None = None) -> jax.Array:
        """The last hidden state `[B, S, H]` to logits `[B, C]`."""
        first = hidden[:, 0]  # [B, H]
        if self.config.model_type == "roberta":
            first = self.first_token_dropout(first, dropout)
        pooled = jnp.tanh(self.pooler(first))  # [B, H]
        return self.classifier(self.pooled_dropout(pooled, dropout))


def attention_bias(attention_mask: jax.Array) -> jax.Array:
    """A mask `[B, S]` of ones and zeros as what is added to the scores, `[B, 1, 1, S]`."""
    return (1.0 - attention_mask[:, None, None, :].astype(jnp.float32)) * MASKED


class Embeddings(nn.Module):
    """Word, position and token type embeddings, summed and normalised."""

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        self.word = nn.Embed(config.vocab_size, config.hidden_size, embedding_init=_kernel_init)
        self.position = nn.Embed(config.max_position_embeddings, config.hidden_size, embedding_init=_kernel_init)
        self.token_type = nn.Embed(config.type_vocab_size, config.hidden_size, embedding_init=_kernel_init)
        self.norm = layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout)

    def __call__(self, input_ids: jax.Array, token_type_ids: jax.Array, *, dropout: jax.Array | None) -> jax.Array:
        """`[B, S]` ids to `[B, S, H]`."""
        # Positions count on through the padding, as in the reference; padding is at the end and never attended to.
        first, length = self.config.first_position, input_ids.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"{length} tokens do not fit: the model has positions for {self.config.max_length}")
        positions = self.position.embedding[first : first + length]  # [S, H]
        words = self.word(input_ids)  # [B, S, H]
        # PyTorch's embeddings never train the padding token's vector.
        is_padding = (input_ids == self.config.pad_token_id)[..., None]
        words = jnp.where(is_padding, jax.lax.stop_gradient(words), words)
        embedded = words + positions + self.token_type(token_type_ids)
        return self.dropout(self.norm(embedded), dropout)


class Block(nn.Module):
    """One transformer layer: attention and feed-forward, each with a residual and a layer norm behind it (post-LN)."""

    config: ModelConfig
    layer: int
    dtype: Dtype

    def setup(self) -> None:
        hidden, head_size = self.config.hidden_size, self.config.head_size
        heads, neurons = self.config.heads[self.layer], self.config.neurons[self.layer]
        self.query = ToHeads(hidden, heads, head_size, self.dtype)
        self.key = ToHeads(hidden, heads, head_size, self.dtype)
        self.value = ToHeads(hidden, heads, head_size, self.dtype)
        self.attention_output = FromHeads(hidden, heads, head_size, self.dtype)
        self.attention_norm = layer_norm(self.config)
        self.up = Dense(hidden, neurons, self.dtype)
        self.down = Dense(neurons, hidden, self.dtype)
        self.output_norm = layer_norm(self.config)
        self.weights_dropout = Dropout(self.config.attention_dropout)
        self.attended_dropout = Dropout(self.config.hidden_dropout)
        self.fed_dropout = Dropout(self.config.hidden_dropout)

    def __call__(
        self,
        hidden: jax.Array,
        bias: jax.Array,
        heads: int,
        neurons: int,
        gates: jax.Array | None,
        *,
        dropout: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Hidden `[B, S, H]` and the mask's bias `[B, 1, 1, S]` to the next hidden state and the attention scores."""
        attended, scores = self.attend(hidden, bias, heads, gates, dropout=dropout)
        hidden = self.attention_norm(hidden + self.attended_dropout(attended, dropout))
        fed = self.down(gelu(self.up(hidden, outputs=neurons)), inputs=neurons)
        return self.output_norm(hidden + self.fed_dropout(fed, dropout)), scores

    def attend(
        self, hidden: jax.Array, bias: jax.Array, heads: int, gates: jax.Array | None, *, dropout: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Multi-head attention of the first `heads` heads: `[B, S, H]` and the scores `[B, n, S, S]`."""
        query, key, value = (to(hidden, heads) for to in (self.query, self.key, self.value))  # [B, n, S, D]
        scores = product("bnqd,bnkd->bnqk", query, key, self.dtype) / math.sqrt(self.config.head_size) + bias
        weights = self.weights_dropout(nn.softmax(scores), dropout)  # [B, n, S, S]
        context = product("bnqk,bnkd->bnqd", weights, value, self.dtype)  # [B, n, S, D]
        if gates is not None:
            context = context * gates[:, None, None]
        return self.attention_output(context), scores


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's cumulative function, by erf as in PyTorch.

    `jax.nn.gelu` takes erfc, which keeps digits far below zero, where the result hardly counts, and which is slower on
    a CPU.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


class Dense(nn.Module):
    """x W + b of which the first inputs and the first outputs can be used alone."""

    inputs: int
    outputs: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, inputs: int | None = None, outputs: int | None = None) -> jax.Array:
        """`[..., inputs]` to `[..., outputs]`; None means all of them."""
        kernel = self.param("kernel", _kernel_init, (self.inputs, self.outputs))[:inputs, :outputs]
        bias = self.param("bias", _zeros, (self.outputs,))[:outputs]
        equation = "bsi,io->bso" if x.ndim == 3 else "bi,io->bo"
        return product(equation, x, kernel, self.dtype) + bias


class ToHeads(nn.Module):
    """Projects the hidden state to the first heads' queries, keys or values."""

    hidden_size: int
    heads: int
    head_size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array, heads: int) -> jax.Array:
        """`[B, S, H]` to `[B, n, S, D]`."""
        kernel = self.param("kernel", _kernel_init, (self.hidden_size, self.heads, self.head_size))[:, :heads]
        bias = self.param("bias", _zeros, (self.heads, self.head_size))[:heads, None]  # [n, 1, D]
        # A product of matrices and then a transposition: XLA for CPUs multiplies slowly into a transposed result.
        flat = product("bsi,io->bso", x, kernel.reshape(self.hidden_size, -1), self.dtype)  # [B, S, n D]
        return flat.reshape(*x.shape[:2], heads, self.head_size).swapaxes(1, 2) + bias


class FromHeads(nn.Module):
    """Projects the heads' contexts back to the hidden size."""

    hidden_size: int
    heads: int
    head_size: int
    dtype: Dtype

    @nn.compact
    def __call__(self, context: jax.Array) -> jax.Array:
        """`[B, n, S, D]` to `[B, S, H]`."""
        kernel = self.param("kernel", _kernel_init, (self.heads, self.head_size, self.hidden_size))
        bias = self.param("bias", _zeros, (self.hidden_size,))
        kernel = kernel[: context.shape[1]].reshape(-1, self.hidden_size)  # [n D, H]
        # As in ToHeads, the transposition stands beside the product.
        flat = context.swapaxes(1, 2).reshape(context.shape[0], context.shape[2], -1)  # [B, S, n D]
        return product("bsi,io->bso", flat, kernel, self.dtype) + bias


def layer_norm(config: ModelConfig) -> nn.LayerNorm:
    """Over the hidden size. The two-pass variance: the fast one loses digits that the reference keeps."""
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False)
