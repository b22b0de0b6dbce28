"""Writes the ONNX models that only the end-to-end tests need.

usage: make_models.py OUT_FOLDER
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT32, INT64, UINT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT64
BOOL, STRING = TensorProto.BOOL, TensorProto.STRING
WIDTH = 512


def value(name, elem_type, shape):
    return helper.make_tensor_value_info(name, elem_type, shape)


def save(out, name, graph):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save_model(model, out / f"{name}.onnx")


def scaling(factor):
    """y = factor * x, with a weight of 1 MiB."""
    weight = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) * factor, "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shape = ["n", WIDTH]
    return helper.make_graph([node], "scaling", [value("x", FLOAT, shape)], [value("y", FLOAT, shape)], [weight])


def adding():
    """y = x + a number, for which tests put others into the file."""
    node = helper.make_node("Add", ["x", "number"], ["y"])
    number = numpy_helper.from_array(np.array([123456.79], np.float32), "number")
    return helper.make_graph([node], "adding", [value("x", FLOAT, ["n", 1])], [value("y", FLOAT, ["n", 1])], [number])


def spin():
    """Goes round a loop `rounds` times, and gives the number of rounds back."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["count", "one"], ["next"])],
        "body",
        [value("round", INT64, []), value("go", BOOL, []), value("count", INT64, [1])],
        [value("go_on", BOOL, []), value("next", INT64, [1])],
        [numpy_helper.from_array(np.array([1], np.int64), "one")],
    )
    nodes = [
        helper.make_node("Reshape", ["rounds", "scalar"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "zero"], ["done"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array([], np.int64), "scalar"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
    ]
    return helper.make_graph(nodes, "spin", [value("rounds", INT64, [1])], [value("done", INT64, [1])], constants)


def mean_of_pixels():
    """y = the mean of each image x, times its scale; 1 where there is none."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "all_but_rows"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "columns"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2, 3], np.int64), "all_but_rows"),
        numpy_helper.from_array(np.array([1], np.int64), "columns"),
        numpy_helper.from_array(np.array([1], np.float32), "scale"),
    ]
    inputs = [value("x", FLOAT, ["n", 3, 224, 224]), value("scale", FLOAT, ["n"])]
    return helper.make_graph(nodes, "mean_of_pixels", inputs, [value("y", FLOAT, ["n", 1])], constants)


def sum_of_features():
    """score = the sum of the features."""
    node = helper.make_node("ReduceSum", ["features", "columns"], ["score"], keepdims=1)
    columns = numpy_helper.from_array(np.array([1], np.int64), "columns")
    inputs, outputs = [value("features", FLOAT, ["n", 64])], [value("score", FLOAT, ["n", 1])]
    return helper.make_graph([node], "sum_of_features", inputs, outputs, [columns])


def ramp():
    """output = each token's id times 0, 1, 2 … 383; 0 for padding."""
    nodes = [
        helper.make_node("Mul", ["token_ids", "attn_mask"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["ids"], to=FLOAT),
        helper.make_node("Unsqueeze", ["ids", "last"], ["column"]),
        helper.make_node("Mul", ["column", "ramp"], ["output"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.arange(384, dtype=np.float32), "ramp"),
    ]
    inputs = [value(name, INT64, ["n", "s"]) for name in ("token_ids", "attn_mask")]
    return helper.make_graph(nodes, "ramp", inputs, [value("output", FLOAT, ["n", "s", 384])], constants)


def lookup():
    """y = the row of a table of ten that x names; any other x is an error."""
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    table = numpy_helper.from_array(np.arange(10, dtype=np.float32) * 10, "table")
    return helper.make_graph([node], "lookup", [value("x", INT64, ["n", 1])], [value("y", FLOAT, ["n", 1])], [table])


def ragged():
    """Of rows that stand one after the other in x: each one's sum, elements doubled, and what batch inputs tell of it."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["running"]),
        helper.make_node("Concat", ["none", "running"], ["ends"], axis=0),
        helper.make_node("Gather", ["ends", "index"], ["sums"]),
        helper.make_node("Slice", ["sums", "one", "last"], ["after"]),
        helper.make_node("Slice", ["sums", "zero", "minus_one"], ["before"]),
        helper.make_node("Sub", ["after", "before"], ["flat_sum"]),
        helper.make_node("Unsqueeze", ["flat_sum", "one"], ["sum"]),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Unsqueeze", ["count_of", "one"], ["count"]),
        helper.make_node("Shape", ["most_of"], ["most_shape"]),
        helper.make_node("Cast", ["most_shape"], ["most_number"], to=FLOAT),
        helper.make_node("Mul", ["count", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "most_number"], ["most"]),
        helper.make_node("Identity", ["shape_of"], ["width"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(0, np.int64), "axis"),
        numpy_helper.from_array(np.array([0], np.float32), "none"),
        numpy_helper.from_array(np.array(0, np.float32), "nothing"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([-1], np.int64), "minus_one"),
        numpy_helper.from_array(np.array([2**62], np.int64), "last"),
    ]
    inputs = [
        value("x", FLOAT, ["elements"]),
        value("index", INT32, ["ends"]),
        value("count_of", FLOAT, ["n"]),
        value("most_of", FLOAT, ["most"]),
        value("shape_of", INT32, ["n", 1]),
    ]
    outputs = [
        value("sum", FLOAT, ["n", 1]),
        value("twice", FLOAT, ["elements"]),
        value("count", FLOAT, ["n", 1]),
        value("most", FLOAT, ["n", 1]),
        value("width", INT32, ["n", 1]),
    ]
    return helper.make_graph(nodes, "ragged", inputs, outputs, constants)


def accumulate(id_type):
    """sum = past + x, which is kept as present; told = the control inputs start, end and ready; name = id."""
    nodes = [
        helper.make_node("Add", ["past", "x"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["present"]),
        helper.make_node("Cast", ["end"], ["end_number"], to=INT32),
        helper.make_node("Cast", ["ready"], ["ready_number"], to=INT32),
        helper.make_node("Concat", ["start", "end_number", "ready_number"], ["told"], axis=1),
        helper.make_node("Identity", ["id"], ["name"]),
    ]
    inputs = [("x", FLOAT), ("past", FLOAT), ("start", INT32), ("end", FLOAT), ("ready", BOOL), ("id", id_type)]
    outputs = [("sum", FLOAT, 1), ("present", FLOAT, 1), ("told", INT32, 3), ("name", id_type, 1)]
    inputs = [value(name, kind, ["n", 1]) for name, kind in inputs]
    outputs = [value(name, kind, ["n", width]) for name, kind, width in outputs]
    return helper.make_graph(nodes, "accumulate", inputs, outputs)


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    save(out, "adding", adding())
    save(out, "spin", spin())
    save(out, "lookup", lookup())
    save(out, "ragged", ragged())
    save(out, "accumulate", accumulate(UINT64))
    save(out, "accumulate_named", accumulate(STRING))
    save(out, "dialect_repeated_blocks", mean_of_pixels())
    save(out, "dialect_full_scheduling", sum_of_features())
    save(out, "dialect_ensemble_lists", ramp())
    for factor in range(1, 11):
        save(out, f"scaling_{factor}", scaling(factor))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
