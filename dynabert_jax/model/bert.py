"""BERT and RoBERTa with a sequence classification (or regression) head, run whole or as any sub-network.

The parameters always have their full size. The sub-network is a static argument of the call: of every kept layer the
first heads and neurons are sliced out inside the traced function, so gradients land where they belong and are exactly
zero elsewhere. `cut.py` makes the slice permanent.

Letters in shapes: B examples, S tokens, H hidden size, N heads, D head size, F neurons, C labels; n and f are the
heads and neurons that a sub-network keeps.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from dynabert_jax.config.checked import Dtype
from dynabert_jax.config.model import ModelConfig
from dynabert_jax.model.dropout import drop, keys_at
from dynabert_jax.model.matmul import product
from dynabert_jax.subnetwork import KeptLayer, SubNetwork, shared_prefixes

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
        for i in range(self.config.num_layers):
            block = Block(self.config, self.config.heads[i], self.config.neurons[i], self.dtype)
            setattr(self, f"layer_{i}", block)
        self.pooler = Dense(self.config.hidden_size, self.config.hidden_size, self.dtype)
        self.classifier = Dense(self.config.hidden_size, self.config.num_labels, self.dtype)

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
        for way in shared_prefixes(subs):
            before, kept = states[way[:-1]], way[-1]
            states[way], _ = self.run_layer(kept, before, bias, None, dropout=dropout)
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
        for kept in sub.kept[start:stop]:
            gates = None if head_gates is None else head_gates[kept.layer, : kept.heads]
            hidden, attention_scores = self.run_layer(kept, hidden, bias, gates, dropout=dropout)
            hidden_states.append(hidden)
            scores.append(attention_scores)
        return Outputs(hidden[:, 0, :0], tuple(hidden_states), tuple(scores) if with_attention else ())

    def run_layer(
        self,
        kept: KeptLayer,
        hidden: jax.Array,
        bias: jax.Array,
        gates: jax.Array | None,
        *,
        dropout: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array]:
        """What `Block` gives of one kept layer; `gates` are its own, `dropout` is that of `__call__`."""
        name = f"layer_{kept.layer}"
        block: Block = getattr(self, name)
        keys = BlockKeys.at(dropout, name)
        if self.is_initializing():
            return block(hidden, bias, kept.heads, kept.neurons, gates, keys)
        # One without a name, which is the same for every layer of this size.
        alike = Block(self.config, block.heads, block.neurons, self.dtype, parent=None)
        run = jax.checkpoint(run_block, static_argnums=BLOCKS_STATIC) if self.rematerialize else run_block
        return run(alike, block.variables["params"], hidden, bias, kept.heads, kept.neurons, gates, keys)

    def classify(self, hidden: jax.Array, *, dropout: jax.Array | None = None) -> jax.Array:
        """The last hidden state `[B, S, H]` to logits `[B, C]`."""
        first = hidden[:, 0]  # [B, H]
        if self.config.model_type == "roberta":
            first = drop(first, self.config.head_dropout, keys_at(dropout, "first_token_dropout"))
        pooled = jnp.tanh(self.pooler(first))  # [B, H]
        return self.classifier(drop(pooled, self.config.head_dropout, keys_at(dropout, "pooled_dropout")))


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
        return drop(self.norm(embedded), self.config.hidden_dropout, keys_at(dropout, "embeddings/dropout"))


@struct.dataclass
class BlockKeys:
    """The random keys of a block's three dropouts, `[B]` each: one an example; None: nothing is dropped."""

    weights: jax.Array | None
    attended: jax.Array | None
    fed: jax.Array | None

    @classmethod
    def at(cls, keys: jax.Array | None, layer: str) -> "BlockKeys":
        """Those of the layer with this name, of the keys `[B]` of a whole forward pass."""
        places = {field.name: f"{layer}/{field.name}_dropout" for field in dataclasses.fields(cls)}
        return cls(**{name: keys_at(keys, place) for name, place in places.items()})


class Block(nn.Module):
    """One transformer layer: attention and feed-forward, each with a residual and a layer norm behind it (post-LN)."""

    config: ModelConfig
    heads: int
    neurons: int
    dtype: Dtype

    def setup(self) -> None:
        hidden, head_size = self.config.hidden_size, self.config.head_size
        self.query = ToHeads(hidden, self.heads, head_size, self.dtype)
        self.key = ToHeads(hidden, self.heads, head_size, self.dtype)
        self.value = ToHeads(hidden, self.heads, head_size, self.dtype)
        self.attention_output = FromHeads(hidden, self.heads, head_size, self.dtype)
        self.attention_norm = layer_norm(self.config)
        self.up = Dense(hidden, self.neurons, self.dtype)
        self.down = Dense(self.neurons, hidden, self.dtype)
        self.output_norm = layer_norm(self.config)

    def __call__(
        self,
        hidden: jax.Array,
        bias: jax.Array,
        heads: int,
        neurons: int,
        gates: jax.Array | None,
        keys: BlockKeys,
    ) -> tuple[jax.Array, jax.Array]:
        """Hidden `[B, S, H]` and the mask's bias `[B, 1, 1, S]` to the next hidden state and the attention scores.

        Args:
            heads, neurons: how many of the first ones run; static.
            gates: `[heads]`, factors on the heads' outputs.
            keys: of the dropouts.
        """
        rate = self.config.hidden_dropout
        attended, scores = self.attend(hidden, bias, heads, gates, keys.weights)
        hidden = self.attention_norm(hidden + drop(attended, rate, keys.attended))
        fed = self.down(gelu(self.up(hidden, outputs=neurons)), inputs=neurons)
        return self.output_norm(hidden + drop(fed, rate, keys.fed)), scores

    def attend(
        self, hidden: jax.Array, bias: jax.Array, heads: int, gates: jax.Array | None, keys: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Multi-head attention of the first `heads` heads: `[B, S, H]` and the scores `[B, n, S, S]`."""
        query, key, value = (to(hidden, heads) for to in (self.query, self.key, self.value))  # [B, n, S, D]
        scores = product("bnqd,bnkd->bnqk", query, key, self.dtype) / math.sqrt(self.config.head_size) + bias
        weights = drop(nn.softmax(scores), self.config.attention_dropout, keys)  # [B, n, S, S]
        context = product("bnqk,bnkd->bnqd", weights, value, self.dtype)  # [B, n, S, D]
        if gates is not None:
            context = context * gates[:, None, None]
        return self.attention_output(context), scores


BLOCKS_STATIC = (0, 4, 5)  # the block, its heads and neurons


@functools.partial(jax.jit, static_argnums=BLOCKS_STATIC)
def run_block(
    block: Block, params: Any, hidden: jax.Array, bias: jax.Array, heads: int, neurons: int, gates: jax.Array | None,
    keys: BlockKeys,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """The block as a function of its own within a larger program.

    Python then traces, differentiates and lowers it once for all layers that keep as much, which is most of what a
    program takes to start when XLA's part is cached; XLA compiles the program as if it were not there.
    """
    return block.apply({"params": params}, hidden, bias, heads, neurons, gates, keys)


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
