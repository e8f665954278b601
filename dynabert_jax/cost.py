"""Parameters and floating point operations of a sub-network, computed from its shape. Plain arithmetic, no jax."""

from collections.abc import Sequence
from typing import NamedTuple

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import KeptLayer, SubNetwork, shared_prefixes


def parameters(config: ModelConfig, sub: SubNetwork) -> int:
    """The number of parameters of the cut sub-network, embeddings included."""
    hidden = config.hidden_size
    embeddings = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size + 2) * hidden
    head = hidden * hidden + hidden + hidden * config.num_labels + config.num_labels
    return embeddings + encoder_parameters(config, sub) + head


def encoder_parameters(config: ModelConfig, sub: SubNetwork) -> int:
    """The number of parameters in the transformer layers, the part that width and depth change."""
    total, hidden = 0, config.hidden_size
    for heads, neurons in zip(sub.heads, sub.neurons, strict=True):
        attention = 4 * hidden * heads * config.head_size + 3 * heads * config.head_size + hidden
        feed_forward = 2 * hidden * neurons + neurons + hidden
        total += attention + feed_forward + 4 * hidden  # two layer norms, scale and bias each
    return total


class Piece(NamedTuple):
    """The work of one kept layer on some rows at once.

    Attributes:
        layer: the kept layer's position in the sub-network.
        rows: number of texts.
        queries: tokens per row whose states were computed.
        keys: tokens per row that were attended to.
    """

    layer: int
    rows: int
    queries: int
    keys: int


class Work(NamedTuple):
    """The work of a forward pass: rows through the head, and the layers' pieces. Computed padding counts."""

    rows: int
    pieces: tuple[Piece, ...]

    @classmethod
    def dense(cls, layers: int, rows: int, length: int) -> "Work":
        """Every kept layer on every token of rows that are padded to `length` tokens."""
        return cls(rows, tuple(Piece(layer, rows, length, length) for layer in range(layers)))


def flops(config: ModelConfig, sub: SubNetwork, length: int) -> int:
    """Floating point operations of one forward pass over one sentence of `length` tokens.

    A multiply-add of a matmul counts as two; normalisation, activations and look-ups are not counted.
    """
    return flops_of_work(config, sub, Work.dense(len(sub.layers), 1, length))


def flops_of_work(config: ModelConfig, sub: SubNetwork, work: Work) -> int:
    """`flops` of the work that was computed, which may be only some of the tokens and layers."""
    kept = sub.kept
    layers = sum(
        piece.rows * layer_flops(config, kept[piece.layer], piece.queries, piece.keys) for piece in work.pieces
    )
    return layers + work.rows * head_flops(config)


def flops_together(config: ModelConfig, subs: Sequence[SubNetwork], length: int) -> int:
    """`flops` of several sub-networks. Layers that they share count once, as in `Bert.run_together`."""
    layers = sum(layer_flops(config, prefix[-1], length, length) for prefix in shared_prefixes(subs))
    return layers + len(subs) * head_flops(config)


def layer_flops(config: ModelConfig, kept: KeptLayer, queries: int, keys: int) -> int:
    """`flops` of one layer for one text: queries and outputs, keys and values, attention, and feed-forward."""
    hidden, inner = config.hidden_size, kept.heads * config.head_size
    projections = 2 * (queries + keys) * hidden * inner
    attention = 2 * queries * keys * inner
    feed_forward = 2 * queries * hidden * kept.neurons
    return 2 * (projections + attention + feed_forward)


def head_flops(config: ModelConfig) -> int:
    """`flops` of pooler and classifier for one text."""
    return 2 * (config.hidden_size * config.hidden_size + config.hidden_size * config.num_labels)


def activations(config: ModelConfig, subs: Sequence[SubNetwork], length: int, rematerialize: bool = False) -> int:
    """The least numbers that the backward pass of sub-networks that run together keeps per sentence of `length` tokens.

    For every layer: its input, queries, keys, values, attention weights, contexts, both normalised sums, and the
    neurons before and after the activation. With `rematerialize`: those of one layer, and the inputs of all.
    """
    hidden, layers = config.hidden_size, []
    for kept in (prefix[-1] for prefix in shared_prefixes(subs)):
        attention = 4 * kept.heads * config.head_size + kept.heads * length
        layers.append(length * (2 * hidden + attention + 2 * kept.neurons))
    inputs = len({prefix[:-1] for prefix in shared_prefixes(subs)}) * length * hidden
    return inputs + (max(layers) if rematerialize else sum(layers))


SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


def size(count: float) -> str:
    """A number as text with four digits, such as `22.71M` for 22713986; the inverse of `parse_size`."""
    for suffix in ("T", "G", "M", "K"):
        if count >= SUFFIXES[suffix]:
            return f"{count / SUFFIXES[suffix]:.4g}{suffix}"
    return f"{count:.4g}"
