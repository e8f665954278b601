"""The keys of Hugging Face's config.json for BERT and RoBERTa: which are read, and which could change the answers.

Every key of `BertConfig` and `RobertaConfig` is in one of three groups (a test compares them with the installed
transformers): `READ` by `ModelConfig`, `IRRELEVANT` to the answers of a classifier, or `ONLY_HARMLESS`, which is
refused unless its value changes nothing. A key that transformers does not know changes nothing there, and nothing here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from dynabert_jax.config.checked import ConfigError

# `ModelConfig` and the loading of weights.
READ = frozenset((
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "pad_token_id", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "classifier_dropout", "id2label", "num_labels", "problem_type", "architectures",
    "dynabert", "label_mean", "label_deviation",
))  # fmt: skip

IRRELEVANT = frozenset((
    # Names, versions and files. Weights of every precision are computed in float32; id2label names the classes.
    "_name_or_path", "transformers_version", "auto_map", "tokenizer_class", "finetuning_task", "label2id", "dtype",
    "torch_dtype", "language", "gradient_checkpointing", "initializer_range", "_attn_implementation",
    "attn_implementation", "_attn_implementation_autoset", "_commit_hash",
    # What a call returns, and how it is run.
    "return_dict", "output_attentions", "output_hidden_states", "output_past", "torchscript", "use_bfloat16",
    "tf_legacy_loss", "use_cache", "chunk_size_feed_forward",
    # Other heads and other tasks.
    "tie_word_embeddings", "tie_encoder_decoder", "task_specific_params", "prefix", "summary_type", "summary_use_proj",
    "summary_activation", "summary_last_dropout", "summary_first_dropout", "directionality", "pooler_fc_size",
    "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
    # The generation of text, and tokens that only it uses.
    "bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id", "max_length", "min_length", "do_sample",
    "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens",
))  # fmt: skip

Test = Callable[[Any, Mapping[str, Any]], bool]


def _is(*harmless: Any) -> Test:
    return lambda value, _: any(value == one and type(value) is type(one) for one in harmless)


def _no_heads_pruned(value: Any, _: Mapping[str, Any]) -> bool:
    return not value or (isinstance(value, dict) and not any(value.values()))


def _same_as(key: str) -> Test:
    return lambda value, values: value is None or value == values.get(key)


def _natural_head_size(value: Any, values: Mapping[str, Any]) -> bool:
    heads, hidden = values.get("num_attention_heads"), values.get("hidden_size")
    return value is None or (isinstance(value, int) and isinstance(heads, int) and value * heads == hidden)


# By key: whether a value changes nothing, and what to do about one that does.
ONLY_HARMLESS: Mapping[str, tuple[Test, str]] = {
    "hidden_act": (_is("gelu", "gelu_python"), "use a model with 'gelu' (exact, with erf)"),
    "position_embedding_type": (_is(None, "absolute"), "use a model with 'absolute'"),
    "is_decoder": (_is(None, False), "use a model that reads a text in both directions"),
    "is_encoder_decoder": (_is(None, False), "use an encoder alone"),
    "add_cross_attention": (_is(None, False), "use an encoder alone"),
    "cross_attention_hidden_size": (_is(None), "use an encoder alone"),
    "pruned_heads": (
        _no_heads_pruned,
        "heads were removed from some layers; use the model from before its heads were pruned",
    ),
    "quantization_config": (lambda value, _: not value, "use the model that is not quantized"),
    "embedding_size": (_same_as("hidden_size"), "use a model whose embeddings are as wide as its layers"),
    "num_key_value_heads": (_same_as("num_attention_heads"), "use a model in which every head has its own keys"),
    "head_dim": (_natural_head_size, "use a model whose heads fill the hidden size"),
    "rope_theta": (_is(None), "use a model with absolute positions"),
    "rope_scaling": (_is(None), "use a model with absolute positions"),
    "rope_parameters": (_is(None), "use a model with absolute positions"),
}


def check_keys(values: Mapping[str, Any]) -> None:
    """Raises ConfigError if a key asks for arithmetic that this package does not have."""
    for key, (is_harmless, cure) in ONLY_HARMLESS.items():
        if key in values and not is_harmless(values[key], values):
            raise ConfigError(f"{key} {values[key]!r} is not supported; {cure}")


def number(values: Mapping[str, Any], key: str, default: float) -> float:
    """The finite number of a key.

    Raises:
        ConfigError: it is something else.
    """
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"config.json: {key} = {value!r}: must be a number; copy or download it again")
    return float(value)
