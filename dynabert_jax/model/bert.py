"""BERT and RoBERTa with a head, run whole or as any sub-network.

The parameters always have their full size. The sub-network is a static argument of the call: the first
heads and neurons of every kept layer are sliced out inside the traced function, so gradients are exactly zero outside
the sub-network. `Model.cut` (params.py) makes the slice permanent.

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
from dynabert_jax.model.dense import Dense, FromHeads, ToHeads, kernel_init, layer_norm
from dynabert_jax.model.dropout import drop, keys_at
from dynabert_jax.model.heads import HEADS, Head
from dynabert_jax.model.matmul import matmul
from dynabert_jax.subnetwork import KeptLayer, SubNetwork, shared_prefixes

# Added to the attention scores of masked positions, as in BERT.
MASKED = -10000.0


@struct.dataclass
class Outputs:
    """The results of a forward pass.

    Attributes:
        logits: `[B, C]`.
        hidden_states: the embedding output and then each kept layer's output, `[B, S, H]` each.
        attention_scores: on request, each kept layer's scores before the softmax, scaled and masked, `[B, n, S, S]`.
    """

    logits: jax.Array
    hidden_states: tuple[jax.Array, ...]
    attention_scores: tuple[jax.Array, ...] = ()


class Bert(nn.Module):
    """The whole network: embeddings, blocks, head."""

    config: ModelConfig
    dtype: Dtype = "float32"
    rematerialize: bool = False  # keep no activations of blocks, and compute them again in the backward pass

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config)
        for i in range(self.config.num_layers):
            block = Block(self.config, self.config.heads[i], self.config.neurons[i], self.dtype)
            setattr(self, f"layer_{i}", block)
        for name, module in self.head.modules(self.config, self.dtype).items():
            setattr(self, name, module)

    @property
    def head(self) -> Head:
        return HEADS[self.config.head]

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
            dropout: `[B]` random keys, one per example; None: no dropout.
            head_gates: `[layers, N]`, factors on every head's output; a gate's gradient is its head's importance.
            with_attention: also return the attention scores.
        """
        sub.check_fits(self.config)
        hidden = self.embed(input_ids, attention_mask, token_type_ids, dropout=dropout)
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
        """The outputs of each sub-network, as `__call__` gives them; the layers with which several start run once.

        Sub-networks of one width start with the same layers. Backwards, the gradient of a shared layer's output is the
        sum over the sub-networks. Only `__call__` has head gates and attention scores.
        """
        for sub in subs:
            sub.check_fits(self.config)
        bias = attention_bias(attention_mask)
        states: dict[tuple[KeptLayer, ...], jax.Array] = {}  # by the prefix of kept layers that leads to them
        states[()] = self.embed(input_ids, attention_mask, token_type_ids, dropout=dropout)
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

    def embed(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array,
        *,
        dropout: jax.Array | None = None,
    ) -> jax.Array:
        """Token ids, mask and types, `[B, S]` each, to the input of the first block, `[B, S, H]`."""
        return self.embeddings(input_ids, attention_mask, token_type_ids, dropout=dropout)

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
        """Runs kept layers `start` to `stop` of the sub-network, `stop` excluded; by default all.

        Args:
            hidden: `[B, S, H]`, the input of block `start`.
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
        """The results of one kept layer's `Block`; `gates` are this layer's, `dropout` is as in `__call__`."""
        name = f"layer_{kept.layer}"
        block: Block = getattr(self, name)
        keys = BlockKeys.at(dropout, name)
        if self.is_initializing():
            return block(hidden, bias, kept.heads, kept.neurons, gates, keys)
        # Without a name, it is equal for all layers of this size.
        alike = Block(self.config, block.heads, block.neurons, self.dtype, parent=None)
        run = jax.checkpoint(run_block, static_argnums=BLOCKS_STATIC) if self.rematerialize else run_block
        return run(alike, block.variables["params"], hidden, bias, kept.heads, kept.neurons, gates, keys)

    def classify(self, hidden: jax.Array, *, dropout: jax.Array | None = None) -> jax.Array:
        """The last hidden state `[B, S, H]` to the head's answers, `[B, C]`."""
        modules = {name: getattr(self, name) for name in self.head.names}
        return self.head.answer(self.config, modules, hidden, dropout)


def attention_bias(attention_mask: jax.Array) -> jax.Array:
    """The bias that is added to the scores, `[B, 1, 1, S]`, from a mask `[B, S]` of ones and zeros."""
    return (1.0 - attention_mask[:, None, None, :].astype(jnp.float32)) * MASKED


class Embeddings(nn.Module):
    """Word, position and token type embeddings, summed and normalised."""

    config: ModelConfig

    def setup(self) -> None:
        config = self.config
        self.word = nn.Embed(config.vocab_size, config.hidden_size, embedding_init=kernel_init)
        self.position = nn.Embed(config.max_position_embeddings, config.hidden_size, embedding_init=kernel_init)
        self.token_type = nn.Embed(config.type_vocab_size, config.hidden_size, embedding_init=kernel_init)
        self.norm = layer_norm(config)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array,
        *,
        dropout: jax.Array | None,
    ) -> jax.Array:
        """`[B, S]` ids to `[B, S, H]`."""
        length = input_ids.shape[1]
        if length > self.config.max_length:
            raise ValueError(f"{length} tokens do not fit: the model has positions for {self.config.max_length}")
        words = self.word(input_ids)  # [B, S, H]
        # PyTorch's embeddings never train the padding token's vector.
        is_padding = (input_ids == self.config.pad_token_id)[..., None]
        words = jnp.where(is_padding, jax.lax.stop_gradient(words), words)
        embedded = words + self.positions(input_ids, attention_mask) + self.token_type(token_type_ids)
        return drop(self.norm(embedded), self.config.hidden_dropout, keys_at(dropout, "embeddings/dropout"))

    def positions(self, input_ids: jax.Array, attention_mask: jax.Array) -> jax.Array:
        """The position embeddings of a batch `[B, S]`: `[1, S, H]` in BERT, `[B, S, H]` in RoBERTa."""
        if self.config.model_type == "bert":
            return self.position.embedding[None, : input_ids.shape[1]]
        ids = roberta_positions(input_ids, attention_mask, self.config.pad_token_id)
        # Nor do they train the vector of the padding token's position.
        vectors, untrained = self.position(ids), (ids == self.config.pad_token_id)[..., None]
        return jnp.where(untrained, jax.lax.stop_gradient(vectors), vectors)


def roberta_positions(input_ids: jax.Array, attention_mask: jax.Array, pad_token_id: int) -> jax.Array:
    """RoBERTa's position ids, `[B, S]`: they count the tokens, starting after the padding token's own position.

    A padding token that is written out in a text does not count and has the padding token's own position, as in
    transformers. Padding after a text goes on counting, as in the reference; it is masked, and answers do not depend
    on it.
    """
    counts = (input_ids != pad_token_id) | (attention_mask == 0)  # [B, S]
    index = jax.lax.broadcasted_iota(jnp.int32, (input_ids.shape[1],) * 2, 0)
    not_later = index >= index.T  # [S, S]; a cumulative sum cannot be exported with a length that is not known
    number = (not_later[None] & counts[:, None, :]).sum(-1, dtype=jnp.int32)  # [B, S]
    return jnp.where(counts, number, 0) + pad_token_id


@struct.dataclass
class BlockKeys:
    """The random keys of a block's three dropouts, `[B]` each, one per example; None: no dropout."""

    weights: jax.Array | None
    attended: jax.Array | None
    fed: jax.Array | None

    @classmethod
    def at(cls, keys: jax.Array | None, layer: str) -> "BlockKeys":
        """The keys of the layer with this name, from the keys `[B]` of a forward pass."""
        places = {field.name: f"{layer}/{field.name}_dropout" for field in dataclasses.fields(cls)}
        return cls(**{name: keys_at(keys, place) for name, place in places.items()})


class Block(nn.Module):
    """One transformer layer: attention and feed-forward, each followed by a residual and a layer norm (post-LN)."""

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
            heads, neurons: number of first heads and neurons that run; static.
            gates: `[heads]`, factors on the heads' outputs.
            keys: random keys of the dropouts.
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
        scores = matmul("bnqd,bnkd->bnqk", query, key, self.dtype) / math.sqrt(self.config.head_size) + bias
        weights = drop(nn.softmax(scores), self.config.attention_dropout, keys)  # [B, n, S, S]
        context = matmul("bnqk,bnkd->bnqd", weights, value, self.dtype)  # [B, n, S, D]
        if gates is not None:
            context = context * gates[None, :, None, None]
        return self.attention_output(context), scores


BLOCKS_STATIC = (0, 4, 5)  # the block, its heads and neurons


@functools.partial(jax.jit, static_argnums=BLOCKS_STATIC)
def run_block(
    block: Block, params: Any, hidden: jax.Array, bias: jax.Array, heads: int, neurons: int, gates: jax.Array | None,
    keys: BlockKeys,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """The block as a separate function inside a larger program.

    It is traced, differentiated and lowered once for all layers of the same size, which is most of a program's start
    when XLA's compilation is cached. The compiled program is the same.
    """
    return block.apply({"params": params}, hidden, bias, heads, neurons, gates, keys)


def gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's cumulative function, by erf as in PyTorch.

    `jax.nn.gelu` uses erfc, which is slower on a CPU, and more exact only far below zero, where the result hardly
    matters.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))
