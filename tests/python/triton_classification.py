"""Classes instead of values, over HTTP and gRPC.

usage: triton_classification.py HTTP_ADDRESS GRPC_ADDRESS
"""

import sys

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

MODEL = "classes.tar.gz"
SCORES = np.array([[0.25, 0.5, -1.0, 0.5], [4.0, 3.0, 2.0, np.nan]], np.float32)
COUNTS = np.array([[-7, 9, 2**62, 0], [5, 5, 5, 6]], np.int64)
LABELLED = [[b"0.500000:1:dog", b"0.500000:3", b"0.250000:0:cat"], [b"4.000000:0:cat", b"3.000000:1:dog", b"2.000000:2:emu"]]
PLAIN = [[b"4611686018427387904:2", b"9:1"], [b"6:3", b"5:0"]]


def given(module, name, values):
    tensor = module.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return tensor.set_data_from_numpy(values)


def words(answer):
    """Elements are text where they came as JSON."""
    return [[word if isinstance(word, bytes) else word.encode() for word in row] for row in answer]


def check(module, client, formats):
    inputs = [given(module, "scores", SCORES), given(module, "counts", COUNTS)]
    for options in formats:
        best = [
            module.InferRequestedOutput("best", class_count=3, **options),
            module.InferRequestedOutput("most", class_count=2, **options),
            module.InferRequestedOutput("same", **options),
        ]
        result = client.infer(MODEL, [*inputs, given(module, "numbers", SCORES[:, :2])], outputs=best)
        assert words(result.as_numpy("best")) == LABELLED, (options, result.as_numpy("best"))
        assert words(result.as_numpy("most")) == PLAIN, (options, result.as_numpy("most"))
        assert result.as_numpy("best").shape == (2, 3)
        # An output of the same request that is not asked for by classes stays as it is.
        assert (result.as_numpy("same") == SCORES[:, :2]).all()
        all_of_them = [module.InferRequestedOutput("most", class_count=99, **options)]
        assert client.infer(MODEL, inputs[1:], outputs=all_of_them).as_numpy("most").shape == (2, 4)
    refused = [module.InferRequestedOutput("text", class_count=1)]
    try:
        client.infer(MODEL, [given(module, "letters", np.array([[b"a"]], np.object_))], outputs=refused)
    except InferenceServerException as error:
        assert error.status() in ("400", "StatusCode.INVALID_ARGUMENT"), error.status()
        assert "classification" in error.message() and "BYTES" in error.message(), error.message()
    else:
        raise AssertionError("texts have no order")


if __name__ == "__main__":
    with over_http.InferenceServerClient(sys.argv[1], network_timeout=60) as client:
        check(over_http, client, [{"binary_data": True}, {"binary_data": False}])
    with over_grpc.InferenceServerClient(sys.argv[2]) as client:
        check(over_grpc, client, [{}])
    print("all right")
