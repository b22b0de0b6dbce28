"""What Triton's clients see of restricted APIs.

usage: triton_restricted.py HTTP_HOST:PORT GRPC_HOST:PORT
"""

import sys

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

VALUES = np.array([1.0, 2.0], np.float32)
MODEL = "echo.tar.gz"


def expect(status, call, text):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == status and text in error.message(), error
        return
    raise AssertionError(f"a status {status} was expected")


def tensor(module):
    given = module.InferInput("X", [2], "FP32")
    given.set_data_from_numpy(VALUES)
    return [given]


def check_http(address):
    text = "This API is restricted, expecting header '{}'"
    key = {"infer-key": "open sesame"}
    with triton_http.InferenceServerClient(address) as client:
        for headers in (None, {"infer-key": "open"}):
            expect("403", lambda: client.infer(MODEL, tensor(triton_http), headers=headers), text.format("infer-key"))
        assert (client.infer(MODEL, tensor(triton_http), headers=key).as_numpy("Y") == VALUES).all()
        expect("403", lambda: client.get_model_config(MODEL), text.format("infer-key"))
        assert client.get_model_config(MODEL, headers=key)["name"] == "echo"
        expect("403", lambda: client.get_log_settings(headers=key), text.format("admin-key"))
        assert client.get_log_settings(headers={"admin-key": "a=b"})["log_info"] is True
        assert client.is_server_live() and client.get_model_metadata(MODEL)["platform"] == "identity"


def check_grpc(address):
    text = "This API is restricted, expecting header 'triton-grpc-protocol-infer-key'"
    key = {"triton-grpc-protocol-infer-key": "open sesame"}
    with triton_grpc.InferenceServerClient(address) as client:
        call = lambda headers: client.infer(MODEL, tensor(triton_grpc), headers=headers)
        expect("StatusCode.UNAVAILABLE", lambda: call(None), text)
        expect("StatusCode.UNAVAILABLE", lambda: call({"infer-key": "open sesame"}), text)
        assert (call(key).as_numpy("Y") == VALUES).all()
        assert client.get_log_settings(as_json=True)["settings"]["log_info"]["bool_param"] is True


if __name__ == "__main__":
    check_http(sys.argv[1])
    check_grpc(sys.argv[2])
    print("all right")
