"""Prepares the node tests of the package `onnx` for `node_tests.rs`, so that the test needs no ONNX parser.

usage: python prepare_node_tests.py OUT_FOLDER

Every node test is first run by ONNX Runtime's own Python package. A test that passes there, and whose tensors KServe v2
can carry, becomes OUT_FOLDER/<name>/1/model.onnx and OUT_FOLDER/<name>/data.bin (the tensors' raw bytes back to back, so
at any alignment); OUT_FOLDER/manifest.json lists them, and gives each other test the reason why it is left out.
"""

import ctypes
import hashlib
import json
import pathlib
import shutil
import struct
import sys
import warnings

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

RTOL, ATOL = 1e-3, 1e-5

# The types that KServe v2 has, by ONNX's number.
DATATYPES = {
    TensorProto.BOOL: "BOOL",
    TensorProto.UINT8: "UINT8",
    TensorProto.UINT16: "UINT16",
    TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64",
    TensorProto.INT8: "INT8",
    TensorProto.INT16: "INT16",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.FLOAT: "FP32",
    TensorProto.DOUBLE: "FP64",
    TensorProto.STRING: "BYTES",
}


class LeftOut(Exception):
    """Why a test is not run: one of the reasons that node_tests.rs counts."""


def read(path):
    return numpy_helper.to_array(TensorProto.FromString(path.read_bytes()))


def read_all(folder, prefix, value_infos):
    """The values of a data set by position; an input that the test leaves out has no file."""
    paths = ((vi, folder / f"{prefix}_{i}.pb") for i, vi in enumerate(value_infos))
    return [(vi, read(path)) for vi, path in paths if path.exists()]


def same(got, want):
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return False
    if want.dtype.kind in "OUS":
        return bool((got.astype(str) == want.astype(str)).all())
    if want.dtype.kind in "biu":
        return bool((got == want).all())
    return np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=RTOL, atol=ATOL, equal_nan=True)


def is_bf16(value):
    return getattr(value, "dtype", None) == ml_dtypes.bfloat16


def to_ort(value):
    """bfloat16 goes in as its bits: ONNX Runtime's Python package does not know numpy's type for it."""
    if is_bf16(value):
        bits = np.ascontiguousarray(value).view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(value)


def from_ort(value):
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), int(np.prod(shape)) * 2)
    return np.frombuffer(bits, ml_dtypes.bfloat16).reshape(shape)


def run_onnxruntime(model_path, inputs, outputs):
    """Raises LeftOut unless ONNX Runtime itself gets the expected outputs."""
    try:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
        needed = {i.name for i in session.get_inputs()}
        given = {vi.name: value for vi, value in inputs if vi.name in needed}
        if any(is_bf16(value) for _, value in inputs + outputs):
            feeds = {name: to_ort(value) for name, value in given.items()}
            names = [output.name for output in session.get_outputs()]
            got = [from_ort(value) for value in session.run_with_ort_values(names, feeds)]
        else:
            got = session.run(None, given)
        passed = len(got) == len(outputs) and all(same(g, want) for g, (_, want) in zip(got, outputs))
    except Exception as error:
        raise LeftOut("onnxruntime-fails") from error
    if not passed:
        raise LeftOut("onnxruntime-fails")


def datatype_of(vi):
    """KServe's name of an input's or output's type."""
    if vi.type.WhichOneof("value") != "tensor_type":
        raise LeftOut("not-a-tensor")
    datatype = DATATYPES.get(vi.type.tensor_type.elem_type)
    if datatype is None:
        raise LeftOut("type-unknown-to-kserve")
    return datatype


def encode(vi, value):
    """A tensor's datatype, shape and raw bytes, as KServe v2 has them."""
    datatype, value = datatype_of(vi), np.asarray(value)
    if datatype == "BYTES":
        elements = [e if isinstance(e, bytes) else str(e).encode() for e in value.flatten().tolist()]
        raw = b"".join(struct.pack("<I", len(e)) + e for e in elements)
    else:
        raw = np.ascontiguousarray(value).tobytes()
    return datatype, list(value.shape), raw


def prepare(source, out):
    """Writes one test; returns its entry of the manifest."""
    model_path = source / "model.onnx"
    model = onnx.load(model_path)
    # The whole signature counts: an input that the test leaves out is declared nevertheless.
    for vi in [*model.graph.input, *model.graph.output]:
        datatype_of(vi)
    folders = sorted(source.glob("test_data_set_*"))
    assert len(folders) == 1, f"{source} has {len(folders)} data sets"
    inputs = read_all(folders[0], "input", model.graph.input)
    outputs = read_all(folders[0], "output", model.graph.output)
    run_onnxruntime(model_path, inputs, outputs)
    data, entry = bytearray(), {"name": source.name, "inputs": [], "outputs": []}
    for role, values in (("inputs", inputs), ("outputs", outputs)):
        for vi, value in values:
            datatype, shape, raw = encode(vi, value)
            place = {"offset": len(data), "length": len(raw)}
            entry[role].append({"name": vi.name, "datatype": datatype, "shape": shape, **place})
            data += raw
    (out / source.name / "1").mkdir(parents=True)
    shutil.copyfile(model_path, out / source.name / "1" / "model.onnx")
    (out / source.name / "data.bin").write_bytes(data)
    return entry


def main(out):
    warnings.filterwarnings("ignore")
    onnxruntime.set_default_logger_severity(4)
    script = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()
    header = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "script": script}
    manifest = out / "manifest.json"
    if manifest.exists():
        old = json.loads(manifest.read_text())
        if {key: old.get(key) for key in header} == header:
            print(f"{out} is current: {len(old['tests'])} tests, {len(old['left_out'])} left out")
            return
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tests, left_out = [], {}
    for source in sorted((pathlib.Path(onnx.__file__).parent / "backend/test/data/node").iterdir()):
        try:
            tests.append(prepare(source, out))
        except LeftOut as reason:
            left_out[source.name] = str(reason)
            if "-v" in sys.argv:
                print(source.name, reason, "|", str(reason.__cause__).splitlines()[:1])
    partial = out / "manifest.json.part"
    partial.write_text(json.dumps({**header, "tests": tests, "left_out": left_out}, indent=1))
    partial.rename(manifest)
    print(f"{out}: {len(tests)} tests, {len(left_out)} left out")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
