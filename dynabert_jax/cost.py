"""What a sub-network costs on paper: parameters and floating point operations. Plain arithmetic, no jax."""

from collections.abc import Sequence

from dynabert_jax.config import ModelConfig
from dynabert_jax.subnetwork import SubNetwork, ways


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


def flops(config: ModelConfig, sub: SubNetwork, length: int) -> int:
    """Floating point operations of one forward pass over one sentence of `length` tokens.

    Two for every multiply-add of the matrix products; normalisation, activations and look-ups are not counted.
    """
    return flops_together(config, (sub,), length)


def flops_together(config: ModelConfig, subs: Sequence[SubNetwork], length: int) -> int:
    """`flops` of several sub-networks that run what they begin with alike once, as `Bert.run_together` does."""
    hidden = config.hidden_size
    total = len(subs) * (hidden * hidden + hidden * config.num_labels)
    for kept in (way[-1] for way in ways(subs)):
        projections = 4 * length * hidden * kept.heads * config.head_size
        attention = 2 * length * length * kept.heads * config.head_size
        feed_forward = 2 * length * hidden * kept.neurons
        total += projections + attention + feed_forward
    return 2 * total


def activations(config: ModelConfig, subs: Sequence[SubNetwork], length: int, rematerialize: bool = False) -> int:
    """Numbers that the backward pass of sub-networks that run together needs at least of a sentence of `length` tokens.

    Of every layer its input, queries, keys, values, attention weights, contexts, both normalised sums, and the neurons
    before and behind the activation; where they are computed again, those of one layer and the inputs of the others.
    """
    hidden, layers = config.hidden_size, []
    for kept in (way[-1] for way in ways(subs)):
        attention = 4 * kept.heads * config.head_size + kept.heads * length
        layers.append(length * (2 * hidden + attention + 2 * kept.neurons))
    inputs = len({way[:-1] for way in ways(subs)}) * length * hidden
    return inputs + (max(layers) if rematerialize else sum(layers))
