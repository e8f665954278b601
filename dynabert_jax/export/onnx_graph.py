"""A cut model as an ONNX graph: plain MatMul, Softmax and LayerNormalization nodes and the exact GELU by Erf.

Runtimes recognise the patterns that they fuse and quantize. Among equivalent graphs, this is one that ONNX Runtime's
optimizer recognises (`tests/export/test_onnx_file.py` counts its fusions). The trees of parameters are those of
`bert.py`, and so are the letters in shapes: B examples, S tokens, H hidden size, n heads, D head size, f neurons.
"""

import math
from typing import Any

import numpy as np
import onnx
from flax.traverse_util import flatten_dict
from onnx import TensorProto, helper, numpy_helper

from dynabert_jax.config.model import ModelConfig
from dynabert_jax.model.bert import MASKED
from dynabert_jax.model.params import Model
from dynabert_jax.weights.embeddings import PATH as WORDS
from dynabert_jax.weights.embeddings import Stored, in_float16, in_int8

OPSET = 17  # the first with LayerNormalization
IR_VERSION = 8  # as old as the opset, so that every runtime with that opset reads the file
INPUTS = ("input_ids", "attention_mask", "token_type_ids")  # int64 [B, S]
OUTPUT = "logits"  # float32 [B, C]
STORED = "words_stored"  # begins the names of nodes that look up rows of 16 or 8 bits


def onnx_model(model: Model, stored: Stored = "float32") -> onnx.ModelProto:
    """The model, with dynamic batch and length, and with word embeddings of that type."""
    graph = Graph(model)
    hidden = embed(graph, model.config, stored)
    mask = mask_bias(graph)
    for layer in range(model.config.num_layers):
        hidden = attend(graph, model.config, layer, hidden, mask)
        hidden = feed_forward(graph, model.config, layer, hidden)
    classify(graph, hidden)
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in INPUTS]
    logits = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", model.config.num_labels])
    made = helper.make_graph(graph.nodes, model.config.model_type, inputs, [logits], list(graph.constants.values()))
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dynabert_jax"
    )


class Graph:
    """A graph under construction: nodes and constants. Every method adds to it and returns the name of its output."""

    def __init__(self, model: Model):
        self.parameters = {path: np.asarray(array) for path, array in flatten_dict(model.params, sep="/").items()}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        return name

    def parameter(self, path: str, shape: tuple[int, ...] = ()) -> str:
        """A parameter by its path in our tree, reshaped if a shape is given."""
        array = self.parameters[path]
        return self.constant(path, array.reshape(shape) if shape else array)

    def node(self, output: str, kind: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def dense(self, path: str, x: str, output: str = "") -> str:
        """x W + b. Some of the kernel's axes may be those of heads; they are merged."""
        kernel, bias = self.parameters[f"{path}/kernel"], self.parameters[f"{path}/bias"]
        inputs = kernel.size // bias.size
        product = self.node(f"{path}/product", "MatMul", x, self.parameter(f"{path}/kernel", (inputs, bias.size)))
        return self.node(output or f"{path}/sum", "Add", product, self.parameter(f"{path}/bias", (bias.size,)))

    def norm(self, path: str, x: str, eps: float) -> str:
        weights = self.parameter(f"{path}/scale"), self.parameter(f"{path}/bias")
        return self.node(f"{path}/normalized", "LayerNormalization", x, *weights, axis=-1, epsilon=eps)


def embed(graph: Graph, config: ModelConfig, stored: Stored) -> str:
    """Token ids `[B, S]` to the input of the first layer, `[B, S, H]`."""
    words = embed_words(graph, stored)
    types = graph.node("types", "Gather", graph.parameter("embeddings/token_type/embedding"), "token_type_ids")
    ids = first_positions(graph, config) if config.model_type == "bert" else roberta_positions(graph, config)
    positions = graph.node("positions", "Gather", graph.parameter("embeddings/position/embedding"), ids)
    summed = graph.node("words_and_types", "Add", words, types)
    summed = graph.node("embedded", "Add", summed, positions)
    return graph.norm("embeddings/norm", summed, config.layer_norm_eps)


def embed_words(graph: Graph, stored: Stored) -> str:
    """Token ids to their rows, float32 `[B, S, H]`; only rows that were looked up become float32."""
    if stored == "float32":
        return graph.node("words", "Gather", graph.parameter(WORDS), "input_ids")
    table = graph.parameters[WORDS]
    if stored == "float16":
        numbers = graph.constant(WORDS, in_float16(table), np.float16)
        return graph.node("words", "Cast", graph.node(STORED, "Gather", numbers, "input_ids"), to=TensorProto.FLOAT)
    rows = in_int8(table)
    found = graph.node(STORED, "Gather", graph.constant(f"{WORDS}_numbers", rows.numbers, np.int8), "input_ids")
    numbers = graph.node("words_numbers", "Cast", found, to=TensorProto.FLOAT)
    steps = graph.node(f"{STORED}_steps", "Gather", graph.constant(f"{WORDS}_steps", rows.steps), "input_ids")
    return graph.node("words", "Mul", numbers, steps)  # [B, S, H] and [B, S, 1]


def roberta_positions(graph: Graph, config: ModelConfig) -> str:
    """`roberta_positions` in `bert.py`, `[B, S]`."""
    pad = graph.constant("pad_token_id", config.pad_token_id, np.int64)
    is_pad = graph.node("is_pad", "Equal", "input_ids", pad)
    attended = graph.node("is_attended", "Cast", "attention_mask", to=TensorProto.BOOL)
    counts = graph.node("is_counted", "Not", graph.node("is_written_pad", "And", is_pad, attended))
    counts = graph.node("counted", "Cast", counts, to=TensorProto.INT64)
    number = graph.node("number", "CumSum", counts, graph.constant("index_1", 1, np.int64))
    number = graph.node("number_or_0", "Mul", number, counts)
    return graph.node("used_position_ids", "Add", number, pad)


def first_positions(graph: Graph, config: ModelConfig) -> str:
    """The first S position ids, `[1, S]`."""
    ids = graph.constant("position_ids", np.arange(config.max_length)[None], np.int64)  # [1, longest]
    zero, one = graph.constant("axis_0", [0], np.int64), graph.constant("axis_1", [1], np.int64)
    shape = graph.node("shape", "Shape", "input_ids")
    length = graph.node("length", "Gather", shape, graph.constant("index_1", 1, np.int64), axis=0)
    end = graph.node("end", "Unsqueeze", length, zero)
    return graph.node("used_position_ids", "Slice", ids, zero, end, one, one)


def mask_bias(graph: Graph) -> str:
    """The term added to attention scores, `[B, 1, 1, S]`: 0 for a token, a large negative number for padding."""
    rows = graph.node("mask_rows", "Unsqueeze", "attention_mask", graph.constant("axis_1", [1], np.int64))
    mask = graph.node("mask", "Unsqueeze", rows, graph.constant("axis_2", [2], np.int64))
    mask = graph.node("mask_float", "Cast", mask, to=TensorProto.FLOAT)
    padding = graph.node("padding", "Sub", graph.constant("one", 1.0), mask)
    return graph.node("mask_bias", "Mul", padding, graph.constant("masked", MASKED))


def attend(graph: Graph, config: ModelConfig, layer: int, hidden: str, mask: str) -> str:
    """A layer's attention with residual and norm: `[B, S, H]` to `[B, S, H]`."""
    at, heads, size = f"layer_{layer}", config.heads[layer], config.head_size
    apart = graph.constant(f"apart_{heads}", [0, 0, heads, size], np.int64)  # 0: unchanged
    together = graph.constant(f"together_{heads}", [0, 0, heads * size], np.int64)

    def to_heads(name: str, order: list[int]) -> str:
        split = graph.node(f"{at}/{name}/split", "Reshape", graph.dense(f"{at}/{name}", hidden), apart)
        return graph.node(f"{at}/{name}/heads", "Transpose", split, perm=order)

    query, value = (to_heads(name, [0, 2, 1, 3]) for name in ("query", "value"))  # [B, n, S, D]
    key = to_heads("key", [0, 2, 3, 1])  # [B, n, D, S]
    scores = graph.node(f"{at}/products", "MatMul", query, key)  # [B, n, S, S]
    scores = graph.node(f"{at}/scaled", "Div", scores, graph.constant("scale", math.sqrt(size)))
    scores = graph.node(f"{at}/masked", "Add", scores, mask)
    weights = graph.node(f"{at}/weights", "Softmax", scores, axis=-1)
    context = graph.node(f"{at}/context", "MatMul", weights, value)  # [B, n, S, D]
    context = graph.node(f"{at}/context/transposed", "Transpose", context, perm=[0, 2, 1, 3])
    context = graph.node(f"{at}/context/joined", "Reshape", context, together)  # [B, S, n * D]
    attended = graph.dense(f"{at}/attention_output", context)
    summed = graph.node(f"{at}/attention_residual", "Add", attended, hidden)
    return graph.norm(f"{at}/attention_norm", summed, config.layer_norm_eps)


def feed_forward(graph: Graph, config: ModelConfig, layer: int, hidden: str) -> str:
    """A layer's feed-forward part with residual and norm: `[B, S, H]` to `[B, S, H]`."""
    at = f"layer_{layer}"
    active = gelu(graph, at, graph.dense(f"{at}/up", hidden))  # [B, S, f]
    summed = graph.node(f"{at}/output_residual", "Add", graph.dense(f"{at}/down", active), hidden)
    return graph.norm(f"{at}/output_norm", summed, config.layer_norm_eps)


def gelu(graph: Graph, at: str, x: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2."""
    scaled = graph.node(f"{at}/gelu/scaled", "Div", x, graph.constant("sqrt_2", math.sqrt(2.0)))
    erf = graph.node(f"{at}/gelu/erf", "Erf", scaled)
    raised = graph.node(f"{at}/gelu/raised", "Add", erf, graph.constant("one", 1.0))
    doubled = graph.node(f"{at}/gelu/doubled", "Mul", x, raised)
    return graph.node(f"{at}/gelu", "Mul", doubled, graph.constant("half", 0.5))


def classify(graph: Graph, hidden: str) -> str:
    """The last hidden state `[B, S, H]` to logits `[B, C]`."""
    first = graph.node("first_token", "Gather", hidden, graph.constant("index_0", 0, np.int64), axis=1)
    pooled = graph.node("pooled", "Tanh", graph.dense("pooler", first))
    return graph.dense("classifier", pooled, OUTPUT)
