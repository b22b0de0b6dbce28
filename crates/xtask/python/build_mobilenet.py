#!/usr/bin/env python3
"""Writes MobileNet v1 1.0/224 (1001 ImageNet classes) as ONNX, and its labels, from packages.

usage: build_mobilenet.py RETRAINED_GRAPH.pb CLASS_NAMES.json OUT.onnx LABELS.txt

RETRAINED_GRAPH.pb is a frozen TensorFlow graph that was retrained for two classes; retraining kept the whole original
network, and the original is what is taken out here. Batch normalisation is folded into the convolutions.

Input   input: FLOAT [N, 3, 224, 224], RGB, (value - 127.5) / 127.5
Output  probabilities: FLOAT [N, 1001]; class 0 is "background", class i is the i-th line of ImageNet's usual list
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import graph_def

EPSILON = 1e-3
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]


class Network:
    """Nodes and weights collected so far, over the frozen graph's constants."""

    def __init__(self, constants):
        self.constants, self.nodes = constants, []
        self.weights = [
            numpy_helper.from_array(np.float32(0), "zero"),
            numpy_helper.from_array(np.float32(6), "six"),
        ]

    def folded(self, prefix):
        """The scale and bias that batch normalisation amounts to, for each output channel."""
        norm = prefix + "BatchNorm/"
        variance = self.constants[norm + "moving_variance"].astype(np.float64)
        scale = self.constants.get(norm + "gamma", 1.0) / np.sqrt(variance + EPSILON)
        return scale, self.constants[norm + "beta"] - self.constants[norm + "moving_mean"] * scale

    def conv(self, x, prefix, kernel, stride, scale, bias):
        """`kernel` is already [out, in / groups, height, width]."""
        weight = (kernel * np.reshape(scale, (-1, 1, 1, 1))).astype(np.float32)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(weight), prefix + "weight"))
        self.weights.append(numpy_helper.from_array(np.asarray(bias, np.float32), prefix + "bias"))
        group = weight.shape[0] if "depthwise" in prefix else 1
        inputs, output = [x, prefix + "weight", prefix + "bias"], prefix + "conv"
        shape = list(weight.shape[2:])
        self.nodes.append(
            helper.make_node(
                "Conv", inputs, [output], group=group, strides=[stride] * 2, kernel_shape=shape, auto_pad="SAME_UPPER"
            )
        )
        return output

    def block(self, x, prefix, name, order, stride):
        """Convolution, folded normalisation, ReLU6. `order` turns TensorFlow's kernel axes into ONNX's."""
        kernel = self.constants[prefix + name].astype(np.float64).transpose(order)
        x = self.conv(x, prefix, kernel, stride, *self.folded(prefix))
        self.nodes.append(helper.make_node("Clip", [x, "zero", "six"], [prefix + "relu6"]))
        return prefix + "relu6"

    def classifier(self, x, prefix):
        kernel = self.constants[prefix + "weights"].astype(np.float64).transpose(3, 2, 0, 1)
        self.nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"]))
        x = self.conv("pooled", prefix, kernel, 1, np.ones(kernel.shape[0]), self.constants[prefix + "biases"])
        self.nodes.append(helper.make_node("Flatten", [x], ["logits"], axis=1))
        self.nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))


def build(constants):
    """The whole network as a checked ModelProto."""
    root, full, depthwise = "MobilenetV1/", (3, 2, 0, 1), (2, 3, 0, 1)
    net = Network(constants)
    x = net.block("input", root + "Conv2d_0/", "weights", full, 2)
    for index, stride in enumerate(STRIDES, 1):
        x = net.block(x, f"{root}Conv2d_{index}_depthwise/", "depthwise_weights", depthwise, stride)
        x = net.block(x, f"{root}Conv2d_{index}_pointwise/", "weights", full, 1)
    net.classifier(x, root + "Logits/Conv2d_1c_1x1/")
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 1001])]
    graph = helper.make_graph(net.nodes, "mobilenet_v1_1.0_224", inputs, outputs, net.weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="panoply build_mobilenet"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


if __name__ == "__main__":
    graph, names, out, labels = map(Path, sys.argv[1:5])
    onnx.save(build(graph_def.float_constants(graph.read_bytes())), out)
    labels.write_text("".join(name + "\n" for name in ["background", *json.loads(names.read_text())]))
