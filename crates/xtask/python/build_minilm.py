#!/usr/bin/env python3
"""Writes all-MiniLM-L6-v2 (a BERT encoder) as an ONNX graph, from its published weights, with numpy and onnx alone.

usage: build_minilm.py MODEL_DIR OUT.onnx      (MODEL_DIR holds config.json and model.safetensors)

Inputs  input_ids, attention_mask, token_type_ids: INT64 [batch, sequence]
Output  last_hidden_state: FLOAT [batch, sequence, 384]
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import safetensors_file


class Graph:
    """Collects nodes and constants; each operator's output gets a name of its own."""

    def __init__(self, weights):
        self.weights, self.nodes, self.constants = weights, [], {}

    def op(self, kind, inputs, output=None, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, **attributes))
        return output or name

    def const(self, name, value):
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def ints(self, *values):
        return self.const("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, name, value):
        return self.const(name, np.array(value, np.float32))

    def weight(self, name):
        return self.const(name, self.weights[name])

    def linear(self, x, prefix):
        """y = x W^T + b, with the transposed weights stored so that the product is a plain MatMul."""
        transposed = self.const(prefix + ".weight_T", self.weights[prefix + ".weight"].T)
        return self.op("Add", [self.op("MatMul", [x, transposed]), self.weight(prefix + ".bias")])

    def layer_norm(self, x, prefix, epsilon, output=None):
        scale, bias = self.weight(prefix + ".weight"), self.weight(prefix + ".bias")
        return self.op("LayerNormalization", [x, scale, bias], output, axis=-1, epsilon=epsilon)

    def gelu(self, x):
        """The exact form, 0.5 x (1 + erf(x / sqrt 2)), as this model was trained with."""
        erf = self.op("Erf", [self.op("Div", [x, self.scalar("sqrt_2", np.sqrt(2.0))])])
        product = self.op("Mul", [x, self.op("Add", [erf, self.scalar("one", 1.0)])])
        return self.op("Mul", [product, self.scalar("half", 0.5)])


def embeddings(g, epsilon):
    """Word, position and token type vectors, added and normalised."""
    length = g.op("Slice", [g.op("Shape", ["input_ids"]), g.ints(1), g.ints(2), g.ints(0)])
    positions = g.op(
        "Slice", [g.weight("embeddings.position_embeddings.weight"), g.ints(0), length, g.ints(0)]
    )
    words = g.op("Gather", [g.weight("embeddings.word_embeddings.weight"), "input_ids"])
    types = g.op("Gather", [g.weight("embeddings.token_type_embeddings.weight"), "token_type_ids"])
    total = g.op("Add", [g.op("Add", [words, types]), positions])
    return g.layer_norm(total, "embeddings.LayerNorm", epsilon)


def mask_bias(g):
    """0 where a token counts, the lowest float where it is padding: added to the attention scores."""
    mask = g.op("Unsqueeze", [g.op("Cast", ["attention_mask"], to=TensorProto.FLOAT), g.ints(1, 2)])
    inverted = g.op("Sub", [g.scalar("one", 1.0), mask])
    return g.op("Mul", [inverted, g.scalar("lowest", np.finfo(np.float32).min)])


def attention(g, x, prefix, bias, heads, width):
    """Multi-head self-attention, before its output projection."""

    def split(name, order):
        shaped = g.op("Reshape", [g.linear(x, prefix + name), g.ints(0, 0, heads, width)])
        return g.op("Transpose", [shaped], perm=order)

    query, key, value = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
    scores = g.op("Div", [g.op("MatMul", [query, key]), g.scalar("sqrt_width", np.sqrt(width))])
    weights = g.op("Softmax", [g.op("Add", [scores, bias])], axis=-1)
    context = g.op("Transpose", [g.op("MatMul", [weights, value])], perm=[0, 2, 1, 3])
    return g.op("Reshape", [context, g.ints(0, 0, heads * width)])


def build(model_dir):
    """The whole model as a checked ModelProto."""
    config = json.loads((model_dir / "config.json").read_text())
    hidden, heads, layers = (config[k] for k in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    epsilon = config["layer_norm_eps"]
    g = Graph(safetensors_file.read(model_dir / "model.safetensors"))
    x, bias = embeddings(g, epsilon), mask_bias(g)
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}."
        context = attention(g, x, prefix + "attention.self.", bias, heads, hidden // heads)
        attended = g.op("Add", [g.linear(context, prefix + "attention.output.dense"), x])
        x = g.layer_norm(attended, prefix + "attention.output.LayerNorm", epsilon)
        inner = g.gelu(g.linear(x, prefix + "intermediate.dense"))
        output = "last_hidden_state" if layer == layers - 1 else None
        x = g.layer_norm(
            g.op("Add", [g.linear(inner, prefix + "output.dense"), x]), prefix + "output.LayerNorm", epsilon, output
        )
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "sequence"]) for n in names]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", "sequence", hidden])]
    graph = helper.make_graph(g.nodes, "all_minilm_l6_v2", inputs, outputs, list(g.constants.values()))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="panoply build_minilm"
    )
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    onnx.save(build(Path(sys.argv[1])), sys.argv[2])
