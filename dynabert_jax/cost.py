"""What a sub-network costs on paper: parameters and floating point operations. Plain arithmetic, no jax."""

from collections.abc import Sequence
from typing import NamedTuple

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.subnetwork import KeptLayer, SubNetwork, shared_prefixes


def parameters(config: ModelConfig, sub: SubNetwork) -> int:
    """How many numbers the cut sub-network holds, embeddings included."""
    hidden = config.hidden_size
    embeddings = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size + 2) * hidden
    head = hidden * hidden + hidden + hidden * config.num_labels + config.num_labels
    return embeddings + encoder_parameters(config, sub) + head


def encoder_parameters(config: ModelConfig, sub: SubNetwork) -> int:
    """The part of `parameters` in the transformer layers, which is what width and depth change."""
    total, hidden = 0, config.hidden_size
    for heads, neurons in zip(sub.heads, sub.neurons, strict=True):
        attention = 4 * hidden * heads * config.head_size + 3 * heads * config.head_size + hidden
        feed_forward = 2 * hidden * neurons + neurons + hidden
        total += attention + feed_forward + 4 * hidden  # two layer norms, scale and bias each
    return total


class Piece(NamedTuple):
    """What one kept layer computed for some rows at once.

    Attributes:
        layer: the kept layer's position in the sub-network.
        rows: texts.
        queries: tokens of a row whose states were computed.
        keys: tokens of a row that were attended to.
    """

    layer: int
    rows: int
    queries: int
    keys: int


class Work(NamedTuple):
    """What was computed to answer: rows through the head, and the layers' pieces. Padding that was computed counts."""

    rows: int
    pieces: tuple[Piece, ...]

    @classmethod
    def dense(cls, layers: int, rows: int, length: int) -> "Work":
        """Every kept layer on every token of rows that are padded to `length` tokens."""
        return cls(rows, tuple(Piece(layer, rows, length, length) for layer in range(layers)))


def flops(config: ModelConfig, sub: SubNetwork, length: int) -> int:
    """Floating point operations of one forward pass over one sentence of `length` tokens.

    Two for every multiply-add of the matrix products; normalisation, activations and look-ups are not counted.
    """
    return flops_of_work(config, sub, Work.dense(len(sub.layers), 1, length))


def flops_of_work(config: ModelConfig, sub: SubNetwork, work: Work) -> int:
    """`flops` of what was computed, whatever part of the tokens and layers that was."""
    kept = sub.kept
    layers = sum(
        piece.rows * layer_flops(config, kept[piece.layer], piece.queries, piece.keys) for piece in work.pieces
    )
    return layers + work.rows * head_flops(config)


def flops_together(config: ModelConfig, subs: Sequence[SubNetwork], length: int) -> int:
    """`flops` of several sub-networks that compute the layers they share once, as `Bert.run_together` does."""
    layers = sum(layer_flops(config, prefix[-1], length, length) for prefix in shared_prefixes(subs))
    return layers + len(subs) * head_flops(config)


def layer_flops(config: ModelConfig, kept: KeptLayer, queries: int, keys: int) -> int:
    """Of one layer for one text: queries and outputs, keys and values, attention, and the feed-forward part."""
    hidden, inner = config.hidden_size, kept.heads * config.head_size
    projections = 2 * (queries + keys) * hidden * inner
    attention = 2 * queries * keys * inner
    feed_forward = 2 * queries * hidden * kept.neurons
    return 2 * (projections + attention + feed_forward)


def head_flops(config: ModelConfig) -> int:
    """Of pooler and classifier for one text."""
    return 2 * (config.hidden_size * config.hidden_size + config.hidden_size * config.num_labels)


def activations(config: ModelConfig, subs: Sequence[SubNetwork], length: int, rematerialize: bool = False) -> int:
    """Numbers that the backward pass of sub-networks that run together needs at least of a sentence of `length` tokens.

    Of every layer its input, queries, keys, values, attention weights, contexts, both normalised sums, and the neurons
    before and behind the activation; where they are computed again, those of one layer and the inputs of the others.
    """
    hidden, layers = config.hidden_size, []
    for kept in (prefix[-1] for prefix in shared_prefixes(subs)):
        attention = 4 * kept.heads * config.head_size + kept.heads * length
        layers.append(length * (2 * hidden + attention + 2 * kept.neurons))
    inputs = len({prefix[:-1] for prefix in shared_prefixes(subs)}) * length * hidden
    return inputs + (max(layers) if rematerialize else sum(layers))


SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


def size(count: float) -> str:
    """The inverse of `parse_size`, to four digits: 22713986 is `22.71M`."""
    for suffix in ("T", "G", "M", "K"):
        if count >= SUFFIXES[suffix]:
            return f"{count / SUFFIXES[suffix]:.4g}{suffix}"
    return f"{count:.4g}"
