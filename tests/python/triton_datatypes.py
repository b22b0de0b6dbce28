"""Every KServe datatype through an identity model, compared bit for bit: HTTP (binary and JSON), gRPC, gRPC stream.

The model has an optional input `IN_<datatype>` and an output `OUT_<datatype>` of every datatype, of shape [-1, -1].

usage: triton_datatypes.py HTTP_ADDRESS GRPC_ADDRESS
"""

import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor

MODEL = "types.tar.gz"
INTEGERS = [np.dtype(f"{sign}int{bits}").type for sign in ("u", "") for bits in (8, 16, 32, 64)]
FLOATS = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]


def limits(datatype):
    information = np.iinfo(datatype)
    return np.array([[information.min, information.max, 0], [1, information.max - 1, information.min + 1]], datatype)


def floats(datatype):
    """Zeros of both signs, the largest, the smallest normal and subnormal numbers, what has no short decimal, and none."""
    about = ml_dtypes.finfo(datatype)
    third = np.float64(1) / 3
    numbers = [0.0, -0.0, 1.0, -third, about.max, about.min, about.tiny, about.smallest_subnormal, third * 100]
    numbers += [np.inf, -np.inf, np.nan]
    return np.array([np.array(number).astype(datatype) for number in numbers], datatype).reshape(4, 3)


def nan_payloads(datatype):
    """Not-a-number with bits of its own, of both signs, quiet and signalling."""
    size = np.dtype(datatype).itemsize
    bits = np.dtype(f"uint{size * 8}")
    infinity = int(np.array([np.inf]).astype(datatype).view(bits)[0])
    sign = 1 << (size * 8 - 1)
    return np.array([[infinity | 1, infinity | sign | 3, (1 << (size * 8)) - 1]], bits).view(datatype)


def texts(*elements):
    return np.array([list(elements)], np.object_)


def tensors():
    """Tensors of every datatype: (values, whether JSON can express them)."""
    yield np.array([[True, False], [False, True]]), True
    for datatype in INTEGERS:
        yield limits(datatype), True
    for datatype in FLOATS:
        # This client sends BF16 as binary only.
        yield floats(datatype), datatype is not ml_dtypes.bfloat16
        yield nan_payloads(datatype), False
    yield texts(b"", "naïve 日本語 🦀 \u0000 \"quoted\\\n".encode(), b"", ("ü" * (1 << 20)).encode(), b"end"), True
    yield texts(b""), True
    yield texts(b"\xff\x00\xfe", bytes(range(256)), b"\x80" * 100_000), False
    yield np.array([["as", "str"], ["", "\u20ac"]], np.object_), True
    yield np.array([[b"fixed", b"width"]], np.bytes_), True
    for datatype in (bool, np.uint8, np.float16, np.int64, np.object_):
        yield np.empty((0, 3), datatype), True
    yield np.empty((2, 0), ml_dtypes.bfloat16), False
    yield np.arange(1 << 20, dtype=np.uint32).reshape(1 << 10, 1 << 10), False


def bits(values):
    if values.dtype == np.object_ or values.dtype.type == np.bytes_:
        serialized = serialize_byte_tensor(values)
        return serialized.item() if serialized.size else b""
    return values.tobytes()


def check(values, result, how):
    name = np_to_triton_dtype(values.dtype)
    returned = result.as_numpy(f"OUT_{name}")
    assert returned is not None, (name, how)
    assert returned.shape == values.shape, (name, how, returned.shape)
    kind = np.object_ if name == "BYTES" else values.dtype
    # An empty tensor has no elements that could be of another type.
    assert returned.dtype == kind or not values.size, (name, how, returned.dtype)
    if values.size:
        assert bits(returned) == bits(values), (name, how, returned, values)


def given(module, values, **options):
    name = np_to_triton_dtype(values.dtype)
    tensor = module.InferInput(f"IN_{name}", list(values.shape), name)
    return tensor.set_data_from_numpy(values, **options)


def wanted(values, **options):
    return [over_http.InferRequestedOutput(f"OUT_{np_to_triton_dtype(values.dtype)}", **options)]


def check_http(address, all_tensors):
    with over_http.InferenceServerClient(address, network_timeout=60) as client:
        for values, in_json in all_tensors:
            check(values, client.infer(MODEL, [given(over_http, values)]), "HTTP binary")
            if in_json:
                for sent, received in ((False, False), (True, False), (False, True)):
                    request = [given(over_http, values, binary_data=sent)]
                    result = client.infer(MODEL, request, outputs=wanted(values, binary_data=received))
                    check(values, result, f"HTTP binary={sent} → binary={received}")
        together(over_http, client)
        brain_floats_as_json(client)
        undecodable(client)


def together(module, client):
    """One request with an input of every datatype."""
    every = {np_to_triton_dtype(values.dtype): values for values, _ in tensors() if values.size}
    assert len(every) == 14, sorted(every)
    result = client.infer(MODEL, [given(module, values) for values in every.values()])
    for values in every.values():
        check(values, result, "all at once")


def brain_floats_as_json(client):
    """What the server sends of BF16 as JSON is exact."""
    values = floats(ml_dtypes.bfloat16)[:3]
    result = client.infer(MODEL, [given(over_http, values)], outputs=wanted(values, binary_data=False))
    check(values, result, "BF16 as JSON")


def undecodable(client):
    """What is no UTF-8 cannot leave as JSON, and the answer says so."""
    values = texts(b"\xff")
    try:
        client.infer(MODEL, [given(over_http, values)], outputs=wanted(values, binary_data=False))
    except InferenceServerException as error:
        assert error.status() == "400" and "OUT_BYTES" in error.message(), (error.status(), error.message())
    else:
        raise AssertionError("0xff is no UTF-8")


def check_grpc(address, all_tensors):
    with over_grpc.InferenceServerClient(address) as client:
        for values, _ in all_tensors:
            check(values, client.infer(MODEL, [given(over_grpc, values)]), "gRPC")
        together(over_grpc, client)
        answers = queue.Queue()
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number, (values, _) in enumerate(all_tensors):
            client.async_stream_infer(MODEL, [given(over_grpc, values)], request_id=str(number))
        for number, (values, _) in enumerate(all_tensors):
            result, error = answers.get(timeout=60)
            assert error is None and result.get_response().id == str(number), (error, number)
            check(values, result, "gRPC stream")
        client.stop_stream()


if __name__ == "__main__":
    ALL = list(tensors())
    check_http(sys.argv[1], ALL)
    check_grpc(sys.argv[2], ALL)
    print("all right")
