"""What tritonclient.grpc sees.

usage: triton_grpc_client.py HOST:PORT target/panoply
"""

import json
import pathlib
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

TARGET = "x-amzn-sagemaker-target-model"
ECHO = "team/echo.tar.gz"


def tensor(name, values):
    given = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    given.set_data_from_numpy(values)
    return given


def check_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata.name == "panoply" and "binary_tensor_data" in metadata.extensions, metadata
    model = client.get_model_metadata("profanity.tar.gz")
    assert [(input.name, input.datatype, list(input.shape)) for input in model.inputs] == [("text", "BYTES", [-1, 1])]
    assert client.is_model_ready("profanity.tar.gz") and not client.is_model_ready("nope.tar.gz")
    config = client.get_model_config("profanity.tar.gz").config
    assert (config.name, config.max_batch_size) == ("profanity", 64), config
    assert [line.name for line in client.get_model_repository_index().models] == ["profanity.tar.gz"]


def check_answers(client, artifacts):
    reference = json.loads((artifacts / "reference/minilm.json").read_text())["sets"]["batch"]
    texts = np.array([[text.encode()] for text in reference["texts"]], np.object_)
    expected = np.array(reference["embeddings"])
    for compression in (None, "gzip", "deflate"):
        wanted = [triton.InferRequestedOutput("EMBEDDING")]
        inputs = [tensor("TEXT", texts)]
        result = client.infer(
            "minilm.tar.gz", inputs, outputs=wanted, request_id="r1", compression_algorithm=compression, client_timeout=60
        )
        embeddings = result.as_numpy("EMBEDDING")
        assert embeddings.shape == (16, 384) and embeddings.dtype == np.float32
        assert ((embeddings * expected).sum(axis=1) > 0.9999).all()
        answer = result.get_response()
        assert (answer.model_name, answer.id) == ("minilm.tar.gz", "r1"), answer


def check_photo(client, artifacts):
    folder = artifacts / "demo-requests"
    pixels = (folder / "photo.body").read_bytes()[(folder / "photo.json").stat().st_size :]
    photo = np.frombuffer(pixels, np.float32).reshape(1, 3, 224, 224)
    best = [triton.InferRequestedOutput("probabilities", class_count=5)]
    classes = client.infer("mobilenet.tar.gz", [tensor("input", photo)], outputs=best).as_numpy("probabilities")
    assert classes.reshape(-1)[0].decode().split(":")[2] == "espresso", classes


def check_folders(client):
    values = np.array([1.0, 2.0], np.float32)
    for name, headers in ((ECHO, None), ("echo", {TARGET: ECHO})):
        result = client.infer(name, [tensor("X", values)], headers=headers)
        assert (result.as_numpy("Y") == values).all()


def check_stream(client):
    answers = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(20):
        name = "nope.tar.gz" if number == 7 else ECHO
        client.async_stream_infer(name, [tensor("X", np.array([number], np.float32))], request_id=str(number))
    for number in range(20):
        result, error = answers.get(timeout=60)
        if number == 7:
            assert "nope.tar.gz" in error.message(), error
            continue
        assert error is None, error
        assert result.get_response().id == str(number) and result.as_numpy("Y")[0] == number
    client.stop_stream()


def expect(status, call, *parts):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", (error.status(), error.message())
        assert all(part in error.message() for part in parts), error.message()
        return
    raise AssertionError(f"a status {status} was expected")


def check_exceptions(client):
    values = np.array([1.0], np.float32)
    expect("NOT_FOUND", lambda: client.infer("nope.tar.gz", [tensor("X", values)]), "nope.tar.gz")
    expect("NOT_FOUND", lambda: client.get_model_metadata("nope.tar.gz"), "nope.tar.gz")
    expect("INVALID_ARGUMENT", lambda: client.infer(ECHO, [tensor("Z", values)]), "Z")
    expect("INVALID_ARGUMENT", lambda: client.infer(ECHO, [tensor("X", values.astype(np.int64))]), "INT64", "FP32")
    expect("RESOURCE_EXHAUSTED", lambda: client.infer("huge.tar.gz", [tensor("X", values)]), "huge.tar.gz")
    expect("UNIMPLEMENTED", lambda: client.register_cuda_shared_memory("r", b"", 0, 1), "--allow-client-shm")


def main(address, artifacts):
    with triton.InferenceServerClient(address) as client:
        check_metadata(client)
        check_answers(client, artifacts)
        check_photo(client, artifacts)
        check_folders(client)
        check_stream(client)
        check_exceptions(client)
    print("all right")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
