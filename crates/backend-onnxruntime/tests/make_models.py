"""Writes the small ONNX models that the tests of backend-onnxruntime load.

usage: python make_models.py OUT_FOLDER
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING

TYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"]
TYPES += ["FLOAT16", "BFLOAT16", "FLOAT", "DOUBLE", "STRING"]


def value(name, elem_type, shape):
    return helper.make_tensor_value_info(name, elem_type, shape)


def write(out, name, nodes, inputs, outputs, initializers=(), **options):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save_model(model, out / f"{name}.onnx", **options)


def tensors(out):
    # Every type comes back as it went in.
    for type_name in TYPES:
        elem_type = getattr(TensorProto, type_name)
        write(
            out,
            f"identity_{type_name.lower()}",
            [helper.make_node("Identity", ["x"], ["y"])],
            [value("x", elem_type, ["n", "m"])],
            [value("y", elem_type, ["n", "m"])],
        )
    write(
        out,
        "scalar",
        [helper.make_node("Neg", ["x"], ["y"])],
        [value("x", FLOAT, [])],
        [value("y", FLOAT, [])],
    )
    write(
        out,
        "nonzero",
        [helper.make_node("NonZero", ["x"], ["y"])],
        [value("x", FLOAT, ["n"])],
        [value("y", INT64, [1, "k"])],
    )
    # The output's rank is only known when it runs.
    write(
        out,
        "reshape",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", FLOAT, ["n"]), value("shape", INT64, ["r"])],
        [value("y", FLOAT, None)],
    )


def graphs(out):
    rows = ["n", 3]
    write(
        out,
        "add_sub",
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [value("a", FLOAT, rows), value("b", FLOAT, rows)],
        [value("sum", FLOAT, rows), value("difference", FLOAT, rows)],
    )
    write(
        out,
        "fixed_batch",
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", FLOAT, [1, 3])],
        [value("y", FLOAT, [1, 3])],
    )
    # `scale` may be left out: 10 is taken then.
    write(
        out,
        "optional_input",
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        [value("x", FLOAT, ["n"]), value("scale", FLOAT, [1])],
        [value("y", FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([10], np.float32), "scale")],
    )
    # Outputs that ONNX Runtime may hand out without memory of their own: an input, and a weight.
    write(
        out,
        "aliases",
        [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Identity", ["w"], ["weight"])],
        [value("x", FLOAT, ["n"])],
        [value("x", FLOAT, ["n"]), value("same", FLOAT, ["n"]), value("weight", FLOAT, [1000]), value("w", FLOAT, [1000])],
        [numpy_helper.from_array(np.arange(1000, dtype=np.float32), "w")],
    )
    write(
        out,
        "sequence_output",
        [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=0), helper.make_node("Neg", ["x"], ["y"])],
        [value("x", FLOAT, ["n"])],
        [helper.make_tensor_sequence_value_info("parts", FLOAT, None), value("y", FLOAT, ["n"])],
    )
    weights = np.eye(512, dtype=np.float32) * 2
    for name, options in (
        ("weights", {}),
        ("external", {"save_as_external_data": True, "location": "external.weights", "size_threshold": 0}),
    ):
        (out / "external.weights").unlink(missing_ok=True)
        write(
            out,
            name,
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            [value("x", FLOAT, ["n", 512])],
            [value("y", FLOAT, ["n", 512])],
            [numpy_helper.from_array(weights, "w")],
            **options,
        )


def loops(out):
    # Goes round as often as it is told.
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["count", "one"], ["next"])],
        "body",
        [value("round", INT64, []), value("go", TensorProto.BOOL, []), value("count", INT64, [1])],
        [value("go_on", TensorProto.BOOL, []), value("next", INT64, [1])],
        [numpy_helper.from_array(np.array([1], np.int64), "one")],
    )
    write(
        out,
        "spin",
        [
            helper.make_node("Reshape", ["rounds", "scalar"], ["trips"]),
            helper.make_node("Loop", ["trips", "", "zero"], ["done"], body=body),
        ],
        [value("rounds", INT64, [1])],
        [value("done", INT64, [1])],
        [
            numpy_helper.from_array(np.array([], np.int64), "scalar"),
            numpy_helper.from_array(np.array([0], np.int64), "zero"),
        ],
    )


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    tensors(out)
    graphs(out)
    loops(out)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
